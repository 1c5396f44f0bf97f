package zeromq

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"testing"

	"github.com/cbsd/cbsdmq/bus"
	"github.com/cbsd/cbsdmq/bus/bustest"
	"github.com/cbsd/cbsdmq/internal/testserver"
)

// TestMain lets the program play an agent, which a test can kill.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == "listen" {
		if err := play(os.Args[2]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// play listens until the process is ended.
func play(addr string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	var o Opener
	d, closer, err := o.Open(bus.Config{URI: addr})
	if err != nil {
		return err
	}
	defer closer.Close()
	c, err := d.Dial(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	<-ctx.Done()
	return nil
}

func agent(t *testing.T) *testserver.Process {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	addr := testserver.FreeAddr(t)
	return testserver.StartProcess(t, addr, exe, "listen", addr)
}

func TestBus(t *testing.T) {
	bustest.Run(t, func(t *testing.T) bustest.Server {
		p := agent(t)
		return bustest.Server{
			Name:   "zeromq",
			Driver: driver(t, bus.Config{URI: p.Addr}),
			Kill:   p.Kill,
			Start:  p.Start,
			Stop:   p.Stop,
			Cont:   p.Cont,
			Addr:   p.Addr,
			At:     func(addr string) bus.Driver { return driver(t, bus.Config{URI: addr}) },
			Tubes:  func(t testing.TB) int { return tubes(t, p.Addr) },
			Logins: logins,
			Open:   func(t testing.TB, cfg bus.Config) bus.Driver { return driver(t, cfg) },
		}
	})
}

func driver(t testing.TB, cfg bus.Config) *Driver {
	t.Helper()
	d, err := New(cfg)
	if err != nil {
		t.Fatalf("opening the driver: %v", err)
	}
	return d
}

func dial(t testing.TB, d bus.Driver) *conn {
	t.Helper()
	c, err := d.Dial(t.Context())
	if err != nil {
		t.Fatalf("dialling: %v", err)
	}
	t.Cleanup(func() { c.Close() })
	return c.(*conn)
}

// tubes is how many tubes the agent has.
func tubes(t testing.TB, addr string) int {
	t.Helper()
	c := dial(t, driver(t, bus.Config{URI: addr}))
	defer c.Close()
	s, err := c.stat(t.Context(), "x")
	if err != nil {
		t.Fatal(err)
	}
	return s.tubes
}
