package nats_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"

	"github.com/cbsd/cbsdmq/bus"
	"github.com/cbsd/cbsdmq/bus/bustest"
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

// The server that the embedded broker is made of says the same as the installed
// one, in its own words.
func TestLogin(t *testing.T) { logins(t, bustest.Logins(t, open), inProcess) }

// installed starts the nats-server that is installed.
func installed(t testing.TB, config ...string) string { return testserver.NATS(t, config...).Addr }

func logins(t *testing.T, login bustest.Login, start func(testing.TB, ...string) string) {
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
	clear := start(t)
	secure := start(t, "tls { "+good+" }", users)
	late := start(t, "tls { "+expired+" }")
	wrong := start(t, "tls { "+elsewhere+" }")
	mutual := start(t, fmt.Sprintf("tls { %s, ca_file: %q, verify: true }", good, ca.File))
	localhost := strings.Replace(secure, "127.0.0.1", "localhost", 1)

	login("password", bus.Config{URI: plain, User: "alice", Password: "s3cret"})
	login("password in the address", bus.Config{URI: "nats://alice:s3cret@" + plain})
	login("wrong password", bus.Config{URI: plain, User: "alice", Password: "wr0ng"}, plain, `refuses user "alice"`)
	login("no login", bus.Config{URI: plain}, plain, "asks who we are", "user and password")
	login("token", bus.Config{URI: token, Token: "s3cret"})
	login("token in the address", bus.Config{URI: "nats://s3cret@" + token})
	login("wrong token", bus.Config{URI: token, Token: "wr0ng"}, token, "refuses the token")
	login("TLS", bus.Config{URI: secure, CA: ca.File, User: "alice", Password: "s3cret"})
	login("TLS by name", bus.Config{URI: "tls://" + localhost, CA: ca.File, User: "alice", Password: "s3cret"})
	login("TLS, wrong password", bus.Config{URI: "tls://" + secure, CA: ca.File, User: "alice", Password: "wr0ng"}, `refuses user "alice"`)
	login("unknown authority", bus.Config{URI: "tls://" + secure}, secure, "authority", "key ca", `"our authority"`)
	login("another authority", bus.Config{URI: secure, CA: stranger.File}, "authority", "key ca")
	login("server wants TLS, authority unknown", bus.Config{URI: secure}, "authority", "key ca")
	login("expired", bus.Config{URI: late, CA: ca.File}, late, "valid from", "now is")
	login("wrong host", bus.Config{URI: wrong, CA: ca.File}, "broker.example, 192.0.2.7", "not for 127.0.0.1")
	login("no TLS there", bus.Config{URI: clear, TLS: true}, clear, "has no TLS")
	login("client certificate", bus.Config{URI: mutual, CA: ca.File, Cert: ourCert, Key: ourKey})
	login("no client certificate", bus.Config{URI: mutual, CA: ca.File}, mutual, "keys cert and key")
	login("strange client certificate", bus.Config{URI: mutual, CA: ca.File, Cert: theirCert, Key: theirKey}, "does not accept our certificate")
	login("list with one good", bus.Config{URI: plain + "," + token, Token: "s3cret"})
	login("list with none", bus.Config{URI: plain + "," + token, Token: "wr0ng"}, plain, token)
	credentials(t, login, start)
	bustest.OneDown(t, open, bus.Config{URI: plain, User: "alice", Password: bustest.WrongSecret})
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
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	bustest.Permanent(t, c.Put(ctx, bus.Message{Tube: bus.Tube{Name: "q"}})[0].Err, "does not permit")
}
