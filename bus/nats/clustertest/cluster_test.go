// Package clustertest tests bus/nats on a cluster. It is a package of its own
// since its tests wait a lot, for elections: others go on beside them.
package clustertest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/cbsd/cbsdmq/bus"
	busnats "github.com/cbsd/cbsdmq/bus/nats"
	"github.com/cbsd/cbsdmq/internal/testserver"
)

const library = "nats-io/nats.go"

// patience is for what servers agree on: they elect again where a vote is lost or
// late, and each time that takes up to nine seconds.
const patience = 2 * time.Minute

// program is cbsdmq, whose `broker --config` is a server of a cluster.
var program string

func TestMain(m *testing.M) { os.Exit(run(m)) }

// run builds the program for the tests.
func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "cbsdmq-cluster-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	program = filepath.Join(dir, "cbsdmq")
	if out, err := exec.Command("go", "build", "-o", program, "github.com/cbsd/cbsdmq/cmd/cbsdmq").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "building cbsdmq: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// A trio is a cluster of three servers.
type trio []*testserver.Process

// ours is a cluster of the broker that comes with cbsdmq.
func ours(t testing.TB, keys map[string]any) trio {
	t.Helper()
	return testserver.CbsdmqCluster(t, program, keys)
}

// each runs a test on both kinds of cluster, at one time.
func each(t *testing.T, test func(*testing.T, trio)) {
	for name, start := range map[string]func(t *testing.T) trio{
		"Ours":      func(t *testing.T) trio { return ours(t, nil) },
		"Installed": func(t *testing.T) trio { return testserver.NATSCluster(t) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := start(t)
			c.works(t)
			test(t, c)
		})
	}
}

func (c trio) addrs() string { return testserver.Addrs(c) }

func driver(t testing.TB, cfg bus.Config) *busnats.Driver {
	t.Helper()
	d, err := busnats.New(cfg)
	if err != nil {
		t.Fatalf("opening the driver: %v", err)
	}
	return d
}

func dial(t testing.TB, d bus.Driver) bus.Conn {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c, err := d.Dial(ctx)
	if err != nil {
		t.Fatalf("dialling: %v", err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// works waits until something can be put.
func (c trio) works(t testing.TB) {
	t.Helper()
	b := bus.New(driver(t, bus.Config{URI: c.addrs()}), bus.Options{MaxWait: time.Second})
	defer b.Close()
	testserver.Eventually(t, patience, func() error {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		return b.Put(ctx, bus.Message{Tube: bus.Tube{Name: "works"}, Body: []byte("x")})[0].Err
	})
}

// js is a JetStream of the cluster, for the test itself, until it is ended.
func (c trio) js(t testing.TB) (js jetstream.JetStream, end func()) {
	t.Helper()
	nc, err := nats.Connect("nats://" + strings.ReplaceAll(c.addrs(), ",", ",nats://"))
	if err != nil {
		t.Fatalf("connecting: %v", err)
	}
	if js, err = jetstream.New(nc); err != nil {
		t.Fatal(err)
	}
	return js, nc.Close
}

// info is what the leader of a stream says about it.
func info(t testing.TB, js jetstream.JetStream, stream string) (si *jetstream.StreamInfo) {
	t.Helper()
	testserver.Eventually(t, patience, func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		s, err := js.Stream(ctx, stream)
		if err != nil {
			return err
		}
		if si = s.CachedInfo(); si.Cluster == nil || si.Cluster.Leader == "" {
			return errors.New("no leader")
		}
		return nil
	})
	return si
}

// leader is the server that leads a stream.
func (c trio) leader(t testing.TB, js jetstream.JetStream, stream string) *testserver.Process {
	t.Helper()
	return c.named(t, info(t, js, stream).Cluster.Leader)
}

func (c trio) named(t testing.TB, name string) *testserver.Process {
	t.Helper()
	for i, p := range c {
		if name == fmt.Sprintf("server%d", i+1) {
			return p
		}
	}
	t.Fatalf("there is no server %q", name)
	return nil
}

// silent waits until a server that was told to stop has: the signal reaches its
// threads one after the other.
func silent(t testing.TB, addr string) {
	t.Helper()
	testserver.Eventually(t, 10*time.Second, func() error {
		c, err := net.DialTimeout("tcp", addr, time.Second)
		if err != nil {
			return nil
		}
		defer c.Close()
		c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		if n, _ := c.Read(make([]byte, 1)); n > 0 {
			return errors.New("the server still greets")
		}
		return nil
	})
}
