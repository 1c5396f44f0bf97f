package zeromq

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"syscall"

	"github.com/cbsd/cbsdmq/bus"
)

// An Opener opens drivers, those of agents with a server that listens. A process
// has one Opener for all its pools: those with the same address share a server.
// The zero value is ready.
type Opener struct {
	Log *slog.Logger // of the server; nil = no log

	// ClientOnly never listens: for a program that comes, asks and goes.
	ClientOnly bool

	mu    sync.Mutex
	seats map[string]*seat // by address
}

// A seat is where a server of this process listens, or will when it can.
type seat struct {
	addr  string
	keys  [3]string // of the configuration
	log   *slog.Logger
	users int // under Opener.mu

	mu     sync.Mutex
	server *server
}

// Open returns the driver for cfg, and what to close when the driver and all its
// connections are done with. An agent's listens when it is first dialled. While
// another process listens there, it is a client of that process, and takes its
// place when that has ended.
func (o *Opener) Open(cfg bus.Config) (bus.Driver, io.Closer, error) {
	d, err := New(cfg)
	if err != nil {
		return nil, nil, err
	}
	if o.ClientOnly {
		return d, closer(func() error { return nil }), nil
	}
	if _, err := d.agentCurve(); err != nil {
		return nil, nil, err
	}
	addr := net.JoinHostPort(d.host, d.port)
	keys := [3]string{cfg.CurveKey, cfg.CurveServer, cfg.CurveClients}
	o.mu.Lock()
	defer o.mu.Unlock()
	s := o.seats[addr]
	switch {
	case s == nil:
		log := o.Log
		if log == nil {
			log = slog.New(slog.DiscardHandler)
		}
		s = &seat{addr: addr, keys: keys, log: log.With("bus", "zeromq", "addr", d.Addr())}
		if o.seats == nil {
			o.seats = map[string]*seat{}
		}
		o.seats[addr] = s
	case s.keys != keys:
		return nil, nil, bad("curve_key", "another pool of this agent listens at %s with other keys", d.Addr()).
			WithHint("give both the same curve_key, curve_server and curve_clients, or another port")
	}
	s.users++
	d.seat = s
	var once sync.Once
	return d, closer(func() (err error) {
		once.Do(func() { err = o.release(s) })
		return err
	}), nil
}

// serve returns the server, which listens.
func (s *seat) serve(ctx context.Context, d *Driver) (*server, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.server != nil {
		return s.server, nil
	}
	own, err := d.agentCurve()
	if err != nil {
		return nil, &bus.Permanent{Err: err}
	}
	server, err := listen(ctx, s.addr, fmt.Sprintf("cbsdmq agent (pid %d, ZMTP 3.1)", os.Getpid()), own, s.log)
	switch {
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return nil, &bus.Permanent{Err: bad("uri", "%s is not an address of this host: %w", d.Addr(), err).
			WithHint("an agent listens there; write the agent's own address, or tcp://*:%s for all of them", d.port)}
	case err != nil:
		return nil, fmt.Errorf("listening at %s: %w", d.Addr(), err)
	}
	s.server = server
	s.log.Info("listening")
	return server, nil
}

// release ends the server of s when its last user has gone.
func (o *Opener) release(s *seat) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if s.users--; s.users > 0 {
		return nil
	}
	delete(o.seats, s.addr)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.server == nil {
		return nil
	}
	return s.server.Close()
}

type closer func() error

func (c closer) Close() error { return c() }
