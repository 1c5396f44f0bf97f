package nats_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/cbsd/cbsdmq/bus"
	"github.com/cbsd/cbsdmq/bus/bustest"
	busnats "github.com/cbsd/cbsdmq/bus/nats"
	"github.com/cbsd/cbsdmq/internal/testserver"
)

// TestMain runs the embedded broker if it is called as a process that a test
// can kill.
func TestMain(m *testing.M) {
	if len(os.Args) == 4 && os.Args[1] == "broker" {
		e, err := busnats.StartEmbedded(context.Background(), busnats.EmbeddedConfig{
			Dir: os.Args[2], Listen: os.Args[3], Log: slog.New(slog.NewTextHandler(os.Stderr, nil)),
		})
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		defer e.Close()
		select {}
	}
	os.Exit(m.Run())
}

// brokerProcess runs the embedded broker of cfg in a process of its own.
func brokerProcess(t testing.TB, cfg bus.Config) *testserver.Process {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := testserver.StartProcess(t, cfg.EmbeddedListen, self, "broker", cfg.EmbeddedDir, cfg.EmbeddedListen)
	testserver.Eventually(t, 20*time.Second, func() error { // it listens a moment before it says where
		_, err := os.Stat(filepath.Join(cfg.EmbeddedDir, "address"))
		return err
	})
	return p
}

// TestEmbedded runs the suite against the embedded broker, as a client in
// another process sees it.
func TestEmbedded(t *testing.T) {
	bustest.Run(t, func(t *testing.T) bustest.Server {
		cfg := embeddedConfig(t, testserver.FreeAddr(t))
		p := brokerProcess(t, cfg)
		secret := token(t, cfg)
		return bustest.Server{
			Name:   "embedded",
			Driver: driver(t, cfg),
			Kill:   p.Kill,
			Start:  p.Start,
			Stop:   func(t testing.TB) { p.Stop(t); silent(t, p.Addr) },
			Cont:   p.Cont,
			Addr:   p.Addr,
			At:     func(addr string) bus.Driver { return driver(t, bus.Config{URI: addr, Token: secret}) },
			Tubes:  func(t testing.TB) int { return assets(t, p.Addr, nats.Token(secret)) },
			Logins: func(_ *testing.T, login bustest.Login) {
				login("token", cfg)
				login("token by hand", bus.Config{URI: p.Addr, Token: secret})
				login("wrong token", bus.Config{URI: p.Addr, Token: bustest.WrongSecret}, "refuses the token")
			},
			Open:    open,
			Library: library,
		}
	})
}

func token(t testing.TB, cfg bus.Config) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(cfg.EmbeddedDir, "token"))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}

// TestInProcess runs the contract against the embedded broker as the process
// that it runs in sees it.
func TestInProcess(t *testing.T) {
	bustest.Run(t, func(t *testing.T) bustest.Server {
		o := &busnats.Opener{}
		d, closer, err := o.Open(t.Context(), embeddedConfig(t, "127.0.0.1:0"))
		if err != nil {
			t.Fatalf("opening: %v", err)
		}
		t.Cleanup(func() { closer.Close() })
		return bustest.Server{Driver: d, Library: library}
	})
}

func embeddedConfig(t testing.TB, listen string) bus.Config {
	return bus.Config{
		URI:            "embedded",
		EmbeddedDir:    filepath.Join(t.TempDir(), "nats"),
		EmbeddedListen: listen,
	}
}

func startEmbedded(t testing.TB, cfg bus.Config) *busnats.Embedded {
	t.Helper()
	e, err := busnats.StartEmbedded(t.Context(), busnats.EmbeddedConfig{Dir: cfg.EmbeddedDir, Listen: cfg.EmbeddedListen})
	if err != nil {
		t.Fatalf("starting: %v", err)
	}
	return e
}

