package wire

import (
	"bytes"
	"errors"
	"io"
	"net"
	"runtime"
	"testing"
	"time"
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
	defer func(old time.Duration) { keptFor = old }(keptFor)
	keptFor = time.Hour
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

// What the server waits for is not kept back from it until it has answered, and
// whoever waits for it is not taken for stuck in a write.
func TestTogetherWaits(t *testing.T) {
	ours, server := net.Pipe()
	defer ours.Close()
	defer server.Close()
	w := &Conn{Conn: ours, open: true}
	go func() {
		b := make([]byte, 1)
		for {
			if _, err := io.ReadFull(server, b); err != nil {
				return
			}
			if _, err := server.Write(b); err != nil {
				return
			}
		}
	}()
	err := w.Together(func() {
		for i := range byte(3) {
			if _, err := w.Write([]byte{i}); err != nil {
				t.Error(err)
			}
			b := make([]byte, 1)
			if _, err := w.Read(b); err != nil || b[0] != i {
				t.Errorf("read %d, %v", b, err)
			}
		}
		for w.writing.Load() != 0 { // or the test does not end
			runtime.Gosched()
		}
	})
	if err != nil {
		t.Error(err)
	}
}
