package nats_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nkeys"

	"github.com/cbsd/cbsdmq/bus"
	"github.com/cbsd/cbsdmq/bus/bustest"
)

// credentials logs in with a .creds file at a server that trusts an operator.
func credentials(t *testing.T, login bustest.Login, start func(testing.TB, ...string) string) {
	operator, system, account := newKey(t, nkeys.CreateOperator), newKey(t, nkeys.CreateAccount), newKey(t, nkeys.CreateAccount)
	o := jwt.NewOperatorClaims(operator.public)
	o.SystemAccount = system.public
	a := jwt.NewAccountClaims(account.public)
	a.Limits.JetStreamLimits = jwt.JetStreamLimits{DiskStorage: -1, MemoryStorage: -1, Streams: -1, Consumer: -1}
	addr := start(t,
		"operator: "+encode(t, o, operator),
		"system_account: "+system.public,
		"resolver: MEMORY",
		fmt.Sprintf("resolver_preload { %s: %s, %s: %s }",
			system.public, encode(t, jwt.NewAccountClaims(system.public), operator),
			account.public, encode(t, a, operator)))
	creds := func(name string, until time.Time, signer key) string {
		user := newKey(t, nkeys.CreateUser)
		claims := jwt.NewUserClaims(user.public)
		claims.Expires = until.Unix()
		text, err := jwt.FormatUserConfig(encode(t, claims, signer), user.seed(t))
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(t.TempDir(), name+".creds")
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	login("credentials", bus.Config{URI: addr, Creds: creds("good", time.Now().Add(time.Hour), account)})
	login("strange credentials", bus.Config{URI: addr, Creds: creds("strange", time.Now().Add(time.Hour), newKey(t, nkeys.CreateAccount))}, "refuses the credentials in")
	login("expired credentials", bus.Config{URI: addr, Creds: creds("expired", time.Now().Add(-time.Hour), account)}, "the credentials in")
}

type key struct {
	nkeys.KeyPair
	public string
}

func newKey(t testing.TB, create func() (nkeys.KeyPair, error)) key {
	t.Helper()
	pair, err := create()
	if err != nil {
		t.Fatal(err)
	}
	public, err := pair.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	return key{pair, public}
}

func (k key) seed(t testing.TB) []byte {
	t.Helper()
	seed, err := k.Seed()
	if err != nil {
		t.Fatal(err)
	}
	return seed
}

func encode(t testing.TB, c jwt.Claims, signer key) string {
	t.Helper()
	text, err := c.Encode(signer.KeyPair)
	if err != nil {
		t.Fatal(err)
	}
	return text
}
