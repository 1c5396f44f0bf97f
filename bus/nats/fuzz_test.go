package nats

import (
	"strings"
	"testing"
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
