package nats

import (
	"strings"
	"testing"

	"github.com/cbsd/cbsdmq/bus"
)

// FuzzToken: a name is one token of a subject or refused, and a token of the
// server that stands for a name is the token of that name.
func FuzzToken(f *testing.F) {
	for _, s := range []string{"cbsd_zpool1", "a.b:c", "=2E", "==", "a b", "*", ">", "a=2E=3A", "\x00", strings.Repeat(".", 80), strings.Repeat("x", 201)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if k, err := token(s); err == nil {
			if k == "" || len(k) > maxToken || strings.ContainsAny(k, ".*> /\\\t\r\n\x00") {
				t.Fatalf("%q: token %q", s, k)
			}
			if back, ok := tubeOf(k); ok && back != s {
				t.Fatalf("%q: token %q stands for %q", s, k, back)
			}
		}
		if name, ok := tubeOf(s); ok {
			if k, err := token(name); err == nil && len(s) <= maxToken && k != s && !strings.ContainsAny(s, ".:") {
				t.Fatalf("%q stands for %q, whose token is %q", s, name, k)
			}
		}
	})
}

// FuzzServers: what the key uri may hold is a list of addresses or refused, and
// a password in it is never shown.
func FuzzServers(f *testing.F) {
	for _, s := range []string{"127.0.0.1:4222", "tls://a:secret1@host:1,nats://b", "nats://[::1]:4222", "a,,b", "embedded", "http://x", "nats://:0", "nats://h:99999", "tls://secret1@h", "tls://a:secret1@h,b@c", "tls://a:secret1,x@h/y"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, uri string) {
		servers, err := parseServers(bus.Config{URI: uri})
		if err != nil {
			if i := strings.Index(uri, "secret1"); i >= 0 && strings.Contains(uri[i:], "@") && strings.Contains(err.Error(), "secret1") {
				t.Fatalf("a password is shown: %v", err)
			}
			return
		}
		if len(servers) == 0 {
			t.Fatal("no server and no error")
		}
		for _, s := range servers {
			if again, err := parseServers(bus.Config{URI: s.addr}); err != nil || len(again) != 1 || again[0].addr != s.addr {
				t.Fatalf("%q: the address %q is read as %v, %v", uri, s.addr, again, err)
			}
		}
	})
}
