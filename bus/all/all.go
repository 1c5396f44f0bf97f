// Package all knows every driver. It is the only importer of all of them: to
// add a broker, add a line to open.
package all

import (
	"context"
	"io"
	"log/slog"
	"time"

	"github.com/cbsd/cbsdmq"
	"github.com/cbsd/cbsdmq/bus"
	"github.com/cbsd/cbsdmq/bus/activemq"
	"github.com/cbsd/cbsdmq/bus/beanstalk"
	"github.com/cbsd/cbsdmq/bus/kafka"
	"github.com/cbsd/cbsdmq/bus/nats"
	"github.com/cbsd/cbsdmq/bus/rabbitmq"
	"github.com/cbsd/cbsdmq/bus/zeromq"
)

// An Opener opens buses by their sections of the configuration. One process
// has one, so that its pools share an embedded broker.
type Opener struct {
	Log *slog.Logger

	// ClientOnly is for programs that come, ask and go: no broker is started,
	// and a refusal (wrong password, bad certificate) is final.
	ClientOnly bool

	nats   nats.Opener
	zeromq zeromq.Opener
}

// Open returns a bus for a section of the kind, and what to close when it is
// done with. It connects when the bus is first used.
func (o *Opener) Open(ctx context.Context, kind string, cfg bus.Config) (*bus.Bus, io.Closer, error) {
	var driver bus.Driver
	var closer io.Closer = nothing{}
	var err error
	if cfg.PasswordFile != "" {
		driver, err = openWithFile(kind, cfg)
	} else {
		driver, closer, err = o.open(ctx, kind, cfg)
	}
	if err != nil {
		return nil, nil, err
	}
	b := bus.New(driver, bus.Options{
		Log:        o.Log,
		MaxWait:    Timeout(cfg.ReconnectTimeout),
		KeepTrying: !o.ClientOnly,
	})
	return b, closers{b, closer}, nil
}

func (o *Opener) open(ctx context.Context, kind string, cfg bus.Config) (bus.Driver, io.Closer, error) {
	switch kind {
	case "nats":
		o.nats.Log, o.nats.ClientOnly = o.Log, o.ClientOnly
		return o.nats.Open(ctx, cfg)
	case "zeromq":
		o.zeromq.Log, o.zeromq.ClientOnly = o.Log, o.ClientOnly
		return o.zeromq.Open(cfg)
	}
	d, err := client(kind, cfg)
	return d, nothing{}, err
}

// client is the driver of a broker that is always somebody else's.
func client(kind string, cfg bus.Config) (bus.Driver, error) {
	switch kind {
	case "beanstalkd":
		return beanstalk.New(cfg)
	case "rabbitmq":
		return rabbitmq.New(cfg)
	case "kafka":
		return kafka.New(cfg)
	case "activemq":
		return activemq.New(cfg)
	}
	return nil, cbsdmq.Errorf(cbsdmq.CodeBadConfig, "broker", "there is no driver for %q", kind)
}

// Timeout is a time of the configuration.
func Timeout(s bus.Seconds) time.Duration { return time.Duration(float64(s) * float64(time.Second)) }

// closers are closed in their order.
type closers []io.Closer

func (cs closers) Close() error {
	var first error
	for _, c := range cs {
		if err := c.Close(); err != nil && first == nil {
			first = err
		}
	}
	return first
}

type nothing struct{}

func (nothing) Close() error { return nil }
