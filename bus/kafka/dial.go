package kafka

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/cbsd/cbsdmq/bus"
	"github.com/cbsd/cbsdmq/bus/internal/endpoint"
	"github.com/cbsd/cbsdmq/bus/internal/tlsconf"
	"github.com/cbsd/cbsdmq/bus/internal/wire"
)

const (
	dialTimeout = 10 * time.Second // of a further connection

	// maxRead is more than any answer has.
	maxRead = 64 << 20
)

// idleTimeout is when a connection that nobody needs is closed by us, before the
// broker does it (after 10 minutes) and it looks like a fault. One that has a
// session is used more often than that. Tests make it shorter.
var idleTimeout = 2 * time.Minute

// Dial connects to the first broker that lets us.
func (d *Driver) Dial(ctx context.Context) (bus.Conn, error) {
	return endpoint.First(ctx, d.servers, d.dial)
}

func (d *Driver) dial(ctx context.Context, s endpoint.Server, within time.Duration) (bus.Conn, error) {
	c := newConn(d, s.Addr)
	var err error
	if s.TLS {
		if c.tls, err = tlsconf.For(d.cfg, s.Addr); err != nil {
			return nil, c.Fail(err)
		}
	}
	c.user, _ = s.Login(d.cfg)
	if c.mechanism, err = d.mechanisms(s); err == nil {
		c.main, err = c.connect(ctx, false)
	}
	if err != nil {
		if ctx.Err() != nil {
			err = fmt.Errorf("connecting to Kafka at %s: %w", s.Addr, endpoint.NoAnswer(within, ctx.Err()))
		}
		return nil, c.Fail(err)
	}
	return c, nil
}

// A link is a client of the library. It has connections to one or more of the
// brokers; the end of one of them is the end of the conn. Requests that wait for
// messages hold up others of a link, so each consumer has its own.
type link struct {
	*kgo.Client
	adm      *kadm.Client
	consumes bool

	mu      sync.Mutex
	up      bool
	closed  bool
	sockets map[*socket]struct{}
	failure error        // of the latest dial
	seen    []*wire.Conn // while it is not up
}

// connect opens a link, of a consumer or for all else, and checks that there is a
// Kafka with what we need, that lets us in.
func (c *conn) connect(ctx context.Context, consumes bool) (*link, error) {
	l := &link{consumes: consumes, sockets: map[*socket]struct{}{}}
	cl, err := kgo.NewClient(
		kgo.SeedBrokers(c.addr),
		kgo.ClientID("cbsdmq"),
		kgo.SASL(c.mechanism...),
		kgo.Dialer(func(ctx context.Context, network, addr string) (net.Conn, error) {
			s, err := c.open(ctx, l, network, addr)
			if err != nil {
				return nil, err // not a nil *socket
			}
			return s, nil
		}),
		kgo.ConnIdleTimeout(idleTimeout),
		kgo.BrokerMaxReadBytes(maxRead),
		kgo.DisableClientMetrics(),
		kgo.MetadataMinAge(100*time.Millisecond),
		kgo.RetryBackoffFn(func(n int) time.Duration { return min(time.Duration(n)*50*time.Millisecond, 500*time.Millisecond) }),
		// All acks and idempotence are the library's defaults.
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerLinger(0),
		kgo.ProducerBatchMaxBytes(1<<20),
		kgo.ProducerBatchCompression(kgo.NoCompression()),
		kgo.RecordDeliveryTimeout(30*time.Second),
	)
	if err != nil {
		return nil, fmt.Errorf("connecting to Kafka at %s: %w", c.addr, err)
	}
	l.Client, l.adm = cl, kadm.NewClient(cl)
	c.adopt(l)
	resp, err := cl.SeedBrokers()[0].Request(ctx, versionsRequest())
	if err == nil {
		err = c.enough(resp.(*kmsg.ApiVersionsResponse))
	}
	if err != nil {
		err = l.explain(err, c)
		l.close()
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.up = true
	for s := range l.sockets {
		s.wire.Connected()
	}
	l.seen = nil
	return l, nil
}

func versionsRequest() *kmsg.ApiVersionsRequest {
	r := kmsg.NewPtrApiVersionsRequest()
	r.ClientSoftwareName, r.ClientSoftwareVersion = "cbsdmq", "1"
	return r
}

// enough checks that the broker has share groups that hand out single messages,
// and that they are switched on.
func (c *conn) enough(v *kmsg.ApiVersionsResponse) error {
	if err := kerr.ErrorForCode(v.ErrorCode); err != nil {
		return err
	}
	const feature = "share.version"
	has, known, on := false, false, false
	for _, k := range v.ApiKeys {
		has = has || k.ApiKey == kmsg.ShareFetch.Int16() && k.MaxVersion >= 2
	}
	for _, f := range v.SupportedFeatures {
		known = known || f.Name == feature
	}
	for _, f := range v.FinalizedFeatures {
		on = on || f.Name == feature && f.MaxVersionLevel >= 1
	}
	switch {
	case !has:
		return &bus.Permanent{Err: fmt.Errorf("kafka at %s has no share groups as of Kafka 4.2: upgrade it", c.addr)}
	case known && !on:
		return &bus.Permanent{Err: fmt.Errorf("kafka at %s has its share groups switched off: `kafka-features.sh --bootstrap-server %s upgrade --feature share.version=1`", c.addr, c.addr)}
	}
	return nil
}

// socket is a connection that the library has.
type socket struct {
	net.Conn
	wire *wire.Conn
	conn *conn
	link *link
}

func (c *conn) open(ctx context.Context, l *link, network, addr string) (*socket, error) {
	if err := c.Failed(); err != nil {
		return nil, err
	}
	w := &wire.Conn{}
	s := &socket{wire: w, conn: c, link: l}
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return nil, net.ErrClosed
	}
	l.sockets[s] = struct{}{}
	if l.up {
		w.Connected()
	} else {
		l.seen = append(l.seen, w)
	}
	l.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	nc, err := w.Opened(c.driver.dialer(ctx, network, addr))
	if err == nil && c.tls != nil {
		t := c.tls.Clone()
		t.ServerName, _, _ = net.SplitHostPort(addr)
		tc := tls.Client(nc, t)
		if err = tc.HandshakeContext(ctx); err != nil {
			nc.Close()
		}
		nc = tc
	}
	if err != nil {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.sockets, s)
		l.failure = err
		return nil, err
	}
	s.Conn = nc
	return s, nil
}

