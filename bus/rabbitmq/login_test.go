package rabbitmq

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/cbsd/cbsdmq/bus"
	"github.com/cbsd/cbsdmq/internal/testserver"
)

// What trying again does not mend is said at once, in plain words.
func TestLogin(t *testing.T) {
	soon := time.Now().Add(time.Hour)
	ca, stranger := testserver.NewAuthority(t, "our authority"), testserver.NewAuthority(t, "a stranger")
	cert, key := ca.Host(t, "good", soon, "127.0.0.1")
	ourCert, ourKey := ca.Host(t, "client", soon)
	secure, mutual := testserver.FreeAddr(t), testserver.FreeAddr(t)
	open := testserver.RabbitMQ(t,
		"default_user = alice", "default_pass = s3cret",
		"listeners.ssl.default = "+secure,
		"ssl_options.cacertfile = "+ca.File, "ssl_options.certfile = "+cert, "ssl_options.keyfile = "+key,
		"ssl_options.verify = verify_none", "ssl_options.fail_if_no_peer_cert = false",
	).Addr
	testserver.RabbitMQ(t,
		"default_user = alice", "default_pass = s3cret",
		"listeners.ssl.default = "+mutual,
		"ssl_options.cacertfile = "+ca.File, "ssl_options.certfile = "+cert, "ssl_options.keyfile = "+key,
		"ssl_options.verify = verify_peer", "ssl_options.fail_if_no_peer_cert = true",
	)
	for _, c := range []struct {
		name string
		cfg  bus.Config
		want []string // in the error, which is permanent; none = it works
	}{
		{"password", bus.Config{URI: open, User: "alice", Password: "s3cret"}, nil},
		{"password in the address", bus.Config{URI: "amqp://alice:s3cret@" + open}, nil},
		{"wrong password", bus.Config{URI: open, User: "alice", Password: "wr0ng"}, []string{open, `refuses user "alice"`}},
		{"no login", bus.Config{URI: open}, []string{`refuses user "guest"`, "own host only"}},
		{"no such vhost", bus.Config{URI: "amqp://" + open + "/nosuch", User: "alice", Password: "s3cret"}, []string{open, `vhost "nosuch"`}},
		{"TLS", bus.Config{URI: "amqps://" + secure, CA: ca.File, User: "alice", Password: "s3cret"}, nil},
		{"TLS, wrong password", bus.Config{URI: "amqps://" + secure, CA: ca.File, User: "alice", Password: "wr0ng"}, []string{`refuses user "alice"`}},
		{"unknown authority", bus.Config{URI: "amqps://" + secure, User: "alice", Password: "s3cret"}, []string{secure, "key ca", `"our authority"`}},
		{"another authority", bus.Config{URI: secure, CA: stranger.File}, []string{"key ca"}},
		{"no TLS there", bus.Config{URI: open, TLS: true}, []string{open, "does not speak TLS"}},
		{"client certificate", bus.Config{URI: mutual, CA: ca.File, Cert: ourCert, Key: ourKey, User: "alice", Password: "s3cret"}, nil},
		{"no such file", bus.Config{URI: secure, CA: "/nonexistent/ca.pem"}, []string{"ca:", "/nonexistent/ca.pem"}},
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
		_, err := driver(t, bus.Config{URI: down + "," + open, User: "alice", Password: "wr0ng"}).Dial(t.Context())
		if _, ok := errors.AsType[*bus.Permanent](err); ok || err == nil || !strings.Contains(err.Error(), down) {
			t.Errorf("%v: want an error that names both and is not permanent", err)
		}
	})
}
