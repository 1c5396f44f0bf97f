package endpoint

import (
	"strings"
	"testing"

	"github.com/cbsd/cbsdmq/bus"
)

var format = Format{Scheme: "nats", Port: "4222", SecureScheme: "tls", SecurePort: "4222"}

// FuzzParse: what the key uri may hold is a list of addresses or refused, and
// a password in it is never shown.
func FuzzParse(f *testing.F) {
	for _, s := range []string{"127.0.0.1:4222", "tls://a:secret1@host:1,nats://b", "nats://[::1]:4222", "a,,b", "http://x", "nats://:0", "nats://h:99999", "tls://secret1@h", "tls://a:secret1@h,b@c", "tls://a:secret1,x@h/y", "secret1!0#@"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, uri string) {
		servers, err := format.Parse(bus.Config{URI: uri})
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
			if again, err := format.Parse(bus.Config{URI: s.Addr}); err != nil || len(again) != 1 || again[0].Addr != s.Addr {
				t.Fatalf("%q: the address %q is read as %v, %v", uri, s.Addr, again, err)
			}
		}
	})
}
