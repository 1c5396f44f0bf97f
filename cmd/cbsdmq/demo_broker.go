package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/cbsd/cbsdmq"
	"github.com/cbsd/cbsdmq/bus"
	"github.com/cbsd/cbsdmq/bus/all"
	"github.com/cbsd/cbsdmq/bus/nats"
	"github.com/cbsd/cbsdmq/config"
)

// demoTubes begins the names of the demo's tubes on a broker that others use too.
const demoTubes = "cbsdmq_demo_"

// demoReplyTTL is how long what nobody reads stays on it.
const demoReplyTTL = "1m"

// demoServers say of each kind of broker that is a server where it is by default
// and what starts one.
var demoServers = map[string]struct{ uri, start string }{
	"beanstalkd": {"127.0.0.1:11300", "beanstalkd -l 127.0.0.1"},
	"nats":       {"", "nats-server -js; without --uri the demo brings one"},
	"rabbitmq":   {"127.0.0.1:5672", "rabbitmq-server; with a login: --uri amqp://USER:PASSWORD@HOST"},
	"kafka":      {"127.0.0.1:9092", "bin/kafka-server-start.sh dist/sample/kafka.properties, formatted as the README says; with a login: --uri kafka://USER:PASSWORD@HOST"},
	"activemq":   {"127.0.0.1:5672", "bin/activemq console xbean:file:dist/sample/activemq.xml; with a login: --uri amqp://USER:PASSWORD@HOST"},
}

// demoBroker is what carries the jobs of a demo.
type demoBroker struct {
	kind     string
	uri      string         // "" where the demo brings it
	embedded *nats.Embedded // nil unless it does
	used     bool           // somebody else's is
}

// newDemoBroker takes the flags --broker and --uri.
func newDemoBroker(kind, uri string) (demoBroker, error) {
	d, server := demoServers[kind]
	switch {
	case !slices.Contains(config.Kinds(), kind):
		return demoBroker{}, usage("--broker: there is no %q, there are %s", kind, strings.Join(config.Kinds(), ", "))
	case kind == "zeromq" && uri != "":
		return demoBroker{}, usage("--uri: with ZeroMQ the agents are the servers, the demo finds them places")
	case !server && kind != "zeromq" && uri == "":
		return demoBroker{}, usage("--uri: %s has no place of its own", kind)
	case uri == config.Embedded:
		uri = ""
	}
	return demoBroker{kind: kind, uri: cmp.Or(uri, d.uri)}, nil
}

// startBroker runs the embedded broker in this process, or sees to it that the
// server is there and nothing of an earlier demo waits on it.
func (s *stage) startBroker(ctx context.Context) (err error) {
	b := &s.broker
	switch {
	case b.kind == "zeromq":
		return nil
	case b.uri == "":
		b.embedded, err = nats.StartEmbedded(ctx, nats.EmbeddedConfig{Dir: s.path("nats"), Listen: "127.0.0.1:0"})
		return err
	}
	opener := all.Opener{ClientOnly: true}
	open, closer, err := opener.Open(ctx, b.kind, bus.Config{URI: b.uri})
	if err != nil {
		return err
	}
	defer closer.Close()
	const patience = 15 * time.Second // until it answers: a cluster that has just been started takes ten
	soon, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if _, err := open.Inspect(soon, bus.Tube{Name: demoTubes + demoPools[0]}); err != nil {
		if e, ok := errors.AsType[*cbsdmq.Error](err); ok && e.Code == cbsdmq.CodeUnreachable {
			return e.WithHint("start one, or say with --uri where it is: %s", demoServers[b.kind].start)
		}
		return err
	}
	for _, pool := range append(demoPools[:], demoReal) {
		if err := b.drain(ctx, open, demoTubes+pool); err != nil {
			return err
		}
	}
	b.used = true
	return nil
}

// drain removes what an earlier demo, interrupted, may have left in a tube.
func (b demoBroker) drain(ctx context.Context, open *bus.Bus, tube string) error {
	info, err := open.Inspect(ctx, bus.Tube{Name: tube})
	if err != nil {
		return err
	}
	if info.Consumers > 0 {
		return cbsdmq.Errorf(cbsdmq.CodeUnreachable, "", "another demo runs on %s: somebody consumes %s", open.Addr(), tube).
			WithHint("wait for its end, or take another broker")
	}
	if info.Ready == 0 {
		return nil
	}
	in, err := open.Consume(ctx, bus.ConsumeOptions{Tubes: []bus.Tube{{Name: tube}}})
	if err != nil {
		return err
	}
	defer in.Close()
	for {
		const quiet = 500 * time.Millisecond // then there is no more
		wait, cancel := context.WithTimeout(ctx, quiet)
		ds, err := in.Receive(wait, 64)
		cancel()
		if err != nil {
			if wait.Err() != nil && ctx.Err() == nil {
				return nil
			}
			return err
		}
		if err := in.Ack(ctx, ds...); err != nil {
			return err
		}
	}
}

// section is that of a pool's file.
func (s *stage) section(pool string) (map[string]any, error) {
	b := s.broker
	switch {
	case b.embedded != nil:
		return map[string]any{
			"uri": config.Embedded, "embedded_dir": s.path("nats"), "embedded_listen": b.embedded.Addr(), "tube": "cbsd_" + pool,
		}, nil
	case b.kind == "zeromq":
		ln, err := net.Listen("tcp", "127.0.0.1:0") // a place that is free
		if err != nil {
			return nil, err
		}
		return map[string]any{"uri": "tcp://" + ln.Addr().String(), "tube": "cbsd_" + pool}, ln.Close()
	}
	return map[string]any{"uri": b.uri, "tube": demoTubes + pool}, nil
}

// tell says what carries the jobs.
func (b demoBroker) tell() string {
	switch {
	case b.embedded != nil:
		return "a broker (NATS JetStream, built\nin) at " + b.embedded.Addr()
	case b.kind == "zeromq":
		return "no broker (ZeroMQ: each agent\nlistens for its clients)"
	}
	return fmt.Sprintf("your broker (%s)\nat %s", b.kind, withoutSecrets(b.uri))
}

// close ends what the demo brought, and tells what stays.
func (b demoBroker) close(w io.Writer) error {
	if b.embedded != nil {
		return b.embedded.Close()
	}
	if !b.used {
		return nil
	}
	fmt.Fprintf(w, "\nOn the broker the queues %s* may stay, empty within a minute.\n", demoTubes)
	return b.sweep()
}

// sweep removes the replies that nobody has read where the broker does not do so
// itself after demoReplyTTL: there is no agent any more.
func (b demoBroker) sweep() error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	opener := all.Opener{ClientOnly: true}
	open, closer, err := opener.Open(ctx, b.kind, bus.Config{URI: b.uri})
	if err != nil {
		return err
	}
	defer closer.Close()
	_, err = open.Sweep(ctx, func(tube string) bool { return strings.HasPrefix(tube, demoTubes) }, 0)
	return err
}