func TestEmbeddedFiles(t *testing.T) {
	cfg := embeddedConfig(t, "127.0.0.1:0")
	e := startEmbedded(t, cfg)
	first, err := os.ReadFile(filepath.Join(cfg.EmbeddedDir, "token"))
	if err != nil {
		t.Fatal(err)
	}
	if len(strings.TrimSpace(string(first))) < 32 {
		t.Errorf("token %q is short", first)
	}
	for name, want := range map[string]fs.FileMode{".": 0o700, "token": 0o600, "address": 0o600, "lock": 0o600} {
		fi, err := os.Stat(filepath.Join(cfg.EmbeddedDir, name))
		if err != nil {
			t.Errorf("%s: %v", name, err)
		} else if got := fi.Mode().Perm(); got != want {
			t.Errorf("mode of %s: %#o, want %#o", name, got, want)
		}
	}
	for _, opt := range []nats.Option{nats.Token("wrong"), nats.Name("no token")} {
		if nc, err := nats.Connect("nats://"+e.Addr(), opt); err == nil {
			nc.Close()
			t.Error("somebody without the token was let in")
		}
	}
	if _, err := busnats.StartEmbedded(t.Context(), busnats.EmbeddedConfig{Dir: cfg.EmbeddedDir, Listen: "127.0.0.1:0"}); !errors.Is(err, busnats.ErrLocked) {
		t.Errorf("starting a second one: %v, want ErrLocked", err)
	}
	if err := e.Close(); err != nil {
		t.Errorf("closing: %v", err)
	}
	if _, err := driver(t, cfg).Dial(t.Context()); err == nil || !strings.Contains(err.Error(), "no embedded broker runs in") {
		t.Errorf("dialling a broker that does not run: %v", err)
	}
	e = startEmbedded(t, cfg)
	defer e.Close()
	second, err := os.ReadFile(filepath.Join(cfg.EmbeddedDir, "token"))
	if err != nil || string(second) != string(first) {
		t.Errorf("the token has changed: %v", err)
	}
}

// TestTokenStaysHere checks that the token is not told to whoever listens at
// the address of a broker that has crashed.
func TestTokenStaysHere(t *testing.T) {
	cfg := embeddedConfig(t, testserver.FreeAddr(t))
	p := brokerProcess(t, cfg)
	dial(t, driver(t, cfg)).Close()
	p.Kill(t)
	stranger, err := net.Listen("tcp", p.Addr)
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()
	called := make(chan struct{})
	go func() {
		if c, err := stranger.Accept(); err == nil {
			c.Close()
			close(called)
		}
	}()
	if _, err := driver(t, cfg).Dial(t.Context()); err == nil || !strings.Contains(err.Error(), "no embedded broker runs in") {
		t.Errorf("dialling: %v", err)
	}
	select {
	case <-called:
		t.Error("a stranger was called")
	default:
	}
	if _, err := busnats.StartEmbedded(t.Context(), busnats.EmbeddedConfig{Dir: cfg.EmbeddedDir, Listen: cfg.EmbeddedListen}); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("starting beside the stranger: %v", err)
	}
	if _, err := os.Stat(filepath.Join(cfg.EmbeddedDir, "address")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the address of the dead broker is still there: %v", err)
	}
}

func TestEmbeddedRefusals(t *testing.T) {
	open := filepath.Join(t.TempDir(), "open")
	if err := os.Mkdir(open, 0o755); err != nil {
		t.Fatal(err)
	}
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for _, c := range []struct {
		name string
		cfg  busnats.EmbeddedConfig
		want []string
	}{
		{"directory open to others", busnats.EmbeddedConfig{Dir: open, Listen: "127.0.0.1:0"}, []string{"embedded_dir", open, "0700"}},
		{"port in use", busnats.EmbeddedConfig{Dir: t.TempDir() + "/d", Listen: taken.Addr().String()}, []string{"embedded_listen", taken.Addr().String(), "in use"}},
		{"no port", busnats.EmbeddedConfig{Dir: t.TempDir() + "/d", Listen: "localhost"}, []string{"embedded_listen", "localhost", "host:port"}},
		{"not an address of ours", busnats.EmbeddedConfig{Dir: t.TempDir() + "/d", Listen: "192.0.2.1:4222"}, []string{"embedded_listen", "192.0.2.1:4222"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			e, err := busnats.StartEmbedded(t.Context(), c.cfg)
			if err == nil {
				e.Close()
				t.Fatal("no error")
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%v: does not say %q", err, want)
				}
			}
			if said := busnats.CheckEmbedded(c.cfg.Dir, c.cfg.Listen); said == nil || !strings.HasSuffix(err.Error(), said.Error()) {
				t.Errorf("before it is started it is said: %v; then: %v", said, err)
			}
		})
	}
}

