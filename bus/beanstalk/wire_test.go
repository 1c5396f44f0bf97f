package beanstalk

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/cbsd/cbsdmq/bus"
)

const statsReply = "OK 52\r\n---\nmax-job-size: 65535\nbinlog-current-index: 0\n...\n\r\n"

// scripted accepts connections and lets serve answer each.
func scripted(t testing.TB, serve func(*raw)) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("listening: %v", err)
	}
	ended := make(chan struct{})
	t.Cleanup(func() {
		ln.Close()
		<-ended
	})
	go func() {
		defer close(ended)
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			serve(newRaw(t, nc))
			nc.Close()
		}
	}()
	return ln.Addr().String()
}

// TestStrayPut is the server that cannot make a tube: what was sent behind
// lands in the tube before and is taken out again.
func TestStrayPut(t *testing.T) {
	var heard []string
	done := make(chan struct{})
	d := at(t, scripted(t, func(c *raw) {
		defer close(done)
		for _, answer := range []string{
			statsReply,
			"USING a\r\n", "INSERTED 1\r\n", // use, put and body
			"OUT_OF_MEMORY\r\n", "INSERTED 2\r\n",
			"DELETED\r\n",
		} {
			line, err := c.r.ReadString('\n')
			if strings.HasPrefix(line, "put") {
				c.r.ReadString('\n')
			}
			if err != nil {
				return
			}
			heard = append(heard, strings.TrimSpace(line))
			io.WriteString(c, answer)
		}
	}))
	rs := dial(t, d).Put(t.Context(), bus.Message{Tube: bus.Tube{Name: "a"}}, bus.Message{Tube: bus.Tube{Name: "b"}})
	<-done
	if rs[0].Err != nil || rs[1].Err == nil || !strings.Contains(rs[1].Err.Error(), "OUT_OF_MEMORY") {
		t.Errorf("results %v", rs)
	}
	want := []string{"stats", "use a", "put 1 0 5 0", "use b", "put 1 0 5 0", "delete 2"}
	if diff := cmp.Diff(want, heard); diff != "" {
		t.Errorf("the server heard (-want +got):\n%s", diff)
	}
}

// TestFull is the server that has no room for the second of three jobs: that one
// was not stored, of the third that is not known.
func TestFull(t *testing.T) {
	for _, word := range []string{"OUT_OF_MEMORY", "DRAINING"} {
		d := at(t, scripted(t, func(c *raw) {
			for _, answer := range []string{statsReply, "USING a\r\n", "INSERTED 1\r\n", word + "\r\n", "INSERTED 2\r\n"} {
				line, err := c.r.ReadString('\n')
				if strings.HasPrefix(line, "put") {
					c.r.ReadString('\n')
				}
				if err != nil {
					return
				}
				io.WriteString(c, answer)
			}
		}))
		m := bus.Message{Tube: bus.Tube{Name: "a"}}
		rs := dial(t, d).Put(t.Context(), m, m, m)
		if rs[0].Err != nil || !errors.Is(rs[1].Err, bus.ErrFull) || rs[2].Err == nil || errors.Is(rs[2].Err, bus.ErrFull) {
			t.Errorf("%s: results %v", word, rs)
		}
	}
}

// choppy is a connection that gives what it has in pieces, with timeouts
// in between. A piece of 0 is a timeout.
type choppy struct {
	net.Conn
	rest   []byte
	pieces []int
}

func (c *choppy) SetDeadline(time.Time) error { return nil }

func (c *choppy) Read(b []byte) (int, error) {
	if len(c.pieces) > 0 {
		n := c.pieces[0]
		c.pieces = c.pieces[1:]
		if n == 0 {
			return 0, os.ErrDeadlineExceeded
		}
		n = copy(b, c.rest[:min(n, len(c.rest))])
		c.rest = c.rest[n:]
		if n > 0 {
			return n, nil
		}
	}
	n := copy(b, c.rest)
	if c.rest = c.rest[n:]; n == 0 {
		return 0, io.EOF
	}
	return n, nil
}

// TestReplyInPieces checks that replies are the same however they arrive and
// however often reading them is interrupted.
func TestReplyInPieces(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var stream bytes.Buffer
		var want []reply
		most := rapid.IntRange(-1, 50).Draw(t, "most")
		for range rapid.IntRange(1, 20).Draw(t, "replies") {
			switch rapid.IntRange(0, 3).Draw(t, "kind") {
			case 0:
				stream.WriteString("TIMED_OUT\r\n")
				want = append(want, reply{kind: timedOut})
			case 1:
				id := rapid.Uint64Range(1, 1<<60).Draw(t, "id")
				fmt.Fprintf(&stream, "INSERTED %d\r\n", id)
				want = append(want, reply{kind: inserted, id: id})
			default:
				body := rapid.SliceOfN(rapid.Byte(), 0, 100).Draw(t, "body")
				fmt.Fprintf(&stream, "RESERVED 7 %d\r\n%s\r\n", len(body), body)
				r := reply{kind: reserved, id: 7, size: len(body)}
				if most == 0 || len(body) <= most {
					r.body = append([]byte{}, body...)
				}
				want = append(want, r)
			}
		}
		w := &wire{
			nc:  &choppy{rest: stream.Bytes(), pieces: rapid.SliceOf(rapid.IntRange(0, 30)).Draw(t, "pieces")},
			buf: make([]byte, 512),
		}
		var got []reply
		for len(got) < len(want) {
			r, err := w.reply(most)
			if errors.Is(err, os.ErrDeadlineExceeded) {
				continue
			}
			if err != nil {
				t.Fatalf("reply %d: %v", len(got), err)
			}
			got = append(got, r)
		}
		if diff := cmp.Diff(want, got, cmp.AllowUnexported(reply{})); diff != "" {
			t.Errorf("replies (-want +got):\n%s", diff)
		}
	})
}

// FuzzReply reads anything: no panic, no more memory than was sent.
func FuzzReply(f *testing.F) {
	f.Add([]byte(statsReply))
	f.Add([]byte("RESERVED 1 5\r\nhello\r\nTIMED_OUT\r\n"))
	f.Add([]byte("RESERVED 1 1073741824\r\n"))
	f.Add([]byte("RESERVED 99999999999999999999 1\r\nx\r\n"))
	f.Add([]byte("OK -1\r\n\r\n"))
	f.Add([]byte("INSERTED\r\nINSERTED 0x1\r\nUSING \r\n"))
	f.Add(bytes.Repeat([]byte("x"), 1000))
	f.Fuzz(func(t *testing.T, in []byte) {
		w := &wire{nc: &choppy{rest: in}, buf: make([]byte, 512)}
		for {
			r, err := w.reply(0)
			if err != nil {
				return
			}
			if len(r.body) != r.size || r.size > len(in) {
				t.Fatalf("body of %d bytes, said to be %d, out of %d", len(r.body), r.size, len(in))
			}
		}
	})
}
