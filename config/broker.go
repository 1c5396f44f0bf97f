package config

import (
	"cmp"
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// BrokerFile is the configuration of one server of a cluster, which `cbsdmq
// broker` runs. broker.json describes every key.
type BrokerFile struct {
	Name   string `json:"name"`
	Listen string `json:"listen"`
	Dir    string `json:"dir"`

	Token   string       `json:"token"`
	Users   []BrokerUser `json:"users"`
	TLS     BrokerTLS    `json:"tls"`
	Include string       `json:"include"`

	Cluster BrokerCluster `json:"cluster"`
}

// A BrokerUser may use the broker.
type BrokerUser struct {
	User     string `json:"user"`
	Password string `json:"password"`
}

// BrokerTLS are PEM files.
type BrokerTLS struct {
	Cert string `json:"cert"`
	Key  string `json:"key"`
	CA   string `json:"ca"`
}

// BrokerCluster is how the servers of a cluster find and trust each other.
type BrokerCluster struct {
	Name     string   `json:"name"`
	Listen   string   `json:"listen"`
	Routes   []string `json:"routes"`
	Password string   `json:"password"`
	Cert     string   `json:"cert"`
	Key      string   `json:"key"`
	CA       string   `json:"ca"`
}

// Defaults of a BrokerFile.
const (
	DefaultBrokerDir = DefaultState + "/cluster"
	brokerPort       = "4222"
	routePort        = "6222"
)

//go:embed broker.json
var exampleBroker string

// ExampleBroker is an annotated file with every key.
func ExampleBroker() string { return exampleBroker }

// LoadBroker reads the configuration of a server of a cluster and judges it.
// A key that it does not know is an error: it may be the one that protects it.
func LoadBroker(path string) (*BrokerFile, error) {
	text, info, err := read(path)
	if err != nil {
		e := unreadable(err)
		if errors.Is(err, fs.ErrNotExist) {
			e.Hint = "`cbsdmq broker --example` prints a file to begin with"
		}
		return nil, e
	}
	b, err := ParseBroker(path, text)
	if err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o077 != 0 && b.secret() {
		err = fmt.Errorf("%s: %w", path, badConfig("", "others can read the passwords in it (mode %04o)", info.Mode().Perm()).WithHint("chmod 600 %s", path))
	}
	return b, err
}

// ParseBroker is LoadBroker of a text; file names it in errors.
func ParseBroker(file string, text []byte) (*BrokerFile, error) {
	if len(text) > fileMax {
		return nil, fmt.Errorf("%s: %w", file, badConfig("", "longer than %d bytes", fileMax))
	}
	b := &BrokerFile{Dir: DefaultBrokerDir}
	d := &decoder{file: file, text: text, given: make(map[string]position)}
	if err := d.syntax(text); err != nil {
		return nil, err
	}
	d.object("", text, 0, func(key string, p place) {
		switch strings.ToLower(key) {
		case "cluster":
			d.fields("cluster", p.value, p.valueAt, &b.Cluster)
		case "tls":
			d.fields("tls", p.value, p.valueAt, &b.TLS)
		default:
			d.field("", key, p, b)
		}
	})
	for _, w := range d.warnings {
		d.errs = append(d.errs, fmt.Errorf("%s: %w", position{w.Line, w.Column}.in(file), badConfig("", "%s", w.Text)))
	}
	b.complete()
	if len(d.errs) == 0 {
		d.errs = b.validate(file, d.given)
	}
	if len(d.errs) > 0 {
		return nil, errors.Join(d.errs...)
	}
	return b, nil
}

// complete adds the ports that are left out.
func (b *BrokerFile) complete() {
	b.Listen = withPort(b.Listen, brokerPort)
	for i, r := range b.Cluster.Routes {
		b.Cluster.Routes[i] = withPort(r, routePort)
	}
	if host, _, err := net.SplitHostPort(b.Listen); err == nil {
		b.Cluster.Listen = cmp.Or(b.Cluster.Listen, host)
	}
	b.Cluster.Listen = withPort(b.Cluster.Listen, routePort)
	b.Cluster.Name = cmp.Or(b.Cluster.Name, "cbsd")
}

func withPort(addr, port string) string {
	if addr == "" {
		return ""
	}
	if _, _, err := net.SplitHostPort(addr); err == nil {
		return addr
	}
	return net.JoinHostPort(strings.Trim(addr, "[]"), port)
}

func (b *BrokerFile) secret() bool {
	return b.Token != "" || len(b.Users) > 0 || b.Cluster.Password != ""
}

var serverName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

func (b *BrokerFile) validate(file string, given map[string]position) []error {
	v := &validator{c: &Config{File: file, given: given}}
	c := b.Cluster
	v.check("name", b.Name != "", "missing").hint("a name for this server that no other one has: the host's")
	v.check("name", b.Name == "" || serverName.MatchString(b.Name), "not a name").hint("letters, digits and . _ -")
	v.check("name", b.Name != "cbsdmq", "that is the name of a broker without a cluster").hint("take the host's name")
	v.check("listen", b.Listen != "", "missing").hint(`this host's address for agents and clients, such as "192.0.2.1:4222"`)
	v.check("dir", filepath.IsAbs(b.Dir), "not an absolute path").hint("it begins with /")
	v.check("cluster.name", serverName.MatchString(c.Name), "not a name").hint("letters, digits and . _ -")
	v.check("cluster.routes", len(c.Routes) >= 3, "%d servers are not a cluster that can lose one", len(c.Routes)).
		hint(`name all three, this one too: ["192.0.2.1:6222", "192.0.2.2:6222", "192.0.2.3:6222"]`)
	for i, r := range c.Routes {
		v.check("cluster.routes", !slices.Contains(c.Routes[:i], r), "%s comes twice", r)
	}
	if host, _, err := net.SplitHostPort(c.Listen); err == nil && len(c.Routes) > 0 && allAddresses(c.Routes) && !unspecified(host) {
		v.check("cluster.routes", slices.Contains(c.Routes, c.Listen), "%s, where this server listens for the others, is not among them", c.Listen).
			hint("the list is the same in the file of each server and has them all")
	}
	v.pair("tls", b.TLS.Cert, b.TLS.Key, b.TLS.CA)
	v.pair("cluster", c.Cert, c.Key, c.CA)
	v.check("token", b.Token == "" || len(b.Users) == 0, "users and token: only one of them can say who may connect")
	for _, u := range b.Users {
		v.check("users", u.User != "" && u.Password != "", "each wants user and password")
	}
	if !loopback(b.Listen) {
		v.check("users", b.Token != "" || len(b.Users) > 0 || b.TLS.CA != "" || b.Include != "", "missing: whoever reaches %s could run commands on your hosts", b.Listen).
			hint(`give users, or a token; or tls.ca, whose certificates may connect; or include a file with accounts`)
	}
	if !loopback(c.Listen) {
		v.check("cluster.password", c.Password != "" || c.CA != "", "missing: whoever reaches %s could join the cluster", c.Listen).
			hint("a long random word, the same in the file of each server; or cluster.ca, whose certificates may join")
	}
	return v.errs
}

func (v *validator) pair(section, cert, key, ca string) {
	v.check(section+".key", (cert == "") == (key == ""), "cert and key go together")
	v.check(section+".ca", ca == "" || cert != "", "without cert and key").hint("the others want to see a certificate too")
}

func allAddresses(routes []string) bool {
	return !slices.ContainsFunc(routes, func(r string) bool {
		host, _, err := net.SplitHostPort(r)
		return err != nil || net.ParseIP(host) == nil
	})
}

func unspecified(host string) bool {
	ip := net.ParseIP(host)
	return host == "" || ip != nil && ip.IsUnspecified()
}

func loopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	ip := net.ParseIP(host)
	return err != nil || host == "localhost" || ip != nil && ip.IsLoopback()
}
