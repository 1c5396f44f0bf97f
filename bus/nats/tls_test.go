package nats_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"

	"github.com/cbsd/cbsdmq/bus"
	"github.com/cbsd/cbsdmq/internal/testserver"
)

// inProcess runs the server that the embedded broker is made of, with a
// configuration file like testserver.NATS's.
func inProcess(t testing.TB, config ...string) string {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "nats.conf")
	text := fmt.Sprintf("host: 127.0.0.1\nport: -1\njetstream { store_dir: %q }\n%s\n", dir, strings.Join(config, "\n"))
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	opts, err := natsserver.ProcessConfigFile(file)
	if err != nil {
		t.Fatalf("configuring: %v", err)
	}
	opts.NoSigs, opts.NoLog = true, true
	s, err := natsserver.NewServer(opts)
	if err != nil {
		t.Fatalf("making a server: %v", err)
	}
	s.Start()
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	if !s.ReadyForConnections(10 * time.Second) {
		t.Fatal("the server does not get ready")
	}
	return s.Addr().String()
}

func TestLogin(t *testing.T) {
	t.Run("Installed", func(t *testing.T) {
		testLogin(t, func(t testing.TB, config ...string) string { return testserver.NATS(t, config...).Addr })
	})
	t.Run("Embedded", func(t *testing.T) { testLogin(t, inProcess) })
}

func testLogin(t *testing.T, start func(testing.TB, ...string) string) {
	soon := time.Now().Add(time.Hour)
	ca, stranger := testserver.NewAuthority(t, "our authority"), testserver.NewAuthority(t, "a stranger")
	pair := func(cert, key string) string { return fmt.Sprintf("cert_file: %q, key_file: %q", cert, key) }
	good := pair(ca.Host(t, "good", soon, "127.0.0.1", "localhost"))
	expired := pair(ca.Host(t, "expired", time.Now().Add(-time.Hour), "127.0.0.1"))
	elsewhere := pair(ca.Host(t, "elsewhere", soon, "broker.example", "192.0.2.7"))
	ourCert, ourKey := ca.Host(t, "client", soon)
	theirCert, theirKey := stranger.Host(t, "client", soon)

	const users = "authorization { user: alice, password: s3cret }"
	plain := start(t, users)
	token := start(t, "authorization { token: s3cret }")
	open := start(t)
	secure := start(t, "tls { "+good+" }", users)
	late := start(t, "tls { "+expired+" }")
	wrong := start(t, "tls { "+elsewhere+" }")
	mutual := start(t, fmt.Sprintf("tls { %s, ca_file: %q, verify: true }", good, ca.File))
	localhost := strings.Replace(secure, "127.0.0.1", "localhost", 1)

	for _, c := range []struct {
		name string
		cfg  bus.Config
		want []string // in the error, which is permanent; none = it works
	}{
		{"password", bus.Config{URI: plain, User: "alice", Password: "s3cret"}, nil},
		{"password in the address", bus.Config{URI: "nats://alice:s3cret@" + plain}, nil},
		{"wrong password", bus.Config{URI: plain, User: "alice", Password: "wr0ng"}, []string{plain, `refuses user "alice"`}},
		{"no login", bus.Config{URI: plain}, []string{plain, "asks who we are", "user and password"}},
		{"token", bus.Config{URI: token, Token: "s3cret"}, nil},
		{"token in the address", bus.Config{URI: "nats://s3cret@" + token}, nil},
		{"wrong token", bus.Config{URI: token, Token: "wr0ng"}, []string{token, "refuses the token"}},
		{"TLS", bus.Config{URI: secure, CA: ca.File, User: "alice", Password: "s3cret"}, nil},
		{"TLS by name", bus.Config{URI: "tls://" + localhost, CA: ca.File, User: "alice", Password: "s3cret"}, nil},
		{"TLS, wrong password", bus.Config{URI: "tls://" + secure, CA: ca.File, User: "alice", Password: "wr0ng"}, []string{`refuses user "alice"`}},
		{"unknown authority", bus.Config{URI: "tls://" + secure}, []string{secure, "authority", "key ca", `"our authority"`}},
		{"another authority", bus.Config{URI: secure, CA: stranger.File}, []string{"authority", "key ca"}},
		{"server wants TLS, authority unknown", bus.Config{URI: secure}, []string{"authority", "key ca"}},
		{"expired", bus.Config{URI: late, CA: ca.File}, []string{late, "valid from", "now is"}},
		{"wrong host", bus.Config{URI: wrong, CA: ca.File}, []string{"broker.example, 192.0.2.7", "not for 127.0.0.1"}},
		{"no TLS there", bus.Config{URI: open, TLS: true}, []string{open, "has no TLS"}},
		{"client certificate", bus.Config{URI: mutual, CA: ca.File, Cert: ourCert, Key: ourKey}, nil},
		{"no client certificate", bus.Config{URI: mutual, CA: ca.File}, []string{mutual, "keys cert and key"}},
		{"strange client certificate", bus.Config{URI: mutual, CA: ca.File, Cert: theirCert, Key: theirKey}, []string{"does not accept our certificate"}},
		{"list with one good", bus.Config{URI: plain + "," + token, Token: "s3cret"}, nil},
		{"list with none", bus.Config{URI: plain + "," + token, Token: "wr0ng"}, []string{plain, token}},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := driver(t, c.cfg)
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			conn, err := d.Dial(ctx)
			if err == nil {
				defer conn.Close()
				err = conn.Put(ctx, bus.Message{Tube: bus.Tube{Name: "q"}, Body: []byte("x")})[0].Err
			}
			if len(c.want) == 0 {
				if err != nil {
					t.Errorf("does not work: %v", err)
				}
				return
			}
			if _, ok := errors.AsType[*bus.Permanent](err); !ok {
				t.Fatalf("%v: want a *bus.Permanent", err)
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%v: does not say %q", err, want)
				}
			}
			if s := err.Error() + d.Addr(); strings.Contains(s, "s3cret") || strings.Contains(s, "wr0ng") {
				t.Errorf("a secret is told: %s", s)
			}
		})
	}

	t.Run("a list with one down is not permanent", func(t *testing.T) {
		down := testserver.FreeAddr(t)
		_, err := driver(t, bus.Config{URI: down + "," + plain, User: "alice", Password: "wr0ng"}).Dial(t.Context())
		if _, ok := errors.AsType[*bus.Permanent](err); ok || err == nil || !strings.Contains(err.Error(), down) {
			t.Errorf("%v: want an error that names both and is not permanent", err)
		}
	})
}

