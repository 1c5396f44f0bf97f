package activemq

import (
	"context"
	"testing"
	"time"

	"github.com/cbsd/cbsdmq/bus"
	"github.com/cbsd/cbsdmq/bus/bustest"
	"github.com/cbsd/cbsdmq/internal/testserver"
)

const users = `<simpleAuthenticationPlugin anonymousAccessAllowed="false"><users>
 <authenticationUser username="alice" password="s3cret" groups="cbsd"/>
</users></simpleAuthenticationPlugin>`

// logins starts servers that let in alice, by password, and some with TLS.
func logins(t *testing.T, login bustest.Login) {
	soon := time.Now().Add(time.Hour)
	ca, stranger := testserver.NewAuthority(t, "our authority"), testserver.NewAuthority(t, "a stranger")
	cert, key := ca.Host(t, "good", soon, "127.0.0.1")
	otherCert, otherKey := ca.Host(t, "other", soon, "mq.example.org")
	ourCert, ourKey := ca.Host(t, "client", soon)
	strangeCert, strangeKey := stranger.Host(t, "client", soon)
	plain := testserver.ActiveMQ(t, testserver.ActiveMQPlugin(users)).Addr
	secure := testserver.ActiveMQ(t, append(testserver.ActiveMQTLS(t, ca, cert, key, false), testserver.ActiveMQPlugin(users))...).Addr
	other := testserver.ActiveMQ(t, testserver.ActiveMQTLS(t, ca, otherCert, otherKey, false)...).Addr
	mutual := testserver.ActiveMQ(t, testserver.ActiveMQTLS(t, ca, cert, key, true)...).Addr
	login("password", bus.Config{URI: plain, User: "alice", Password: "s3cret"})
	login("password in the address", bus.Config{URI: "amqp://alice:s3cret@" + plain})
	login("wrong password", bus.Config{URI: plain, User: "alice", Password: "wr0ng"}, plain, `refuses user "alice"`, "keys are user and password")
	login("no login", bus.Config{URI: plain}, plain, "without a name", "keys are user and password")
	login("TLS", bus.Config{URI: "amqps://" + secure, CA: ca.File, User: "alice", Password: "s3cret"})
	login("TLS, wrong password", bus.Config{URI: "amqps://" + secure, CA: ca.File, User: "alice", Password: "wr0ng"}, `refuses user "alice"`)
	login("unknown authority", bus.Config{URI: "amqps://" + secure, User: "alice", Password: "s3cret"}, secure, "key ca", `"our authority"`)
	login("another authority", bus.Config{URI: secure, CA: stranger.File}, "key ca")
	login("another host", bus.Config{URI: other, CA: ca.File}, other, "for mq.example.org, not for 127.0.0.1")
	login("no TLS there", bus.Config{URI: plain, TLS: true}, plain, "does not speak TLS")
	login("client certificate", bus.Config{URI: mutual, CA: ca.File, Cert: ourCert, Key: ourKey})
	login("no client certificate", bus.Config{URI: mutual, CA: ca.File}, mutual, "keys cert and key")
	login("a stranger's certificate", bus.Config{URI: mutual, CA: ca.File, Cert: strangeCert, Key: strangeKey}, mutual, "key cert")
	login("no such file", bus.Config{URI: secure, CA: "/nonexistent/ca.pem"}, "ca:", "/nonexistent/ca.pem")
	bustest.OneDown(t, driver, bus.Config{URI: plain, User: "alice", Password: "wr0ng"})
	t.Run("the one that stands in", func(t *testing.T) {
		down := testserver.FreeAddr(t)
		c, err := driver(t, bus.Config{URI: down + "," + plain, User: "alice", Password: "s3cret"}).Dial(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
	})
}

// A user who may not use the pool's queue is told so.
func TestRights(t *testing.T) {
	rights := `<authorizationPlugin><map><authorizationMap><authorizationEntries>
 <authorizationEntry queue="cbsd_&gt;" read="cbsd" write="cbsd" admin="cbsd"/>
 <authorizationEntry queue="cbsd_pool1" read="cbsd" write="cbsd" admin="cbsd"/>
 <authorizationEntry topic="ActiveMQ.Advisory.&gt;" read="cbsd" write="cbsd" admin="cbsd"/>
</authorizationEntries></authorizationMap></map></authorizationPlugin>`
	p := testserver.ActiveMQ(t, testserver.ActiveMQPlugin(users), testserver.ActiveMQPlugin(rights))
	c, err := driver(t, bus.Config{URI: p.Addr, User: "alice", Password: "s3cret"}).Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	ours, theirs := bus.Tube{Name: "cbsd_pool1"}, bus.Tube{Name: "payroll"}
	r := c.Put(ctx, bus.Message{Tube: ours, Body: []byte("x")}, bus.Message{Tube: theirs, Body: []byte("y")}, bus.Message{Tube: ours, Body: []byte("z")})
	if r[0].Err != nil || r[2].Err != nil {
		t.Errorf("Put: %v; want only the second to be refused", r)
	}
	bustest.Permanent(t, r[1].Err, `user "alice" may not`)
	_, err = c.Consume(ctx, bus.ConsumeOptions{Tubes: []bus.Tube{theirs}})
	bustest.Permanent(t, err, `user "alice" may not`, "payroll")
	// The statistics are not for this user: what they would tell is unknown.
	info, err := c.Inspect(ctx, ours)
	if err != nil || info.Ready != -1 || info.Consumers != -1 {
		t.Errorf("Inspect: %+v, %v; want unknown counts", info, err)
	}
	k, err := c.Consume(ctx, bus.ConsumeOptions{Tubes: []bus.Tube{ours}})
	if err != nil {
		t.Fatal(err)
	}
	if ds, err := k.Receive(ctx, 2); err != nil || len(ds) == 0 {
		t.Errorf("Receive: %v, %v", ds, err)
	}
}
