package wire

import (
	"bytes"
	"errors"
	"io"
	"net"
	"testing"
)

// sink keeps what is written, write by write.
type sink struct {
	net.Conn
	writes [][]byte
	err    error
}

func (s *sink) Write(b []byte) (int, error) {
	if s.err != nil {
		return 0, s.err
	}
	s.writes = append(s.writes, bytes.Clone(b))
	return len(b), nil
}

func TestTogether(t *testing.T) {
	s := &sink{}
	w := &Conn{Conn: s}
	var want []byte
	write := func(c byte, n int) {
		b := bytes.Repeat([]byte{c}, n)
		want = append(want, b...)
		if got, err := w.Write(b); got != n || err != nil {
			t.Errorf("Write: %d of %d, %v", got, n, err)
		}
	}
	for _, tt := range []struct {
		name   string
		f      func()
		writes int
	}{
		{"nothing", func() {}, 0},
		{"small ones", func() { write('a', 10); write('b', 20); write('c', 30) }, 1},
		{"a large one among them", func() { write('a', 10); write('b', together+1); write('c', 30) }, 3},
		{"many", func() {
			for range 5 {
				write('d', together/2)
			}
		}, 3},
		{"one within another", func() {
			write('a', 10)
			if err := w.Together(func() { write('b', 10) }); err != nil {
				t.Error(err)
			}
			write('c', 10)
		}, 2},
	} {
		s.writes, want = nil, nil
		if err := w.Together(tt.f); err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
		if got := bytes.Join(s.writes, nil); len(s.writes) != tt.writes || !bytes.Equal(got, want) {
			t.Errorf("%s: %d bytes in %d writes, want %d in %d, in their order", tt.name, len(got), len(s.writes), len(want), tt.writes)
		}
	}
	s.writes = nil
	if write('e', 5); len(s.writes) != 1 {
		t.Errorf("a write by itself made %d", len(s.writes))
	}

	s.err = io.ErrClosedPipe
	if err := w.Together(func() { _, _ = w.Write([]byte("lost")) }); !errors.Is(err, s.err) {
		t.Errorf("what could not be written: %v", err)
	}
}
