// Package endpoint reads the key uri of brokers that have one server or several,
// and connects to the first of them that lets us.
package endpoint

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/cbsd/cbsdmq/bus"
	"github.com/cbsd/cbsdmq/bus/internal/tlsconf"
)

// patience is the limit to connecting to one server where ctx has no deadline.
const patience = 10 * time.Second

// A Server is one of the addresses in the key uri.
type Server struct {
	Addr string        // host:port
	TLS  bool          // its scheme asks for it, or one of the keys about TLS does
	User *url.Userinfo // nil = none
	Path string        // what follows the port, without the slash before it
}

// Login is the user in the address, or else the one of the configuration.
func (s Server) Login(cfg bus.Config) (user, password string) {
	if s.User == nil {
		return cfg.User, cfg.Password
	}
	password, _ = s.User.Password()
	return s.User.Username(), password
}

// Addrs names servers to people, without secrets.
func Addrs(servers []Server) string {
	list := make([]string, len(servers))
	for i, s := range servers {
		list[i] = s.Addr
	}
	return strings.Join(list, ",")
}

// A Format is how the addresses of a broker are written: [scheme://]host[:port],
// the port optional, IPv6 in brackets.
type Format struct {
	Scheme, SecureScheme string // without "://"; Scheme is added where there is none
	Port, SecurePort     string // are added where there is none
	Path                 bool   // one may follow
}

// Parse reads the key uri: one or more addresses, separated by commas. The error
// repeats no password.
func (f Format) Parse(cfg bus.Config) ([]Server, error) {
	var servers []Server
	for one := range strings.SplitSeq(cfg.URI, ",") {
		s, err := f.parse(strings.TrimSpace(one), tlsconf.Wanted(cfg))
		if err != nil {
			return nil, err
		}
		servers = append(servers, s)
	}
	return servers, nil
}

func (f Format) parse(s string, secure bool) (Server, error) {
	switch {
	case s == "":
		return Server{}, errors.New("an address is missing")
	case strings.Count(s, ":") > 1 && net.ParseIP(s) != nil:
		return Server{}, fmt.Errorf("an IPv6 address needs brackets: [%s]:%s", s, f.Port)
	case !strings.Contains(s, "://"):
		s = f.Scheme + "://" + s
	}
	u, err := url.Parse(s)
	if err != nil { // it repeats the address, which may hold a password
		return Server{}, fmt.Errorf("not an address: host:port or %s://host:port expected", f.Scheme)
	}
	last := "port"
	if f.Path {
		last = "path"
	}
	switch {
	case u.Scheme != f.Scheme && u.Scheme != f.SecureScheme && strings.ContainsAny(u.Scheme, "0123456789+-."): // likewise
		return Server{}, fmt.Errorf("only %s:// and %s:// are known", f.Scheme, f.SecureScheme)
	case u.Scheme != f.Scheme && u.Scheme != f.SecureScheme:
		return Server{}, fmt.Errorf("%s:// is not known, only %s:// and %s://", u.Scheme, f.Scheme, f.SecureScheme)
	case u.Hostname() == "":
		return Server{}, errors.New("the host is missing")
	case !validHost(u.Hostname()):
		return Server{}, errors.New("what stands for the host is not the name of one") // it may be a part of a password
	case !f.Path && strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "":
		return Server{}, fmt.Errorf("nothing may follow the %s", last)
	}
	secure = secure || u.Scheme == f.SecureScheme
	port := u.Port()
	switch {
	case port == "" && secure:
		port = f.SecurePort
	case port == "":
		port = f.Port
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return Server{}, fmt.Errorf("%q is not a port", port)
	}
	return Server{
		Addr: net.JoinHostPort(u.Hostname(), port), TLS: secure, User: u.User, Path: strings.TrimPrefix(u.Path, "/"),
	}, nil
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

// First connects to the first of the servers that lets us. Each gets an equal
// share of what is left of ctx; dial is told how much that is, and has it as the
// deadline of its ctx. The error is a *bus.Permanent if trying again helps with
// none.
func First[S, C any](ctx context.Context, servers []S, dial func(ctx context.Context, s S, within time.Duration) (C, error)) (C, error) {
	var none C
	var failed []error
	permanent := true
	for i, s := range servers {
		within := patience
		if end, ok := ctx.Deadline(); ok {
			within = time.Until(end) / time.Duration(len(servers)-i)
		}
		one, cancel := context.WithTimeout(ctx, within)
		c, err := dial(one, s, within)
		cancel()
		if err == nil {
			return c, nil
		}
		if len(servers) == 1 || ctx.Err() != nil {
			return none, err
		}
		_, p := errors.AsType[*bus.Permanent](err)
		permanent = permanent && p
		failed = append(failed, err)
	}
	if permanent {
		return none, &bus.Permanent{Err: errors.Join(failed...)}
	}
	texts := make([]string, len(failed))
	for i, err := range failed {
		texts[i] = err.Error()
	}
	return none, errors.New(strings.Join(texts, "; ")) // wraps no Permanent
}

// NoAnswer is the error of a dial whose time is over.
func NoAnswer(within time.Duration, err error) error {
	return fmt.Errorf("no answer within %v: %w", within.Round(time.Millisecond), err)
}
