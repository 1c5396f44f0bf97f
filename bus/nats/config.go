package nats

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"regexp"
	"strconv"
	"strings"

	"github.com/nats-io/nats.go"

	"github.com/cbsd/cbsdmq/bus"
)

// embeddedURI in the key uri stands for the broker that comes with cbsdmq.
const embeddedURI = "embedded"

// server is one of the addresses in the key uri.
type server struct {
	addr string        // host:port
	tls  bool          // tls://
	user *url.Userinfo // of the URL; nil = none
}

// credential is one way to say who we are.
type credential struct {
	option nats.Option
	what   string // for people: user "alice", the token
}

// endpoint is all that is needed for one attempt to connect.
type endpoint struct {
	addr    string
	tls     *tls.Config // nil: as the server wishes
	login   credential  // zero: none
	process nats.InProcessConnProvider
}

// parseServers reads the key uri: host:port or nats://host:port or
// tls://host:port, several separated by commas, the port optional, IPv6 in
// brackets.
func parseServers(cfg bus.Config) ([]server, error) {
	var servers []server
	for one := range strings.SplitSeq(cfg.URI, ",") {
		s, err := parseServer(strings.TrimSpace(one))
		if err != nil {
			return nil, fmt.Errorf("uri %q: %w", redact(cfg.URI), err)
		}
		servers = append(servers, s)
	}
	return servers, nil
}

func parseServer(s string) (server, error) {
	switch {
	case s == "":
		return server{}, errors.New("an address is missing")
	case strings.Count(s, ":") > 1 && net.ParseIP(s) != nil:
		return server{}, fmt.Errorf("an IPv6 address needs brackets: [%s]:%s", s, DefaultPort)
	case !strings.Contains(s, "://"):
		s = "nats://" + s
	}
	u, err := url.Parse(s)
	if err != nil {
		// url.Parse repeats the address, which may hold a password.
		return server{}, errors.New("not an address: host:port or nats://host:port expected")
	}
	switch {
	case u.Scheme != "nats" && u.Scheme != "tls":
		return server{}, fmt.Errorf("%s:// is not known, only nats:// and tls://", u.Scheme)
	case u.Hostname() == "":
		return server{}, errors.New("the host is missing")
	case !validHost(u.Hostname()):
		return server{}, fmt.Errorf("%q is not the name of a host", u.Hostname())
	case u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.Fragment != "":
		return server{}, errors.New("nothing may follow the port")
	}
	port := u.Port()
	if port == "" {
		port = DefaultPort
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return server{}, fmt.Errorf("%s is not a port", port)
	}
	return server{addr: net.JoinHostPort(u.Hostname(), port), tls: u.Scheme == "tls", user: u.User}, nil
}

var hostName = regexp.MustCompile(`^[A-Za-z0-9._-]+$`)

// validHost takes an address, with a zone where it has one, or a name.
func validHost(host string) bool {
	addr, zone, zoned := strings.Cut(host, "%")
	if _, err := netip.ParseAddr(addr); err == nil {
		return !zoned || hostName.MatchString(zone)
	}
	return hostName.MatchString(host)
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

func addresses(servers []server) string {
	list := make([]string, len(servers))
	for i, s := range servers {
		list[i] = s.addr
	}
	return strings.Join(list, ",")
}

// endpoint adds to s what the configuration says for all servers. A user in
// the address itself comes before it.
func (s server) endpoint(t *tls.Config, login credential) endpoint {
	e := endpoint{addr: s.addr, tls: t, login: login}
	if s.tls && t == nil {
		e.tls = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	if s.user != nil {
		if password, ok := s.user.Password(); ok {
			e.login = userLogin(s.user.Username(), password)
		} else {
			e.login = tokenLogin(s.user.Username())
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
