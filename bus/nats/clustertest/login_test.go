package clustertest

import (
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cbsd/cbsdmq/bus"
	"github.com/cbsd/cbsdmq/internal/testserver"
)

// TestLogin runs clusters that speak TLS with their clients and with each other,
// and let in who has a password, a certificate, or an account of theirs.
func TestLogin(t *testing.T) {
	ca, stranger := testserver.NewAuthority(t, "our authority"), testserver.NewAuthority(t, "a stranger")
	soon := time.Now().Add(time.Hour)
	cert, key := ca.Host(t, "server", soon, "127.0.0.1")
	ourCert, ourKey := ca.Host(t, "client", soon)
	theirCert, theirKey := stranger.Host(t, "client", soon)
	accounts := filepath.Join(t.TempDir(), "accounts.conf")
	if err := os.WriteFile(accounts, []byte(`accounts { POOLS { jetstream: enabled, users: [{user: alice, password: s3cret}] }, OTHERS { users: [{user: bob, password: s3cret}] } }`), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, k := range []struct {
		name   string
		keys   map[string]any
		routes map[string]any
		good   bus.Config
		bad    map[string]bus.Config // by what the error says
	}{
		{
			"passwords, TLS",
			map[string]any{"users": []map[string]any{{"user": "alice", "password": "s3cret"}}, "tls": map[string]any{"cert": cert, "key": key}},
			map[string]any{"password": "route s3cret", "cert": cert, "key": key, "ca": ca.File},
			bus.Config{TLS: true, CA: ca.File, User: "alice", Password: "s3cret"},
			map[string]bus.Config{
				`refuses user "alice"`: {TLS: true, CA: ca.File, User: "alice", Password: "wr0ng"},
				"authority":            {TLS: true, CA: stranger.File, User: "alice", Password: "s3cret"},
				"asks who we are":      {TLS: true, CA: ca.File},
			},
		},
		{
			"certificates",
			map[string]any{"tls": map[string]any{"cert": cert, "key": key, "ca": ca.File}},
			map[string]any{"cert": cert, "key": key, "ca": ca.File},
			bus.Config{CA: ca.File, Cert: ourCert, Key: ourKey},
			map[string]bus.Config{
				"does not accept our certificate": {CA: ca.File, Cert: theirCert, Key: theirKey},
				"keys cert and key":               {CA: ca.File},
			},
		},
		{
			"accounts",
			map[string]any{"include": accounts},
			map[string]any{"password": "route s3cret"},
			bus.Config{User: "alice", Password: "s3cret"},
			map[string]bus.Config{
				"refuses user": {User: "alice", Password: "wr0ng"},
				"JetStream":    {User: "bob", Password: "s3cret"},
			},
		},
	} {
		t.Run(k.name, func(t *testing.T) {
			t.Parallel()
			c := oursWith(t, k.keys, k.routes)
			try := func(cfg bus.Config, addr string) error {
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				defer cancel()
				cfg.URI = addr
				conn, err := driver(t, cfg).Dial(ctx)
				if err != nil {
					return err
				}
				defer conn.Close()
				return conn.Put(ctx, bus.Message{Tube: bus.Tube{Name: "q"}, Body: []byte("x")})[0].Err
			}
			if err := try(k.good, c.addrs()); err != nil {
				t.Fatalf("does not work: %v", err)
			}
			for _, p := range c { // whichever it is, the others take part
				if err := try(k.good, p.Addr); err != nil {
					t.Errorf("by %s alone: %v", p.Addr, err)
				}
			}
			for want, cfg := range k.bad {
				begin := time.Now()
				err := try(cfg, c.addrs())
				if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "s3cret") || time.Since(begin) > patience/4 {
					t.Errorf("%v after %v: want an error that says %q, at once", err, time.Since(begin), want)
				}
			}
		})
	}
}

// TestStranger checks that a server without the password does not get into a
// cluster.
func TestStranger(t *testing.T) {
	t.Parallel()
	c := oursWith(t, nil, map[string]any{"password": "s3cret"})
	c.works(t)
	config, err := os.ReadFile(c[2].Args()[2])
	if err != nil {
		t.Fatal(err)
	}
	c[2].Kill(t)
	if err := os.WriteFile(c[2].Args()[2], []byte(strings.Replace(string(config), "s3cret", "guessed", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	c[2].Start(t)
	conn := dial(t, driver(t, bus.Config{URI: c[2].Addr}))
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	if err := conn.Put(ctx, bus.Message{Tube: bus.Tube{Name: "works"}})[0].Err; !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("put by a server that has the wrong password: %v", err)
	}
	c[:2].works(t)
}

func oursWith(t testing.TB, keys, routes map[string]any) trio {
	t.Helper()
	all := maps.Clone(keys)
	if all == nil {
		all = map[string]any{}
	}
	all["cluster"] = routes
	return ours(t, all)
}
