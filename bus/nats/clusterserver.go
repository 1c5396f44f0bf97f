package nats

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"
)

// ClusterConfig is one server of a cluster. Its fields are the keys of the
// broker's configuration file, and its errors name them so.
type ClusterConfig struct {
	Name   string // of this server; no other one of the cluster has it
	Listen string // host:port for clients
	Dir    string // its own, mode 0700, made if it is not there

	Token   string
	Users   map[string]string // passwords
	TLS     ServerTLS         // for clients; with a CA they have to show a certificate
	Include string            // a nats-server's configuration file, for accounts and what else has no key here

	Cluster  string   // its name, the same for all servers
	Routes   []string // host:port of all servers, this one too
	RouteAt  string   // host:port for the other servers
	Password string   // of the other servers
	RouteTLS ServerTLS

	Log *slog.Logger // nil = no log
}

// ServerTLS are files. Without a certificate there is no TLS.
type ServerTLS struct{ Cert, Key, CA string }

// A Member is a running server of a cluster.
type Member struct {
	cfg  ClusterConfig
	lock *os.File
	log  *serverLog

	mu     sync.Mutex
	server *natsserver.Server // nil while revive makes it anew

	stopReviving func()
}

// StartMember runs a server of a cluster. It returns when clients can connect;
// that they can put and get something takes a majority of the servers, which
// Watch waits for.
//
// Every server syncs what it is given before it says that it has it (see
// docs/OPERATING.md), so a member needs nothing of groupsync.go.
func StartMember(ctx context.Context, cfg ClusterConfig) (*Member, error) {
	m, err := startMember(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("starting a server of cluster %s: %w", cfg.Cluster, err)
	}
	return m, nil
}

func startMember(ctx context.Context, cfg ClusterConfig) (_ *Member, err error) {
	if _, err := cfg.options(); err != nil {
		return nil, err
	}
	if err := privateDir(cfg.Dir, "dir"); err != nil {
		return nil, err
	}
	lock, err := lockDir(ctx, cfg.Dir)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			lock.Close()
		}
	}()
	if err := belongs(cfg.Dir, cfg.Cluster, cfg.Name); err != nil {
		return nil, err
	}
	for _, l := range []struct{ key, addr string }{{"listen", cfg.Listen}, {"cluster.listen", cfg.RouteAt}} {
		if err := listenable(l.addr); err != nil {
			return nil, fmt.Errorf("key %s: %w", l.key, err)
		}
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	m := &Member{cfg: cfg, lock: lock, log: &serverLog{log: cfg.Log, what: "server of the cluster", hurt: make(chan string, 1)}}
	if err := m.run(ctx); err != nil {
		return nil, err
	}
	m.stopReviving = revive(m.log, cfg.Dir, m.restart)
	return m, nil
}

// run makes the server.
func (m *Member) run(ctx context.Context) error {
	opts, err := m.cfg.options() // anew, since a server changes them
	if err != nil {
		return err
	}
	s, err := natsserver.NewServer(opts)
	if err != nil {
		return err
	}
	s.SetLoggerV2(m.log, false, false, false)
	if err := start(ctx, s, m.log); err != nil {
		s.Shutdown()
		s.WaitForShutdown()
		return err
	}
	m.mu.Lock()
	m.server = s
	m.mu.Unlock()
	return nil
}

// stop ends the server, if there is one.
func (m *Member) stop() {
	m.mu.Lock()
	s := m.server
	m.server = nil
	m.mu.Unlock()
	if s != nil {
		s.Shutdown()
		s.WaitForShutdown()
	}
}

// restart puts a new server in the place of the old one.
func (m *Member) restart(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, reviveStart)
	defer cancel()
	m.stop()
	m.log.heal()
	return m.run(ctx)
}

// current is the server, or nil while it is made anew.
func (m *Member) current() *natsserver.Server {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.server
}

// options are the server's. What Include says comes first.
func (cfg ClusterConfig) options() (*natsserver.Options, error) {
	opts := &natsserver.Options{}
	if cfg.Include != "" {
		if err := opts.ProcessConfigFile(cfg.Include); err != nil {
			return nil, fmt.Errorf("key include: %w", err)
		}
	}
	host, port, err := hostPort(cfg.Listen)
	if err != nil {
		return nil, fmt.Errorf("key listen: %w", err)
	}
	routeHost, routePort, err := hostPort(cfg.RouteAt)
	if err != nil {
		return nil, fmt.Errorf("key cluster.listen: %w", err)
	}
	opts.ServerName, opts.Host, opts.Port = cfg.Name, host, port
	opts.JetStream, opts.StoreDir, opts.SyncAlways = true, cfg.Dir, true
	opts.DisableJetStreamBanner, opts.NoSigs = true, true
	opts.ConnectErrorReports, opts.ReconnectErrorReports = routeReports, routeReports
	if cfg.Token != "" {
		opts.Authorization = cfg.Token
	}
	for user, password := range cfg.Users {
		opts.Users = append(opts.Users, &natsserver.User{Username: user, Password: password})
	}
	if opts.TLSConfig, err = cfg.TLS.config("tls"); err != nil {
		return nil, err
	}
	opts.TLSVerify = cfg.TLS.CA != ""
	opts.TLSTimeout = tlsTimeout
	opts.Cluster = natsserver.ClusterOpts{Name: cfg.Cluster, Host: routeHost, Port: routePort, TLSTimeout: tlsTimeout}
	if opts.Cluster.TLSConfig, err = cfg.RouteTLS.config("cluster"); err != nil {
		return nil, err
	}
	var user *url.Userinfo
	if cfg.Password != "" {
		opts.Cluster.Username, opts.Cluster.Password = routeUser, cfg.Password
		user = url.UserPassword(routeUser, cfg.Password)
	}
	for _, r := range cfg.Routes {
		if _, _, err := hostPort(r); err != nil {
			return nil, fmt.Errorf("key cluster.routes: %w", err)
		}
		opts.Routes = append(opts.Routes, &url.URL{Scheme: "nats-route", Host: r, User: user})
	}
	return opts, nil
}

