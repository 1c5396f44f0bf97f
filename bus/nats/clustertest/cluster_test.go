// Package clustertest tests bus/nats on a cluster. It is a package of its own
// since its tests wait a lot, for elections: others go on beside them.
package clustertest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/cbsd/cbsdmq/bus"
	busnats "github.com/cbsd/cbsdmq/bus/nats"
	"github.com/cbsd/cbsdmq/config"
	"github.com/cbsd/cbsdmq/internal/testserver"
)

const library = "nats-io/nats.go"

// TestMain is a server of a cluster if it is called as `cbsdmq broker --config`
// is.
func TestMain(m *testing.M) {
	if len(os.Args) == 4 && os.Args[1] == "broker" && os.Args[2] == "--config" {
		if err := serve(os.Args[3]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func serve(file string) error {
	b, err := config.LoadBroker(file)
	if err != nil {
		return err
	}
	ctx := context.Background()
	users := make(map[string]string)
	for _, u := range b.Users {
		users[u.User] = u.Password
	}
	m, err := busnats.StartMember(ctx, busnats.ClusterConfig{
		Name: b.Name, Listen: b.Listen, Dir: b.Dir,
		Token: b.Token, Users: users, TLS: busnats.ServerTLS(b.TLS), Include: b.Include,
		Cluster: b.Cluster.Name, Routes: b.Cluster.Routes, RouteAt: b.Cluster.Listen, Password: b.Cluster.Password,
		RouteTLS: busnats.ServerTLS{Cert: b.Cluster.Cert, Key: b.Cluster.Key, CA: b.Cluster.CA},
		Log:      slog.New(slog.NewTextHandler(os.Stderr, nil)),
	})
	if err != nil {
		return err
	}
	m.Watch(ctx, func() {})
	return nil
}

// A trio is a cluster of three servers.
type trio []*testserver.Process

// ours is a cluster of the broker that comes with cbsdmq.
func ours(t testing.TB, keys map[string]any) trio {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return testserver.CbsdmqCluster(t, self, keys)
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

func (c trio) addrs() string {
	var all []string
	for _, p := range c {
		all = append(all, p.Addr)
	}
	return strings.Join(all, ",")
}

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
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
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
	conn := dial(t, driver(t, bus.Config{URI: c.addrs()}))
	defer conn.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := conn.Put(ctx, bus.Message{Tube: bus.Tube{Name: "works"}, Body: []byte("x")})[0].Err; err != nil {
		t.Fatalf("the cluster does not work: %v", err)
	}
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
	testserver.Eventually(t, 20*time.Second, func() error {
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
