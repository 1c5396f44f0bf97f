package rabbitmq

import (
	"context"
	"testing"
	"time"

	"github.com/cbsd/cbsdmq/bus"
	"github.com/cbsd/cbsdmq/bus/bustest"
	"github.com/cbsd/cbsdmq/internal/testserver"
)

// logins starts a node that lets in alice, by password, and one that wants a
// certificate too.
func logins(t *testing.T, login bustest.Login) {
	soon := time.Now().Add(time.Hour)
	ca, stranger := testserver.NewAuthority(t, "our authority"), testserver.NewAuthority(t, "a stranger")
	cert, key := ca.Host(t, "good", soon, "127.0.0.1")
	ourCert, ourKey := ca.Host(t, "client", soon)
	secure, mutual := testserver.FreeAddr(t), testserver.FreeAddr(t)
	plain := testserver.RabbitMQ(t,
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
	login("password", bus.Config{URI: plain, User: "alice", Password: "s3cret"})
	login("password in the address", bus.Config{URI: "amqp://alice:s3cret@" + plain})
	login("wrong password", bus.Config{URI: plain, User: "alice", Password: "wr0ng"}, plain, `refuses user "alice"`)
	login("no login", bus.Config{URI: plain}, `refuses user "guest"`, "own host only")
	login("no such vhost", bus.Config{URI: "amqp://" + plain + "/nosuch", User: "alice", Password: "s3cret"}, plain, `vhost "nosuch"`)
	login("TLS", bus.Config{URI: "amqps://" + secure, CA: ca.File, User: "alice", Password: "s3cret"})
	login("TLS, wrong password", bus.Config{URI: "amqps://" + secure, CA: ca.File, User: "alice", Password: "wr0ng"}, `refuses user "alice"`)
	login("unknown authority", bus.Config{URI: "amqps://" + secure, User: "alice", Password: "s3cret"}, secure, "key ca", `"our authority"`)
	login("another authority", bus.Config{URI: secure, CA: stranger.File}, "key ca")
	login("no TLS there", bus.Config{URI: plain, TLS: true}, plain, "does not speak TLS")
	login("no TLS here", bus.Config{URI: secure, User: "alice", Password: "s3cret"}, secure, "it speaks TLS")
	login("client certificate", bus.Config{URI: mutual, CA: ca.File, Cert: ourCert, Key: ourKey, User: "alice", Password: "s3cret"})
	login("no such file", bus.Config{URI: secure, CA: "/nonexistent/ca.pem"}, "ca:", "/nonexistent/ca.pem")
	bustest.OneDown(t, driver, bus.Config{URI: plain, User: "alice", Password: "wr0ng"})
}

// A user who may not do what we need is told so, whatever it is.
func TestRights(t *testing.T) {
	p := testserver.RabbitMQ(t, "default_user = alice", "default_pass = s3cret")
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute) // rabbitmqctl is slow
	defer cancel()
	open := func(user string) bus.Conn {
		t.Helper()
		c, err := driver(t, bus.Config{URI: p.Addr, User: user, Password: "s3cret"}).Dial(ctx)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	queue, mailbox := bus.Tube{Name: "cbsd_pool1"}, bus.Tube{Name: "cbsd_pool1_result_id1", Kind: bus.Mailbox}
	k, err := open("alice").Consume(ctx, bus.ConsumeOptions{Tubes: []bus.Tube{queue}}) // makes it
	if err != nil {
		t.Fatal(err)
	}
	k.Close()
	for user, rights := range map[string][3]string{"reader": {".*", "^$", ".*"}, "writer": {".*", ".*", "^$"}, "guest2": {"^$", ".*", ".*"}} {
		testserver.RabbitMQCtl(t, p, "add_user", user, "s3cret")
		testserver.RabbitMQCtl(t, p, "set_permissions", user, rights[0], rights[1], rights[2])
	}
	for range 5 { // whichever word of the broker is heard first
		r := open("reader").Put(ctx, bus.Message{Tube: queue, Body: []byte("x")})
		bustest.Permanent(t, r[0].Err, `user "reader" may not`, "amq.default")
		for _, tube := range []bus.Tube{queue, mailbox} {
			_, err = open("writer").Consume(ctx, bus.ConsumeOptions{Tubes: []bus.Tube{tube}})
			bustest.Permanent(t, err, `user "writer" may not`, tube.Name)
		}
		_, err = open("guest2").Consume(ctx, bus.ConsumeOptions{Tubes: []bus.Tube{mailbox}})
		bustest.Permanent(t, err, `user "guest2" may not`, mailbox.Name)
		r = open("guest2").Put(ctx, bus.Message{Tube: bus.Tube{Name: "cbsd_other"}, Body: []byte("x")})
		bustest.Permanent(t, r[0].Err, `user "guest2" may not`, "cbsd_other")
	}
	// Nor is anybody who may do no more than is needed kept from it.
	testserver.RabbitMQCtl(t, p, "add_user", "exact", "s3cret")
	testserver.RabbitMQCtl(t, p, "set_permissions", "exact", "^cbsd_exact(_result_id1)?$", "^(amq.default|cbsd_exact.*)$", "^cbsd_exact(_result_id1)?$")
	c := open("exact")
	for _, tube := range []bus.Tube{{Name: "cbsd_exact"}, {Name: "cbsd_exact_result_id1", Kind: bus.Mailbox}} {
		k, err := c.Consume(ctx, bus.ConsumeOptions{Tubes: []bus.Tube{tube}})
		if err != nil {
			t.Fatal(err)
		}
		for range 5 {
			if r := c.Put(ctx, bus.Message{Tube: tube, Body: []byte("x"), TTL: time.Hour})[0]; r.Err != nil {
				t.Fatal(r.Err)
			}
			ds, err := k.Receive(ctx, 1)
			if err == nil {
				err = k.Ack(ctx, ds...)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
}
