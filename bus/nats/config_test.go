package nats_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cbsd/cbsdmq/bus"
	busnats "github.com/cbsd/cbsdmq/bus/nats"
)

func TestAddresses(t *testing.T) {
	for _, c := range []struct{ uri, addr string }{
		{"broker", "broker:4222"},
		{"broker:4333", "broker:4333"},
		{"192.0.2.1:4333", "192.0.2.1:4333"},
		{"[2001:db8::3]", "[2001:db8::3]:4222"},
		{"[2001:db8::3]:4333", "[2001:db8::3]:4333"},
		{"nats://broker", "broker:4222"},
		{"tls://broker:4333/", "broker:4333"},
		{"nats://alice:s3cret@broker", "broker:4222"},
		{"a, tls://b:4333 ,[::1]", "a:4222,b:4333,[::1]:4222"},
	} {
		if got := driver(t, bus.Config{URI: c.uri}).Addr(); got != c.addr {
			t.Errorf("%s: address %s, want %s", c.uri, got, c.addr)
		}
	}
}

func TestBadConfig(t *testing.T) {
	for _, c := range []struct {
		name string
		cfg  bus.Config
		want string
	}{
		{"nothing", bus.Config{}, "missing"},
		{"empty in a list", bus.Config{URI: "a,,b"}, "missing"},
		{"scheme", bus.Config{URI: "http://a:4222"}, "http:// is not known"},
		{"websocket", bus.Config{URI: "wss://a"}, "wss:// is not known"},
		{"path", bus.Config{URI: "nats://a:4222/q"}, "nothing may follow the port"},
		{"query", bus.Config{URI: "nats://a?x=y"}, "nothing may follow the port"},
		{"port", bus.Config{URI: "a:x"}, "not an address"},
		{"no host", bus.Config{URI: ":4222"}, "the host is missing"},
		{"IPv6 without brackets", bus.Config{URI: "2001:db8::3"}, "[2001:db8::3]:4222"},
		{"secret in a bad address", bus.Config{URI: "nats://alice:s3cret@a:x"}, "not an address"},
		{"secret in a bad scheme", bus.Config{URI: "http://alice:s3cret@a"}, "http:// is not known"},
		{"two logins", bus.Config{URI: "a", User: "alice", Token: "s3cret"}, "user and token"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := busnats.New(c.cfg)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v: want an error that says %q", err, c.want)
			}
			if err != nil && strings.Contains(err.Error(), "s3cret") {
				t.Errorf("the error tells a secret: %v", err)
			}
		})
	}
}

// TestBadFiles checks the errors about files, which are read when dialling.
func TestBadFiles(t *testing.T) {
	dir := t.TempDir()
	empty := filepath.Join(dir, "empty.pem")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	missing := filepath.Join(dir, "missing")
	for _, c := range []struct {
		name string
		cfg  bus.Config
		want []string
	}{
		{"ca missing", bus.Config{CA: missing}, []string{"ca:", missing}},
		{"ca empty", bus.Config{CA: empty}, []string{"ca:", "no certificate in " + empty}},
		{"cert without key", bus.Config{Cert: empty}, []string{"cert and key"}},
		{"cert empty", bus.Config{Cert: empty, Key: empty}, []string{"cert and key"}},
		{"creds missing", bus.Config{Creds: missing}, []string{"creds:", missing}},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.cfg.URI = "127.0.0.1:1"
			_, err := driver(t, c.cfg).Dial(t.Context())
			if _, ok := errors.AsType[*bus.Permanent](err); !ok {
				t.Fatalf("%v: want a *bus.Permanent", err)
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%v: does not say %q", err, want)
				}
			}
		})
	}
}
