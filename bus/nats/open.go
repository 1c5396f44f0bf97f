package nats

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"

	"github.com/cbsd/cbsdmq/bus"
)

// An Opener opens drivers and runs the embedded broker where a configuration
// asks for one. A process has one Opener for all its pools: those with the same
// embedded_dir share a broker, others have their own. The zero value is ready.
type Opener struct {
	Log *slog.Logger // for the embedded broker; nil = no log

	// ClientOnly never runs a broker: for a program that comes, asks and goes.
	ClientOnly bool

	mu      sync.Mutex
	running map[string]*shared // by directory
}

type shared struct {
	broker *Embedded
	listen string
	users  int
}

// Open returns the driver for cfg, and what to close when the driver and all
// its connections are done with. With "uri": "embedded" it starts the broker of
// cfg.EmbeddedDir; if another process runs that already, the driver is a client
// of that process, and finds no broker when it has ended until one is started
// again. ctx is for the start alone.
func (o *Opener) Open(ctx context.Context, cfg bus.Config) (bus.Driver, io.Closer, error) {
	if cfg.URI != embeddedURI || o.ClientOnly {
		d, err := New(cfg)
		if err != nil {
			return nil, nil, err
		}
		return d, closer(func() error { return nil }), nil
	}
	dir := embeddedDir(cfg.EmbeddedDir)
	o.mu.Lock()
	defer o.mu.Unlock()
	s := o.running[dir]
	switch {
	case s == nil:
		e, err := StartEmbedded(ctx, EmbeddedConfig{Dir: dir, Listen: cfg.EmbeddedListen, Log: o.Log})
		if errors.Is(err, ErrLocked) {
			return newEmbeddedClient(cfg, nil), closer(func() error { return nil }), nil
		}
		if err != nil {
			return nil, nil, err
		}
		s = &shared{broker: e, listen: cfg.EmbeddedListen}
		if o.running == nil {
			o.running = map[string]*shared{}
		}
		o.running[dir] = s
	case s.listen != cfg.EmbeddedListen:
		return nil, nil, fmt.Errorf("embedded_listen %q: the broker of %s listens on %q for another pool", cfg.EmbeddedListen, dir, s.listen)
	}
	s.users++
	var once sync.Once
	return newEmbeddedClient(cfg, s.broker), closer(func() (err error) {
		once.Do(func() { err = o.release(dir, s) })
		return err
	}), nil
}

// release stops the broker of dir when its last user has gone.
func (o *Opener) release(dir string, s *shared) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if s.users--; s.users > 0 {
		return nil
	}
	delete(o.running, dir)
	return s.broker.Close()
}

type closer func() error

func (c closer) Close() error { return c() }