// TestOpener checks who runs the broker, and until when.
func TestOpener(t *testing.T) {
	ctx := t.Context()
	cfg := embeddedConfig(t, "127.0.0.1:0")
	cli := &busnats.Opener{ClientOnly: true}
	d, none, err := cli.Open(ctx, cfg)
	if err != nil {
		t.Fatalf("opening as a client: %v", err)
	}
	defer none.Close()
	if _, err := d.Dial(ctx); err == nil {
		t.Fatal("a client has found a broker, or started one")
	}

	agent := &busnats.Opener{}
	d1, first, err := agent.Open(ctx, cfg)
	if err != nil {
		t.Fatalf("opening: %v", err)
	}
	d2, second, err := agent.Open(ctx, cfg)
	if err != nil {
		t.Fatalf("opening for a second pool: %v", err)
	}
	other := cfg
	other.EmbeddedListen = "127.0.0.1:1"
	if _, _, err := agent.Open(ctx, other); err == nil || !strings.Contains(err.Error(), "embedded_listen") {
		t.Errorf("the same directory at another address: %v", err)
	}
	elsewhere, third, err := agent.Open(ctx, embeddedConfig(t, "127.0.0.1:0"))
	if err != nil {
		t.Fatalf("opening another directory: %v", err)
	}
	defer third.Close()
	neighbour := &busnats.Opener{} // as another process would have
	d4, fourth, err := neighbour.Open(ctx, cfg)
	if err != nil {
		t.Fatalf("opening where another process runs the broker: %v", err)
	}

	q := bus.Tube{Name: "q"}
	put := func(d bus.Driver) error {
		c, err := d.Dial(ctx)
		if err != nil {
			return err
		}
		defer c.Close()
		return c.Put(ctx, bus.Message{Tube: q, Body: []byte("x")})[0].Err
	}
	for i, d := range []bus.Driver{d1, d2, d, d4, elsewhere} {
		if err := put(d); err != nil {
			t.Errorf("driver %d: %v", i+1, err)
		}
	}
	c := dial(t, d1)
	if info, err := c.Inspect(ctx, q); err != nil || info.Ready != 4 || !info.Durable || info.Advice != "" {
		t.Errorf("Inspect: %+v, %v; want 4 messages and no advice", info, err)
	}
	for _, x := range []interface{ Close() error }{fourth, first, first} {
		if err := x.Close(); err != nil {
			t.Errorf("closing: %v", err)
		}
	}
	if err := put(d2); err != nil {
		t.Errorf("the broker ended before its last user: %v", err)
	}
	if err := second.Close(); err != nil {
		t.Errorf("closing: %v", err)
	}
	if err := put(d2); err == nil {
		t.Error("the broker goes on without a user")
	}
	if err := put(elsewhere); err != nil {
		t.Errorf("the other broker: %v", err)
	}
}

// TestEmbeddedStartIsBounded checks that a start whose ctx has ended leaves
// nothing locked.
func TestEmbeddedStartIsBounded(t *testing.T) {
	cfg := embeddedConfig(t, "127.0.0.1:0")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	e, err := busnats.StartEmbedded(ctx, busnats.EmbeddedConfig{Dir: cfg.EmbeddedDir, Listen: cfg.EmbeddedListen})
	if err == nil {
		e.Close() // it was faster than the select
	} else if !errors.Is(err, context.Canceled) {
		t.Errorf("starting with an ended context: %v", err)
	}
	testserver.Eventually(t, 10*time.Second, func() error {
		e, err := busnats.StartEmbedded(t.Context(), busnats.EmbeddedConfig{Dir: cfg.EmbeddedDir, Listen: cfg.EmbeddedListen})
		if err == nil {
			err = e.Close()
		}
		return err
	})
}