// TestNoJetStream checks that a server without JetStream is told from one that
// has no such stream.
func TestNoJetStream(t *testing.T) {
	addr := inProcess(t, "accounts { A { users: [{user: alice, password: s3cret}] } }")
	c := dial(t, driver(t, bus.Config{URI: addr, User: "alice", Password: "s3cret"}))
	err := c.Put(t.Context(), bus.Message{Tube: bus.Tube{Name: "q"}})[0].Err
	if err == nil || !strings.Contains(err.Error(), "JetStream") {
		t.Errorf("%v: want an error that names JetStream", err)
	}
}

// TestNotPermitted checks that what the server forbids is not waited for.
func TestNotPermitted(t *testing.T) {
	addr := inProcess(t, `authorization { users: [{user: alice, password: s3cret, permissions: {publish: "nothing", subscribe: "_INBOX.>"}}] }`)
	c := dial(t, driver(t, bus.Config{URI: addr, User: "alice", Password: "s3cret"}))
	begin := time.Now()
	err := c.Put(t.Context(), bus.Message{Tube: bus.Tube{Name: "q"}})[0].Err
	if err == nil || !strings.Contains(strings.ToLower(err.Error()), "permi") || time.Since(begin) > 3*time.Second {
		t.Errorf("%v after %v: want to be told soon that it is not permitted", err, time.Since(begin))
	}
}
