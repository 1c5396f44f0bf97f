// Package nats carries a bus.Bus over NATS JetStream 2.9 or later: an external
// server, or the one that this package can run in its own process (Opener).
//
// A queue is a stream of its own, with work-queue retention and one pull
// consumer that all its readers share. All mailboxes are subjects of one
// stream; a mailbox's consumer is there while somebody reads it, so that ten
// thousand mailboxes that have been emptied leave nothing on the server.
//
// In a cluster three servers keep a stream, or as many as the configuration
// says, and any of them may be away.
//
// Streams are created by whoever comes first. One that is there is used as it
// is, but that one which was created here gets the copies that it lacks: an
// administrator may create it beforehand, or change it later. A server before 2.11 cannot drop single messages by age; see
// Expire there. Whatever is past its TTL is at least not delivered any more, and
// what is in a mailbox goes after MailboxMaxAge.
//
// The id of a message is its sequence in the stream plus the milliseconds from
// 2026 to the stream's creation. So ids do not begin again when a stream is
// deleted and made anew, unless it took in more than a thousand messages a
// second all its life.
//
// A user whose rights are limited needs to publish and subscribe to cbsdmq.>,
// _INBOX.>, $JS.API.> and $JS.ACK.>.
package nats

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"time"

	"github.com/cbsd/cbsdmq/bus"
	"github.com/cbsd/cbsdmq/bus/internal/tlsconf"
)

const (
	// DefaultPort is added to addresses that name none.
	DefaultPort = "4222"

	// AckWait is how long the server waits for the acknowledgement of what it
	// delivered before it delivers it again. It matters only when a reader
	// dies: one that closes gives its messages back at once.
	AckWait = 5 * time.Second

	// MailboxMaxAge is how long a mailbox keeps a reply at most, whatever its
	// TTL.
	MailboxMaxAge = 7 * 24 * time.Hour

	// headroom is what our headers need of the server's max_payload.
	headroom = 256
)

// A Driver reaches NATS. It may be used concurrently.
type Driver struct {
	addr     string
	targets  func() ([]target, error) // asked at each Dial
	embedded bool
	replicas int
	first    atomic.Uint32 // which of the targets is tried first
	noTTL    atomic.Bool   // the server last dialled is too old
}

// New returns the driver for cfg. With "uri": "embedded" it is a client of the
// broker that another process runs in cfg.EmbeddedDir; an Opener is needed to
// run it in this one. The error names the key that is wrong.
func New(cfg bus.Config) (*Driver, error) {
	if cfg.URI == embeddedURI {
		return newEmbeddedClient(cfg, nil), nil
	}
	servers, err := addresses.Parse(cfg)
	if err != nil {
		return nil, fmt.Errorf("uri %q: %w", redact(cfg.URI), err)
	}
	if err := checkLogin(cfg); err != nil {
		return nil, err
	}
	list := make([]string, len(servers))
	for i, s := range servers {
		list[i] = s.Addr
	}
	d := &Driver{
		addr:     strings.Join(list, ","),
		replicas: cfg.Replicas,
		targets: func() ([]target, error) {
			// The files are read again each time: certificates are renewed.
			tls, err := tlsconf.Load(cfg)
			if err != nil {
				return nil, &bus.Permanent{Err: err}
			}
			login, err := login(cfg)
			if err != nil {
				return nil, &bus.Permanent{Err: err}
			}
			es := make([]target, len(servers))
			for i, s := range servers {
				es[i] = newTarget(s, tls, login)
			}
			return es, nil
		},
	}
	d.first.Store(rand.Uint32N(uint32(len(servers)))) // so that each has its share
	return d, nil
}

// Addr is the list of servers, without secrets.
func (d *Driver) Addr() string { return d.addr }

// Caps are those of a server of today with its default settings. Once an older
// one has been dialled, TTL is what that server can do.
func (d *Driver) Caps() bus.Caps {
	return bus.Caps{
		Name:    "nats",
		TTL:     !d.noTTL.Load(),
		Durable: true,
		Order:   true,
		MaxBody: 1<<20 - headroom,
	}
}
