package bustest

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/cbsd/cbsdmq/bus"
	"github.com/cbsd/cbsdmq/internal/testserver"
)

// Secrets are the passwords and tokens of Logins, a right one and a wrong one.
// No error may repeat them.
const (
	Secret      = "s3cret"
	WrongSecret = "wr0ng"
)

// A Login connects with a configuration, and puts a message. That works, or ends
// with a *bus.Permanent that says all of want. It reports whether it was so.
type Login func(name string, cfg bus.Config, want ...string) bool

// Logins returns a Login by drivers that open makes: what trying again does not
// mend is said at once, in plain words.
func Logins(t *testing.T, open func(testing.TB, bus.Config) bus.Driver) Login {
	return func(name string, cfg bus.Config, want ...string) bool {
		return t.Run(name, func(t *testing.T) {
			d := open(t, cfg)
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			defer cancel()
			conn, err := d.Dial(ctx)
			if err == nil {
				defer conn.Close()
				to := bus.Tube{Name: "q"}
				if d.Caps().Brokerless { // nobody is there to take a job
					to.Kind = bus.Mailbox
				}
				err = conn.Put(ctx, bus.Message{Tube: to, Body: []byte("x")})[0].Err
			}
			Permanent(t, err, want...)
			said := d.Addr()
			if err != nil {
				said += err.Error()
			}
			if strings.Contains(said, Secret) || strings.Contains(said, WrongSecret) {
				t.Errorf("a secret is told: %s", said)
			}
		})
	}
}

// OneDown checks that a list of servers, of which the one of refused refuses us
// and the other one does not run, is tried again.
func OneDown(t *testing.T, open func(testing.TB, bus.Config) bus.Driver, refused bus.Config) {
	t.Run("a list with one down is not permanent", func(t *testing.T) {
		down := testserver.FreeAddr(t)
		refused.URI = down + "," + refused.URI
		_, err := open(t, refused).Dial(t.Context())
		if _, ok := errors.AsType[*bus.Permanent](err); ok || err == nil || !strings.Contains(err.Error(), down) {
			t.Errorf("%v: want an error that names both and is not permanent", err)
		}
	})
}

// Permanent checks that err is a *bus.Permanent that says all of want, or nil
// where that is empty.
func Permanent(t testing.TB, err error, want ...string) {
	t.Helper()
	if len(want) == 0 {
		if err != nil {
			t.Errorf("does not work: %v", err)
		}
		return
	}
	if _, ok := errors.AsType[*bus.Permanent](err); !ok {
		t.Fatalf("%v: want a *bus.Permanent", err)
	}
	for _, w := range want {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("%v: does not say %q", err, w)
		}
	}
}

// ways are the names of logins that the table of brokers shows where they work.
var ways = map[string]bool{
	"password": true, "token": true, "credentials": true, "SASL": true, "TLS": true, "client certificate": true, "CURVE": true,
}

func testLogin(t *testing.T, s Server) {
	if s.Logins == nil {
		s.cannot(t, "it asks nobody who he is")
	}
	refused := false
	login := Logins(t, s.Open)
	s.Logins(t, func(name string, cfg bus.Config, want ...string) bool {
		ok := login(name, cfg, want...)
		if ok && len(want) == 0 && ways[name] {
			s.answer.logins = append(s.answer.logins, name)
		}
		refused = refused || len(want) > 0
		return ok
	})
	if !refused {
		t.Error("no login is refused")
	}
}