const (
	routeUser  = "cbsdmq" // what the servers of a cluster call themselves to each other
	tlsTimeout = 5        // seconds

	routeReports = 600 // attempts to reach another server between two lines about it
)

func hostPort(addr string) (host string, port int, err error) {
	host, p, err := net.SplitHostPort(addr)
	if err == nil {
		port, err = strconv.Atoi(p)
	}
	if err != nil || port < 1 || port > 65535 {
		return "", 0, fmt.Errorf("%q: host:port expected", addr)
	}
	return host, port, nil
}

func listenable(addr string) error {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	return l.Close()
}

// clusterFile says to which server of which cluster a directory belongs. The
// server of another name would be a further one, and one without a cluster does
// not find what one in a cluster has left; either way the store would be of no
// use, and parts of it be removed.
const clusterFile = "cluster"

// belongs sees that dir is new or that server's.
func belongs(dir, cluster, name string) error {
	path := filepath.Join(dir, clusterFile)
	line, err := readLine(path)
	switch {
	case err == nil && line == cluster+" "+name:
		return nil
	case err == nil:
		was, server, _ := strings.Cut(line, " ")
		return fmt.Errorf("key dir: %s belongs to server %s of cluster %s, not to %s of %s: name them so, or another directory", dir, server, was, name, cluster)
	case !errors.Is(err, os.ErrNotExist):
		return err
	}
	if _, err := os.Stat(filepath.Join(dir, "jetstream")); err == nil {
		return fmt.Errorf("key dir: %s holds the messages of a broker without a cluster, which a cluster cannot take over: name another directory", dir)
	}
	return writeFile(path, cluster+" "+name)
}

// unclustered sees that dir is not that of a server of a cluster.
func unclustered(dir string) error {
	line, err := readLine(filepath.Join(dir, clusterFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	cluster, _, _ := strings.Cut(line, " ")
	return fmt.Errorf("%s belongs to a server of cluster %s: it is started with \"cbsdmq broker --config FILE\", and those who use it name the cluster's servers in the key uri", dir, cluster)
}

// Addr is host:port for clients.
func (m *Member) Addr() string { return clientAddress(m.cfg.Listen) }

// Watch logs who comes and goes, and calls ready when a majority of the servers
// is there and has agreed on a leader. It returns when ctx ends.
func (m *Member) Watch(ctx context.Context, ready func()) {
	const every, patience = 200 * time.Millisecond, 10 * time.Second
	tick := time.NewTicker(every)
	defer tick.Stop()
	log, whole := m.cfg.Log, len(m.cfg.Routes)
	agreed, since := false, time.Now()
	for names := []string(nil); ; {
		now, current := m.look(names)
		for _, name := range now {
			if !slices.Contains(names, name) {
				log.Info("a server of the cluster is there", "server", name, "servers", len(now)+1, "of", whole)
			}
		}
		for _, name := range names {
			if !slices.Contains(now, name) {
				log.Warn("a server of the cluster is away", "server", name, "servers", len(now)+1, "of", whole)
			}
		}
		names = now
		switch {
		case current && !agreed:
			ready()
			agreed = true
		case current:
			since = time.Now()
		case m.log.isHurt():
			since = time.Now() // that was said
		case time.Since(since) > patience:
			since = time.Now()
			log.Warn("the cluster cannot work", "servers", len(now)+1, "of", whole,
				"hint", "more than half of the servers in cluster.routes have to run and reach each other at cluster.listen")
			agreed = false
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// look returns the names of the other servers that this one is connected to, and
// whether they have agreed on a leader. While it is made anew they are those of
// before.
func (m *Member) look(before []string) (names []string, current bool) {
	s := m.current()
	if s == nil {
		return before, false
	}
	routes, err := s.Routez(nil)
	if err != nil {
		return nil, false
	}
	for _, r := range routes.Routes {
		if r.RemoteName != s.Name() {
			names = append(names, r.RemoteName)
		}
	}
	slices.Sort(names)
	return slices.Compact(names), s.JetStreamIsCurrent()
}

// Close hands what this server leads to the others and stops it.
func (m *Member) Close() error {
	m.stopReviving()
	m.stop()
	return m.lock.Close()
}
