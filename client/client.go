// Package client gives jobs to the agent of a pool and follows them.
//
//	c, err := client.Open(ctx, client.Options{Bus: b, Pool: "pool1", Tube: "cbsd_pool1", ReplyPrefix: "cbsd_pool1_result_id"})
//	...
//	defer c.Close()
//	final, err := c.Run(ctx, client.Job{Command: "jls", Args: []cbsdmq.Arg{{Name: "header", Value: "0"}}}, nil)
//
// A job has an id that the client makes, so it can be submitted again where it
// is not known whether it arrived: the agent runs it once. What was submitted
// can be left, and followed from anywhere by its id until its retention ends.
//
// Errors are *cbsdmq.Error: CodeRefused where the request breaks a rule,
// CodeUnreachable where the broker does not answer, CodeGaveUp where the agent
// does not, or where the caller's ctx ended; the job may well go on then.
package client

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/cbsd/cbsdmq"
	"github.com/cbsd/cbsdmq/bus"
)

// Bus is what a client needs of a broker; *bus.Bus is one. Its methods wait for
// a broker that is out of reach until their ctx ends.
type Bus interface {
	Put(ctx context.Context, ms ...bus.Message) []bus.Result
	Consume(ctx context.Context, o bus.ConsumeOptions) (bus.Consumer, error)
	Expire(ctx context.Context, tube string, id uint64, age time.Duration) error
	Inspect(ctx context.Context, t bus.Tube) (bus.Info, error)
}

// Options of a Client. Bus, Tube and ReplyPrefix are needed.
type Options struct {
	Bus         Bus
	Pool        string // the agent of any other pool refuses our jobs; "" where it is not known
	Tube        string
	ReplyPrefix string
	Sender      string // who asks, as the agent shows it
	// Sign signs jobs and requests, for agents that look at signatures; nil: they
	// are not signed.
	Sign *cbsdmq.Signer
	Log  *slog.Logger // nil: no log

	// ConnectTimeout is how long a broker that is out of reach is waited for.
	// 0 = 30 s.
	ConnectTimeout time.Duration
	// RequestTimeout is how long the agent has to answer a request. 0 = 10 s.
	RequestTimeout time.Duration
	// AcceptTimeout is how long the agent has to take a job. 0 = 30 s.
	// Negative: no end of waiting, neither for this nor for a sign of life. An
	// original agent gives no sign before its job has ended.
	AcceptTimeout time.Duration

	// Unanswered is called for each request that the agent has not answered a
	// second after it could have: so that a person can be told what is waited for.
	// It may be called by several goroutines at once; nil: nobody is told.
	Unanswered func()
	// Follow is the command line by which a person comes back to a job that was
	// left, for hints; nil: `cbsdmq follow` with the job's printed id.
	Follow func(id string) string
}

// How the agent is asked whether a job goes on.
const (
	statusEvery = 30 * time.Second
	maxSilent   = 3 // unanswered requests in a row
)

// A Client is a session with the agent of one pool. It has one address for
// replies; its methods may be called concurrently. Replies of an original agent
// do not say which job they belong to: there, a session can have one job at a
// time.
type Client struct {
	o       Options
	log     *slog.Logger
	address uint64 // JobID of our jobs: names the mailbox of replies
	session string // ULID: names the mailbox of responses
	replies string
	control string

	in   bus.Consumer
	life context.Context
	end  context.CancelCauseFunc // with what every call returns from then on
	done chan struct{}           // closed when receive has returned
	asks sync.WaitGroup          // requests on their way; grows under mu

	seq      atomic.Uint64 // of requests
	instance atomic.Value  // of the broker: a string

	mu      sync.Mutex
	waiting map[string]chan cbsdmq.Response // by Req
	jobs    map[string]*inbox               // own jobs by ULID, also by those that the agent knows them by
	ended   []*inbox                        // those that nobody follows, oldest first
}

