package zeromq

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cbsd/cbsdmq/bus"
	"github.com/cbsd/cbsdmq/bus/bustest"
	"github.com/cbsd/cbsdmq/internal/testserver"
)

// keyFile makes a pair of keys and returns the file of the secret one.
func keyFile(t testing.TB) (file, public, secret string) {
	t.Helper()
	public, secret, err := KeyPair()
	if err != nil {
		t.Fatal(err)
	}
	file = filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(file, []byte("# secret\n"+secret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return file, public, secret
}

// serve opens an agent's driver in this process and has it listen.
func serve(t testing.TB, cfg bus.Config) bus.Conn {
	t.Helper()
	d, closer, err := (&Opener{}).Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closer.Close() })
	return dial(t, d)
}

// through sends a job from c to the agent, and its reply back.
func through(t testing.TB, c, agent bus.Conn) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	q, m := bus.Tube{Name: "q"}, bus.Tube{Name: "m", Kind: bus.Mailbox}
	n, err := agent.Consume(ctx, bus.ConsumeOptions{Tubes: []bus.Tube{q}})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	body := bytes.Repeat([]byte("0123456789"), 10_000)
	done := make(chan error, 1)
	go func() { done <- c.Put(ctx, bus.Message{Tube: q, Body: body})[0].Err }()
	ds, err := n.Receive(ctx, 1)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(ds[0].Body, body) {
		t.Errorf("the body arrived changed")
	}
	if err := n.Ack(ctx, ds...); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatalf("putting: %v", err)
	}
	if err := agent.Put(ctx, bus.Message{Tube: m, Body: body})[0].Err; err != nil {
		t.Fatalf("replying: %v", err)
	}
	in, err := c.Consume(ctx, bus.ConsumeOptions{Tubes: []bus.Tube{m}})
	if err != nil {
		t.Fatal(err)
	}
	if ds, err = in.Receive(ctx, 1); err != nil || !bytes.Equal(ds[0].Body, body) {
		t.Fatalf("the reply: %d deliveries, %v", len(ds), err)
	}
	if err := in.Ack(ctx, ds...); err != nil {
		t.Fatal(err)
	}
}

