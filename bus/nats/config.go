package nats

import (
	"crypto/tls"
	"fmt"
	"os"
	"strings"

	"github.com/nats-io/nats.go"

	"github.com/cbsd/cbsdmq/bus"
	"github.com/cbsd/cbsdmq/bus/internal/endpoint"
)

// embeddedURI in the key uri stands for the broker that comes with cbsdmq.
const embeddedURI = "embedded"

// credential is one way to say who we are.
type credential struct {
	option nats.Option
	what   string // for people: user "alice", the token
}

var addresses = endpoint.Format{Scheme: "nats", Port: DefaultPort, SecureScheme: "tls", SecurePort: DefaultPort}

// target is all that is needed for one attempt to connect.
type target struct {
	addr    string
	tls     *tls.Config // nil: as the server wishes
	login   credential  // zero: none
	process nats.InProcessConnProvider
}

// redact cuts what may be a password out of addresses. A comma in a password
// looks like the end of an address, so all up to the last @ may be one.
func redact(uri string) string {
	at := strings.LastIndexByte(uri, '@')
	if at < 0 {
		return uri
	}
	scheme, _, ok := strings.Cut(uri[:at], "://")
	if !ok {
		scheme = "nats"
	}
	return scheme + "://***" + uri[at:]
}

// newTarget adds to s what the configuration says for all servers. A user in
// the address itself comes before it.
func newTarget(s endpoint.Server, t *tls.Config, login credential) target {
	e := target{addr: s.Addr, tls: t, login: login}
	if s.TLS && t == nil {
		e.tls = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	if s.User != nil {
		if password, ok := s.User.Password(); ok {
			e.login = userLogin(s.User.Username(), password)
		} else {
			e.login = tokenLogin(s.User.Username())
		}
	}
	return e
}

func userLogin(user, password string) credential {
	return credential{nats.UserInfo(user, password), fmt.Sprintf("user %q", user)}
}

func tokenLogin(token string) credential {
	return credential{nats.Token(token), "the token"}
}

// checkLogin reports keys that contradict each other.
func checkLogin(cfg bus.Config) error {
	var given []string
	for _, k := range []struct {
		name string
		set  bool
	}{{"user", cfg.User != "" || cfg.Password != ""}, {"token", cfg.Token != ""}, {"creds", cfg.Creds != ""}} {
		if k.set {
			given = append(given, k.name)
		}
	}
	if len(given) > 1 {
		return fmt.Errorf("%s: only one of them can say who we are", strings.Join(given, " and "))
	}
	return nil
}

// login reads the keys user and password, token, creds.
func login(cfg bus.Config) (credential, error) {
	switch {
	case cfg.User != "" || cfg.Password != "":
		return userLogin(cfg.User, cfg.Password), nil
	case cfg.Token != "":
		return tokenLogin(cfg.Token), nil
	case cfg.Creds != "":
		b, err := os.ReadFile(cfg.Creds)
		if err != nil {
			return credential{}, fmt.Errorf("creds: %w", err)
		}
		return credential{nats.UserCredentialBytes(b), "the credentials in " + cfg.Creds}, nil
	}
	return credential{}, nil
}
