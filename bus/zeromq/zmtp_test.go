package zeromq

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/cbsd/cbsdmq/bus"
	"github.com/cbsd/cbsdmq/internal/testserver"
)

// TestHostilePeers sends what no honest peer would, and checks that the agent
// ends the connection and goes on.
func TestHostilePeers(t *testing.T) {
	addr := testserver.FreeAddr(t)
	agent := serve(t, bus.Config{URI: addr})
	greet := string(greeting("NULL", false))
	ready := "\x04\x26\x05READY" + string(metadata("DEALER"))
	ready = ready[:1] + string(rune(len(ready)-2)) + ready[2:]
	for name, said := range map[string]string{
		"another protocol":    "GET / HTTP/1.1\r\n\r\n",
		"an old ZMTP":         "\x01\x00",
		"an old version":      "\xff\x00\x00\x00\x00\x00\x00\x00\x01\x7f\x01",
		"another mechanism":   string(greeting("PLAIN", false)),
		"CURVE":               string(greeting("CURVE", false)),
		"no handshake":        greet + "\x00\x05hello",
		"a long handshake":    greet + "\x06\x00\x00\x00\x00\x7f\xff\xff\xff",
		"another command":     greet + "\x04\x06\x05HELLO",
		"half a command":      greet + "\x04\x02\x09x",
		"a huge frame":        greet + ready + "\x02\x7f\xff\xff\xff\xff\xff\xff\xff",
		"unknown flags":       greet + ready + "\xf8\x00",
		"endless frames":      greet + ready + strings.Repeat("\x01\x00", framesMax+1),
		"an empty command":    greet + ready + "\x04\x00",
		"a command cut short": greet + ready + "\x04\x03\x09xx",
	} {
		t.Run(name, func(t *testing.T) {
			c, err := net.Dial("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			c.SetDeadline(time.Now().Add(5 * time.Second))
			go c.Write([]byte(said))
			if _, err := io.Copy(io.Discard, c); err != nil && strings.Contains(err.Error(), "timeout") {
				t.Error("the connection stays open")
			}
		})
	}
	through(t, dial(t, driver(t, bus.Config{URI: addr})), agent)
}

// TestBadRequests checks that each is answered and harms nobody.
func TestBadRequests(t *testing.T) {
	addr := testserver.FreeAddr(t)
	agent := serve(t, bus.Config{URI: addr})
	c := dial(t, driver(t, bus.Config{URI: addr}))
	for _, args := range [][]string{
		{"what"}, {"PUT"}, {"PUT", "q", "0"}, {"PUT", "q", "-1", "x"}, {"PUT", "q", "x", "x"}, {"PUT", "a b", "0", "x"}, {"PUT", "", "0", "x"},
		{"MAIL", "q", "0", "x", "y"}, {"GET"}, {"GET", "0", "1", "0"}, {"GET", "-1", "1", "0", "q"}, {"GET", "0", "x", "0", "q"}, {"GET", "0", "1", "0", "*"},
		{"STOP"}, {"ACK", "x"}, {"BACK"}, {"BACK", "x"}, {"BACK", "0", "x"}, {"ASK"}, {"ASK", "a b"}, {"ASK", "a", "b"},
	} {
		m, err := c.ask(within(t, 10*time.Second), args[0], text(args[1:]...)...)
		if err == nil || len(m) == 0 || string(m[0]) != "ERR" {
			t.Errorf("%q: answered %q, %v; want an ERR", args, m, err)
		}
	}
	for _, args := range [][]string{{"ACK", "1"}, {"BACK", "0", "1"}, {"STOP", "nothing"}, {"ACK"}} {
		if m, err := c.ask(within(t, 10*time.Second), args[0], text(args[1:]...)...); err != nil || string(m[0]) != "OK" {
			t.Errorf("%q: answered %q, %v; want OK", args, m, err)
		}
	}
	through(t, c, agent)
}

// FuzzFrames reads what comes over a connection after the greeting.
func FuzzFrames(f *testing.F) {
	f.Add([]byte("\x01\x03PUT\x01\x011\x01\x01q\x01\x010\x00\x02{}"))
	f.Add([]byte("\x01\x03GET\x01\x011\x01\x0560000\x01\x011\x01\x010\x00\x01q")) // waits when it goes
	f.Add([]byte("\x01\x04MAIL\x01\x011\x01\x01q\x01\x010\x01\x01x\x01\x03GET\x01\x011\x01\x010\x01\x011\x01\x010\x00\x01q"))
	f.Add([]byte("\x04\x07\x04PING\x00\x05"))
	f.Add([]byte("\x02\x00\x00\x00\x00\x00\x00\x01\x00" + strings.Repeat("x", 256)))
	f.Fuzz(func(t *testing.T, data []byte) {
		h := newHub("fuzz")
		p := &pipe{Conn: quiet{}, r: bufio.NewReader(bytes.NewReader(data)), w: bufio.NewWriter(io.Discard)}
		l := newLink(p, peerQueue)
		newPeer(h, l, true).serve()
		<-l.done
		h.mu.Lock()
		defer h.mu.Unlock()
		if h.sizes.queue != 0 {
			t.Errorf("%d bytes of jobs are left of a peer that has gone", h.sizes.queue)
		}
		for name, tube := range h.tubes {
			if tube.waiting.Len() > 0 || tube.ready.Len() == 0 {
				t.Errorf("tube %q: %d wait, %d are ready", name, tube.waiting.Len(), tube.ready.Len())
			}
		}
	})
}

// quiet is a connection that is only closed.
type quiet struct{ net.Conn }

func (quiet) Close() error { return nil }

// FuzzCurve opens what may come over an encrypted connection.
func FuzzCurve(f *testing.F) {
	s := &session{in: "CurveZMQMESSAGEC", out: "CurveZMQMESSAGEC"}
	f.Add(s.seal(frame{data: []byte("hello")}).data)
	f.Add([]byte(messageName))
	f.Fuzz(func(t *testing.T, data []byte) {
		s := &session{in: "CurveZMQMESSAGEC"}
		if got, err := s.open(frame{data: data}); err == nil && got.flags&^(flagMore|flagCommand) != 0 {
			t.Errorf("flags %#x", got.flags)
		}
	})
}
