package rabbitmq

import (
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
	login("client certificate", bus.Config{URI: mutual, CA: ca.File, Cert: ourCert, Key: ourKey, User: "alice", Password: "s3cret"})
	login("no such file", bus.Config{URI: secure, CA: "/nonexistent/ca.pem"}, "ca:", "/nonexistent/ca.pem")
	bustest.OneDown(t, driver, bus.Config{URI: plain, User: "alice", Password: "wr0ng"})
}
