package nats

import (
	"errors"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/cbsd/cbsdmq/bus"
)

func TestToken(t *testing.T) {
	for _, c := range []struct{ name, token string }{
		{"cbsd_zpool1", "cbsd_zpool1"},
		{"cbsd-zpool1_result_id17", "cbsd-zpool1_result_id17"},
		{"a.b:c", "a=2Eb=3Ac"},
		{strings.Repeat(".", 66), strings.Repeat("=2E", 66)},
	} {
		if got, err := token(c.name); err != nil || got != c.token {
			t.Errorf("token(%q) = %q, %v; want %q", c.name, got, err, c.token)
		}
	}
	for _, name := range []string{"", " ", "a b", "*", ">", "a=2E", "a/b", "a\\b", "a\x00", "é", strings.Repeat("x", 201)} {
		if got, err := token(name); !errors.Is(err, bus.ErrBadTube) {
			t.Errorf("token(%q) = %q, %v; want ErrBadTube", name, got, err)
		}
	}
}

// TestTokensDiffer checks that no two tubes meet, and that no name leaves its
// place in a subject, a stream's name or a path.
func TestTokensDiffer(t *testing.T) {
	name := rapid.StringMatching(`[A-Za-z0-9_.:-]{1,200}`)
	rapid.Check(t, func(t *rapid.T) {
		a, b := name.Draw(t, "a"), name.Draw(t, "b")
		if rapid.Bool().Draw(t, "near") { // differ in the last byte only
			b = a[:len(a)-1] + rapid.SampledFrom([]string{".", ":", "x", "_"}).Draw(t, "end")
		}
		x, errx := token(a)
		y, erry := token(b)
		if errx != nil || erry != nil {
			t.Fatalf("token: %v, %v", errx, erry)
		}
		if (x == y) != (a == b) {
			t.Fatalf("%q and %q: tokens %q and %q", a, b, x, y)
		}
		if back, ok := tubeOf(x); ok != (len(a)+2*strings.Count(a, ".")+2*strings.Count(a, ":") <= maxToken) || ok && back != a {
			t.Fatalf("%q: token %q stands for %q, %v", a, x, back, ok)
		}
		if strings.ContainsAny(x, ".*> /\\\t\r\n") || len(x) > maxToken {
			t.Fatalf("%q: token %q", a, x)
		}
	})
}