// Read ends the conn when the broker has ended the connection.
func (s *socket) Read(b []byte) (int, error) {
	n, err := s.Conn.Read(b)
	s.lost(err)
	return n, err
}

// Write ends the conn too, where it is a consumer's: nobody reads from a
// connection that is idle, and the library would open another one in its place.
// What the broker has handed out it frees when it learns that the first has gone,
// which may be while the other one is in use.
func (s *socket) Write(b []byte) (int, error) {
	n, err := s.Conn.Write(b)
	if s.link.consumes {
		s.lost(err)
	}
	return n, err
}

// lost ends the conn if err says that the connection has ended.
func (s *socket) lost(err error) {
	if err != nil && !errors.Is(err, net.ErrClosed) && !errors.Is(err, os.ErrDeadlineExceeded) && s.link.isUp() {
		_ = s.conn.Fail(fmt.Errorf("connection to Kafka lost: %w", err))
	}
}

func (s *socket) Close() error {
	s.link.mu.Lock()
	delete(s.link.sockets, s)
	s.link.mu.Unlock()
	return s.Conn.Close()
}

func (l *link) isUp() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.up && !l.closed
}

// close ends the link at once.
func (l *link) close() {
	l.mu.Lock()
	l.closed = true
	for s := range l.sockets {
		s.wire.Kill()
	}
	l.mu.Unlock()
	l.Client.Close()
}

// explain says in plain words why connecting failed, and wraps what trying again
// does not mend in a *bus.Permanent.
func (l *link) explain(err error, c *conn) error {
	if p, ok := errors.AsType[*bus.Permanent](err); ok {
		return p
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.failure != nil {
		err = l.failure
	}
	var head []byte
	for _, w := range l.seen {
		h, werr := w.Failure()
		if werr != nil {
			err = werr
		}
		if len(h) > 0 {
			head = h
		}
	}
	if why := c.refusal(err, head); why != "" {
		return &bus.Permanent{Err: fmt.Errorf("kafka at %s: %s (%w)", c.addr, why, err)}
	}
	switch {
	case c.tls == nil && len(head) > 1 && (head[0] != 0 || head[1] != 0): // no size of an answer
		return fmt.Errorf("connecting to Kafka at %s: what answers there does not speak Kafka's protocol, it says %q: %w", c.addr, head, err)
	case hungUp(err) && l.failure != nil && c.tls != nil:
		return fmt.Errorf("connecting to Kafka at %s: it hangs up on TLS, which the configuration asks for: %w", c.addr, err)
	case hungUp(err) && c.mechanism == nil:
		return fmt.Errorf("connecting to Kafka at %s: it hangs up; if it wants a login, the keys are user and password: %w", c.addr, err)
	}
	return fmt.Errorf("connecting to Kafka at %s: %w", c.addr, err)
}

// refusal returns "" if another attempt may succeed.
func (c *conn) refusal(err error, head []byte) string {
	host, _, _ := net.SplitHostPort(c.addr)
	if why := tlsconf.Reason(err, host); why != "" {
		return why
	}
	op, remote := errors.AsType[*net.OpError](err)
	switch {
	case remote && op.Op == "remote error" && strings.Contains(op.Error(), "certificate"):
		if c.tls == nil || c.tls.GetClientCertificate == nil {
			return "it asks for a certificate of the client; the keys cert and key name one"
		}
		return "it does not accept our certificate; the keys are cert and key"
	case errors.Is(err, kerr.SaslAuthenticationFailed):
		return fmt.Sprintf("it refuses user %q; the keys are user and password, and sasl where the user is known by another way to log in", c.user)
	case errors.Is(err, kerr.UnsupportedSaslMechanism):
		return "it offers no way to log in that is known here, or only one that shows the password; the key is sasl"
	case errors.Is(err, kerr.IllegalSaslState):
		return "it wants no login; leave user and password out"
	case c.tls == nil && len(head) > 0 && (head[0] == 0x15 || head[0] == 0x16): // an alert, a handshake
		return "it speaks TLS; the key is tls"
	}
	return ""
}

// hungUp reports whether the broker ended the connection without a word.
func hungUp(err error) bool {
	_, first := errors.AsType[*kgo.ErrFirstReadEOF](err)
	return first || errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET)
}