func TestCurve(t *testing.T) {
	agentFile, agentKey, _ := keyFile(t)
	clientFile, clientKey, _ := keyFile(t)
	clients := filepath.Join(t.TempDir(), "clients")
	cfg := bus.Config{URI: testserver.FreeAddr(t), CurveKey: agentFile, CurveClients: clients}
	agent := serve(t, cfg)
	own := bus.Config{URI: cfg.URI, CurveKey: clientFile, CurveServer: agentKey}

	// Whoever has the agent's key is on its host, or may as well be.
	through(t, dial(t, driver(t, bus.Config{URI: cfg.URI, CurveKey: agentFile})), agent)

	rejected := func(name string, cfg bus.Config, say ...string) {
		t.Helper()
		_, err := driver(t, cfg).Dial(t.Context())
		if _, permanent := errors.AsType[*bus.Permanent](err); !permanent {
			t.Fatalf("%s: %v; want a permanent error", name, err)
		}
		for _, s := range say {
			if !strings.Contains(err.Error(), s) {
				t.Errorf("%s: %v; want it to say %q", name, err, s)
			}
		}
	}
	rejected("a client without a list", own, "does not know the key", "curve_clients")
	if err := os.WriteFile(clients, []byte("# of the shop\n"+clientKey+" shop@web1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	c := dial(t, driver(t, own))
	through(t, c, agent)

	plain := testserver.FreeAddr(t)
	serve(t, bus.Config{URI: plain})
	own.URI = plain
	rejected("an agent without a key", own, "does not speak CURVE", "curve_key")
}

// logins starts an agent with a key, which lets in who has one that it knows.
func logins(t *testing.T, login bustest.Login) {
	agentFile, agentKey, _ := keyFile(t)
	strangerFile, otherKey, _ := keyFile(t)
	addr := testserver.FreeAddr(t)
	serve(t, bus.Config{URI: addr, CurveKey: agentFile})
	login("CURVE", bus.Config{URI: addr, CurveKey: agentFile, CurveServer: agentKey})
	login("unknown key", bus.Config{URI: addr, CurveKey: strangerFile, CurveServer: agentKey}, "does not know the key", "curve_clients")
	login("another agent's key", bus.Config{URI: addr, CurveKey: agentFile, CurveServer: otherKey}, "does not let us in", "curve_server")
	login("no key", bus.Config{URI: addr}, "wants CURVE", "curve_key")
}

// TestClientsRights checks that a client with a key of its own can neither take
// jobs nor make up replies.
func TestClientsRights(t *testing.T) {
	agentFile, agentKey, _ := keyFile(t)
	clientFile, clientKey, _ := keyFile(t)
	clients := filepath.Join(t.TempDir(), "clients")
	if err := os.WriteFile(clients, []byte(clientKey), 0o644); err != nil {
		t.Fatal(err)
	}
	addr := testserver.FreeAddr(t)
	agent := serve(t, bus.Config{URI: addr, CurveKey: agentFile, CurveClients: clients})
	c := dial(t, driver(t, bus.Config{URI: addr, CurveKey: clientFile, CurveServer: agentKey}))
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	q := bus.Tube{Name: "q"}
	thief, err := c.Consume(ctx, bus.ConsumeOptions{Tubes: []bus.Tube{q}})
	if err != nil {
		t.Fatal(err)
	}
	defer thief.Close()
	short, cancelShort := context.WithTimeout(ctx, 200*time.Millisecond)
	defer cancelShort()
	stolen := make(chan int, 1)
	go func() {
		ds, _ := thief.Receive(short, 1)
		stolen <- len(ds)
	}()
	sent := make(chan error, 1)
	go func() { sent <- c.Put(ctx, bus.Message{Tube: q, Body: []byte("x")})[0].Err }()
	if n := <-stolen; n != 0 {
		t.Error("a client takes jobs")
	}
	n, err := agent.Consume(ctx, bus.ConsumeOptions{Tubes: []bus.Tube{q}})
	if err != nil {
		t.Fatal(err)
	}
	ds, err := n.Receive(ctx, 1)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(n.Ack(ctx, ds...), <-sent); err != nil {
		t.Fatal(err)
	}
	err = c.Put(ctx, bus.Message{Tube: bus.Tube{Name: "m", Kind: bus.Mailbox}, Body: []byte("forged")})[0].Err
	if err == nil || !strings.Contains(err.Error(), "agent's own key") {
		t.Errorf("a client puts a reply: %v", err)
	}
}

// TestAgentsOwnKey checks that an agent says when its key is not the one that
// clients are told.
func TestAgentsOwnKey(t *testing.T) {
	file, public, _ := keyFile(t)
	_, other, _ := keyFile(t)
	_, _, err := (&Opener{}).Open(bus.Config{URI: "127.0.0.1", CurveKey: file, CurveServer: other})
	if err == nil || !strings.Contains(err.Error(), "zeromq.curve_server") || !strings.Contains(err.Error(), public) {
		t.Errorf("%v; want zeromq.curve_server and the right key", err)
	}
}

// TestNothingInClear checks that what goes over the network cannot be read, and
// that what was changed or sent again on its way ends the connection.
func TestNothingInClear(t *testing.T) {
	agentFile, agentKey, _ := keyFile(t)
	addr := testserver.FreeAddr(t)
	agent := serve(t, bus.Config{URI: addr, CurveKey: agentFile})
	for _, c := range []struct {
		name   string
		tamper func(p []byte) []byte
	}{
		{"untouched", func(p []byte) []byte { return p }},
		{"changed", func(p []byte) []byte { p[len(p)-1] ^= 1; return p }},
		{"sent again", func(p []byte) []byte { return append(p, p...) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := &snoop{tamper: c.tamper}
			at := s.listen(t, addr)
			client := dial(t, driver(t, bus.Config{URI: at, CurveKey: agentFile, CurveServer: agentKey}))
			if _, err := client.Inspect(t.Context(), bus.Tube{Name: "topsecret"}); err != nil {
				t.Fatal(err)
			}
			s.mu.Lock()
			s.armed = true
			s.mu.Unlock()
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			_, err := client.Inspect(ctx, bus.Tube{Name: "topsecret"})
			if err == nil && c.name == "sent again" { // the answer may have come before
				_, err = client.Inspect(ctx, bus.Tube{Name: "topsecret"})
			}
			if (c.name == "untouched") != (err == nil) || ctx.Err() != nil {
				t.Errorf("asking: %v", err)
			}
			s.mu.Lock()
			defer s.mu.Unlock()
			if len(s.seen) == 0 || bytes.Contains(s.seen, []byte("topsecret")) {
				t.Errorf("in clear, among %d bytes", len(s.seen))
			}
		})
	}
	through(t, dial(t, driver(t, bus.Config{URI: addr, CurveKey: agentFile})), agent)
}

// snoop is a proxy that looks at what the client says, and changes it once it is
// armed.
type snoop struct {
	tamper func([]byte) []byte

	mu    sync.Mutex
	seen  []byte
	armed bool
}

func (s *snoop) listen(t *testing.T, server string) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		up, err := net.Dial("tcp", server)
		if err != nil {
			return
		}
		defer up.Close()
		go func() {
			io.Copy(c, up)
			c.Close()
		}()
		buf := make([]byte, 64<<10)
		for {
			n, err := c.Read(buf)
			if err != nil {
				return
			}
			p := buf[:n:n]
			s.mu.Lock()
			s.seen = append(s.seen, p...)
			if s.armed {
				p = s.tamper(bytes.Clone(p))
			}
			s.mu.Unlock()
			if _, err := up.Write(p); err != nil {
				return
			}
		}
	}()
	return ln.Addr().String()
}