// Open begins a session: the mailboxes are there when it returns. ctx is for
// Open alone.
func Open(ctx context.Context, o Options) (*Client, error) {
	o.ConnectTimeout = or(o.ConnectTimeout, 30*time.Second)
	o.RequestTimeout = or(o.RequestTimeout, 10*time.Second)
	o.AcceptTimeout = or(o.AcceptTimeout, 30*time.Second)
	if o.Follow == nil {
		o.Follow = func(id string) string { return "cbsdmq follow " + id }
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	session, err := newULID()
	if err != nil {
		return nil, err
	}
	address, err := newAddress()
	if err != nil {
		return nil, err
	}
	c := &Client{
		o: o, log: o.Log.With("pool", o.Pool),
		address: address, session: session,
		replies: bus.MailboxName(o.ReplyPrefix, address),
		control: bus.ControlMailbox(o.ReplyPrefix, session),
		done:    make(chan struct{}),
		waiting: make(map[string]chan cbsdmq.Response),
		jobs:    make(map[string]*inbox),
	}
	c.life, c.end = context.WithCancelCause(context.Background())
	ctx, cancel := context.WithTimeout(ctx, o.ConnectTimeout)
	defer cancel()
	c.in, err = o.Bus.Consume(ctx, bus.ConsumeOptions{
		Tubes:   []bus.Tube{{Name: c.replies, Kind: bus.Mailbox}, {Name: c.control, Kind: bus.Mailbox}},
		MaxBody: maxReply,
	})
	if err != nil {
		return nil, brokerError(err)
	}
	c.instance.Store("")
	if info, err := o.Bus.Inspect(ctx, c.tube()); err == nil {
		c.instance.Store(info.Instance)
	}
	go c.receive()
	return c, nil
}

// maxReply bounds a reply of an original agent; ours has at most JobMax bytes.
const maxReply = 4 << 20

// Close ends the session. Jobs go on; requests of the session that nobody has
// answered are taken back. The Bus stays open.
func (c *Client) Close() error {
	c.mu.Lock()
	c.end(bus.ErrClosed)
	c.mu.Unlock()
	c.asks.Wait()
	<-c.done
	return c.in.Close()
}

func (c *Client) tube() bus.Tube { return bus.Tube{Name: c.o.Tube} }

// pool is what errors call the pool.
func (c *Client) pool() string {
	if c.o.Pool == "" {
		return "tube " + c.o.Tube
	}
	return "pool " + c.o.Pool
}

// receive hands out what comes to the mailboxes until the session ends.
func (c *Client) receive() {
	defer close(c.done)
	for {
		ds, err := c.in.Receive(c.life, 64)
		if c.life.Err() != nil && len(ds) == 0 {
			return
		}
		if err != nil {
			if _, ok := errors.AsType[*bus.Permanent](err); ok || errors.Is(err, bus.ErrClosed) {
				c.end(brokerError(err))
				return
			}
			c.log.Warn("receiving replies failed", "err", err)
			c.sleep(time.Second)
			continue
		}
		for _, d := range ds {
			c.deliver(d)
		}
		// Also when the session has ended since: the mailbox is to be left empty.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(c.life), 5*time.Second)
		_ = c.in.Ack(ctx, ds...) // where it is lost they come again, and are known then
		cancel()
	}
}

func (c *Client) sleep(d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-c.life.Done():
	}
}

func (c *Client) deliver(d bus.Delivery) {
	if d.Tube == c.control {
		r, err := cbsdmq.ParseResponse(d.Body)
		if err != nil {
			c.log.Warn("response not understood", "err", err)
			return
		}
		c.mu.Lock()
		answer := c.waiting[r.Req]
		delete(c.waiting, r.Req)
		c.mu.Unlock()
		if answer != nil {
			answer <- r
		}
		return
	}
	r, err := cbsdmq.ParseReply(d.Body)
	if err != nil {
		c.log.Warn("reply not understood", "err", err)
		return
	}
	c.route(r)
}

// brokerError gives errors of the bus the code of a broker that cannot be used.
func brokerError(err error) error {
	if cbsdmq.CodeOf(err) != cbsdmq.CodeInternal {
		return err
	}
	if errors.Is(err, bus.ErrBadTube) {
		return cbsdmq.Errorf(cbsdmq.CodeBadConfig, "tube", "%w", err)
	}
	return cbsdmq.Errorf(cbsdmq.CodeUnreachable, "", "the broker: %w", err)
}

// stopped is the error of a call that ended because its ctx or the session did.
func (c *Client) stopped(ctx context.Context) error {
	if err := context.Cause(c.life); err != nil {
		if errors.Is(err, bus.ErrClosed) {
			return cbsdmq.Errorf(cbsdmq.CodeGaveUp, "", "the session was %w", err)
		}
		return err
	}
	return cbsdmq.Errorf(cbsdmq.CodeGaveUp, "", "stopped waiting: %w", context.Cause(ctx))
}

func newULID() (string, error) {
	id, err := ulid.New(ulid.Now(), rand.Reader)
	if err != nil {
		return "", fmt.Errorf("making an id: %w", err)
	}
	return id.String(), nil
}

// newAddress returns a random number that no broker reaches by counting and
// that is exact in a float64, as other languages read numbers in JSON.
func newAddress() (uint64, error) {
	const low = 1 << 52
	var b [8]byte
	if _, err := rand.Read(b[:]); err != nil {
		return 0, fmt.Errorf("making an address: %w", err)
	}
	return low | binary.LittleEndian.Uint64(b[:])&(low-1), nil
}

func or(d, standard time.Duration) time.Duration {
	if d == 0 {
		return standard
	}
	return d
}
