package bustest

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/cbsd/cbsdmq/bus"
)

// testBodies checks that a body is bytes, any bytes.
func testBodies(t *testing.T, s Server) {
	q := queue(t)
	c := dial(t, s.Driver)
	n := consume(t, c, q)
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	for _, body := range []string{
		"", "\x00", "\r\n", "\n", "x\r\n.\r\nINSERTED 7\r\n", string(all), strings.Repeat("\r", 4097),
		strings.Repeat(string(all), 128), "\xff\xfe", "ünïcödé",
	} {
		put(t, c, q, body)
		d := take(t, n, 1)[0]
		if d.Body == nil || string(d.Body) != body || d.Size != len(body) {
			t.Errorf("body of %d bytes %.40q: received size %d, %d bytes %.40q, nil %v",
				len(body), body, d.Size, len(d.Body), d.Body, d.Body == nil)
		}
	}
	nothing(t, n)
}

// testMaxBody checks that bodies over a consumer's limit are not kept, but
// counted, and that the connection goes on.
func testMaxBody(t *testing.T, s Server) {
	q := queue(t)
	c := dial(t, s.Driver)
	n := consumeMax(t, c, 10, q)
	large := min(brokerLimit(t, c, q), 1<<16-1<<8)
	sizes := []int{11, 10, large, 0, 4096, 9}
	var want []string
	for _, size := range sizes {
		want = append(want, strings.Repeat("x", size))
	}
	put(t, c, q, want...)
	got := map[int]bool{}
	for _, d := range take(t, n, len(want)) {
		got[d.Size] = true
		if fits := d.Size <= 10; fits != (d.Body != nil) || fits && len(d.Body) != d.Size {
			t.Errorf("body of %d bytes: received %d, nil %v", d.Size, len(d.Body), d.Body == nil)
		}
	}
	for _, size := range sizes {
		if !got[size] {
			t.Errorf("no message of %d bytes arrived", size)
		}
	}
	nothing(t, n)
}

func brokerLimit(t testing.TB, c bus.Conn, q bus.Tube) int {
	t.Helper()
	info, err := c.Inspect(within(t, limit), q)
	if err != nil {
		t.Fatalf("inspecting: %v", err)
	}
	if info.MaxBody == 0 {
		return 1 << 20
	}
	return info.MaxBody
}

func testLimit(t *testing.T, s Server) {
	q := queue(t)
	c := dial(t, s.Driver)
	most := brokerLimit(t, c, q)
	if caps := s.Driver.Caps(); caps.MaxBody == 0 && most == 1<<20 {
		s.spared(t, "no limit is known")
	}
	n := consume(t, c, q)
	full := bytes.Repeat([]byte("0123456789abcdef"), most/16+1)
	for range 2 {
		rs := c.Put(within(t, limit),
			bus.Message{Tube: q, Body: []byte("before")},
			bus.Message{Tube: q, Body: full[:most+1]},
			bus.Message{Tube: q, Body: full[:most]},
			bus.Message{Tube: q, Body: full[:most+1]},
			bus.Message{Tube: q, Body: []byte("after")})
		for i, r := range rs {
			if large := i == 1 || i == 3; large != errors.Is(r.Err, bus.ErrTooLarge) || !large && r.Err != nil {
				t.Fatalf("message %d: %v; want ErrTooLarge: %v", i, r.Err, large)
			}
		}
		sizes := map[int]int{}
		for _, d := range take(t, n, 3) {
			sizes[d.Size]++
			if d.Size == most && !bytes.Equal(d.Body, full[:most]) {
				t.Error("the largest body arrived changed")
			}
		}
		if sizes[6] != 1 || sizes[most] != 1 || sizes[5] != 1 {
			t.Errorf("received sizes %v", sizes)
		}
	}
	nothing(t, n)
}

// testBadTube checks that a name which the broker cannot have puts nothing
// anywhere.
func testBadTube(t *testing.T, s Server) {
	q := queue(t)
	c := dial(t, s.Driver)
	put(t, c, q, "before")
	for _, name := range []string{"", "a b", "a\r\nput 0 0 0 0\r\n\r\n", "a*", "a>", "ä", strings.Repeat("x", 201)} {
		rs := c.Put(within(t, limit), bus.Message{Tube: bus.Tube{Name: name}, Body: []byte("nowhere")}, bus.Message{Tube: q, Body: []byte("after")})
		if !errors.Is(rs[0].Err, bus.ErrBadTube) || rs[1].Err != nil {
			t.Errorf("Put into tube %q: %v, then %v; want ErrBadTube, then nil", name, rs[0].Err, rs[1].Err)
		}
		if _, err := c.Consume(within(t, limit), bus.ConsumeOptions{Tubes: []bus.Tube{{Name: name}}}); !errors.Is(err, bus.ErrBadTube) {
			t.Errorf("Consume of tube %q: %v; want ErrBadTube", name, err)
		}
	}
	for i, d := range take(t, consume(t, c, q), 8) {
		if want := "after"; i > 0 && string(d.Body) != want {
			t.Errorf("message %d: %q, want %q", i, d.Body, want)
		}
	}
}
