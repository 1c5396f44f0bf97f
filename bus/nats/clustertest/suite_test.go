package clustertest

import (
	"context"
	"testing"
	"time"

	"github.com/cbsd/cbsdmq/bus"
	"github.com/cbsd/cbsdmq/bus/bustest"
	"github.com/cbsd/cbsdmq/internal/testserver"
)

// TestSuite runs the suite against a cluster, all servers of which are killed,
// started and frozen at once: what one of them does has tests of its own.
func TestSuite(t *testing.T) {
	c := ours(t, nil) // for all its tests: they use tubes of their own
	c.works(t)
	bustest.Run(t, func(t *testing.T) bustest.Server { return c.server(t) })
}

func (c trio) server(t *testing.T) bustest.Server {
	all := func(do func(*testserver.Process)) {
		for _, p := range c {
			do(p)
		}
	}
	d := driver(t, bus.Config{URI: c.addrs()})
	dial(t, d).Close() // Caps says what the server can do once it has been dialled
	return bustest.Server{
		Name:    "nats-cluster",
		Driver:  d,
		Kill:    func(t testing.TB) { testserver.KillAll(t, c) },
		Start:   func(t testing.TB) { all(func(p *testserver.Process) { p.Start(t) }); c.works(t) },
		Stop:    func(t testing.TB) { all(func(p *testserver.Process) { p.Stop(t); silent(t, p.Addr) }) },
		Cont:    func(t testing.TB) { all(func(p *testserver.Process) { p.Cont(t) }) },
		Addr:    c[0].Addr,
		At:      func(addr string) bus.Driver { return driver(t, bus.Config{URI: "nats://" + addr}) },
		Tubes:   func(t testing.TB) int { return assets(t, c) },
		Logins:  logins,
		Open:    func(t testing.TB, cfg bus.Config) bus.Driver { return driver(t, cfg) },
		Library: library,
		// Each takes the servers some 50 ms, to agree on who leads it.
		Mailboxes: 100,
	}
}

// logins starts clusters that let in who has a password or a certificate.
func logins(t *testing.T, login bustest.Login) {
	ca, soon := testserver.NewAuthority(t, "our authority"), time.Now().Add(time.Hour)
	cert, key := ca.Host(t, "server", soon, "127.0.0.1")
	ourCert, ourKey := ca.Host(t, "client", soon)
	server := map[string]any{"cert": cert, "key": key, "ca": ca.File}
	at := oursWith(t, map[string]any{
		"users": []map[string]any{{"user": "alice", "password": bustest.Secret}}, "tls": map[string]any{"cert": cert, "key": key},
	}, server).addrs()
	login("password", bus.Config{URI: at, TLS: true, CA: ca.File, User: "alice", Password: bustest.Secret})
	login("wrong password", bus.Config{URI: at, TLS: true, CA: ca.File, User: "alice", Password: bustest.WrongSecret}, `refuses user "alice"`)
	at = oursWith(t, map[string]any{"tls": server}, server).addrs()
	login("client certificate", bus.Config{URI: at, CA: ca.File, Cert: ourCert, Key: ourKey})
	login("no certificate", bus.Config{URI: at, CA: ca.File}, "keys cert and key")
}

// assets counts the streams and consumers of a cluster.
func assets(t testing.TB, c trio) int {
	t.Helper()
	js, end := c.js(t)
	defer end()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	n := 0
	streams := js.ListStreams(ctx)
	for s := range streams.Info() {
		n += 1 + s.State.Consumers
	}
	if err := streams.Err(); err != nil {
		t.Fatalf("listing streams: %v", err)
	}
	return n
}
