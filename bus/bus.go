// Package bus is what cbsdmq needs of a broker: take a message, keep it, hand
// it out, forget it when told to. Since an agent writes a job into its pool's
// journal before it acknowledges it, nothing more is needed: no leases, no
// heartbeats, no order, no redelivery of long jobs.
//
// A driver is one folder: it implements Driver and Conn for one broker and does
// not reconnect. New wraps a driver into a Bus, which does, in the same way for
// all brokers. Package bustest is this contract as tests.
package bus

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// A Kind says what a tube is for; brokers keep the two in different ways.
type Kind int

const (
	// Queue is a pool's work: jobs, or requests of the control lane. Messages
	// stay until they are acknowledged, or until their TTL where they have one.
	Queue Kind = iota
	// Mailbox holds the replies to one client, which may come to read them
	// later. What nobody has read is gone after its TTL; the tube leaves
	// nothing behind.
	Mailbox
)

// A Tube is a named place for messages on the broker. It exists as soon as it
// is named.
type Tube struct {
	Name string // [A-Za-z0-9_.:-]+, at most 200 bytes
	Kind Kind
}

// ValidTube reports whether name can be the name of a Tube. A broker may take
// fewer.
func ValidTube(name string) bool {
	for i := range len(name) {
		switch c := name[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
		case c == '_', c == '.', c == ':', c == '-':
		default:
			return false
		}
	}
	return name != "" && len(name) <= 200
}

// A Message is what Put hands to the broker.
type Message struct {
	Tube Tube
	Body []byte
	TTL  time.Duration // how long it is kept unread; 0 = for ever. Without Caps.TTL see Expire
}

// A Result says what became of one message of a Put.
type Result struct {
	// ID is the broker's number for the message, 0 where it has none.
	ID uint64
	// Err is nil if and only if the broker has confirmed the message. With
	// ErrTooLarge, ErrBadTube or ErrFull it was not stored; with any other error
	// that is not known.
	Err error
}

// A Delivery is a message that the broker handed out and has not yet been told
// to forget.
type Delivery struct {
	Tube string
	ID   uint64 // the broker's number
	Body []byte // nil if the body was longer than ConsumeOptions.MaxBody
	Size int    // bytes of the body, also where Body is nil

	// Ref belongs to the driver.
	Ref any
}

// ConsumeOptions name what a Consumer receives.
type ConsumeOptions struct {
	Tubes   []Tube // all of one Kind
	MaxBody int    // a longer body is discarded while it is read; 0 = no limit

	// Alone: nobody else is expected to read these tubes, so that more may be sent
	// ahead than was asked for, where that keeps the order of what comes back.
	Alone bool
}

// Caps are the facts in which brokers differ.
type Caps struct {
	Name    string // of the broker, as in the configuration's key "broker"
	TTL     bool   // the broker itself drops messages past their TTL
	Durable bool   // a confirmed message survives the broker's restart, where the broker is configured so
	Order   bool   // messages of one sender on one connection arrive in their order, barring redelivery
	MaxBody int    // largest body in bytes with the broker's default settings; 0 = larger than anything we send

	// Brokerless: there is no server that keeps a message for a Queue. Put waits
	// until a consumer has acknowledged it, which confirms it. Until then it is
	// its sender's: where Put ends with the code unreachable, nothing of it is
	// left, and where the sender's connection ends it is not delivered any more.
	// Mailboxes are kept, in the agent's memory.
	Brokerless bool
}

// Info is what Inspect finds out about a broker and a tube.
type Info struct {
	Server    string // name and version, as the broker says them
	Durable   bool   // it is configured to keep confirmed messages over its restart
	Advice    string // what may be lost, when it is not or when the power fails, and the line that mends it; or which right is missing
	MaxBody   int    // largest body it takes, 0 = unknown
	Ready     int    // messages in the tube that wait for a consumer; -1 = unknown
	Consumers int    // consumers of the tube, ours included; -1 = unknown
	// IDBase is the smallest id that this incarnation of the broker can have
	// given to a message put since it started, 0 where ids never begin again.
	IDBase uint64
	// Instance names this incarnation: it changes whenever the broker starts
	// anew. "" = unknown.
	Instance string
}

// A Driver knows how to reach one broker.
type Driver interface {
	// Dial opens one connection. It returns within ctx. An error that another
	// attempt cannot mend (wrong password, bad certificate) is a *Permanent.
	Dial(ctx context.Context) (Conn, error)
	Caps() Caps
	// Addr names the broker in messages to people, without secrets.
	Addr() string
}

// A Conn is one connection to the broker. After an error other than
// ErrTooLarge, ErrGone, ErrBadTube and the end of a caller's ctx it is dead,
// and every call fails until Close. Put, Expire and Inspect may be called concurrently,
// also while consumers receive.
type Conn interface {
	// Put hands messages over, in order, and returns when each is confirmed or
	// failed: result i belongs to message i.
	Put(ctx context.Context, ms ...Message) []Result
	Consume(ctx context.Context, o ConsumeOptions) (Consumer, error)
	// Expire removes message id of the tube if it is there unread and older
	// than age. Drivers with Caps.TTL return nil and do nothing.
	Expire(ctx context.Context, tube string, id uint64, age time.Duration) error
	// Sweep removes messages older than age from the tubes that match, but from
	// those that somebody consumes, and returns how many it removed. Drivers
	// with Caps.TTL do nothing.
	Sweep(ctx context.Context, match func(tube string) bool, age time.Duration) (removed int, err error)
	Inspect(ctx context.Context, t Tube) (Info, error)
	// Close ends the connection and its consumers. Deliveries that were not
	// acknowledged go back to their tubes.
	Close() error
}

// A Consumer hands out the messages of its tubes. It is for one goroutine at a
// time; Close may be called from another.
type Consumer interface {
	// Receive waits for messages and returns at least one and at most max of
	// them. When ctx ends it returns ctx's error and the consumer stays usable.
	Receive(ctx context.Context, max int) ([]Delivery, error)
	// Ack makes the broker forget deliveries. It need not wait for the
	// broker's word: where an acknowledgement is lost the message comes again.
	Ack(ctx context.Context, ds ...Delivery) error
	// Release puts deliveries back, for any consumer, after delay.
	Release(ctx context.Context, delay time.Duration, ds ...Delivery) error
	// Age is how long ago the message was put, by the broker's clock.
	Age(ctx context.Context, d Delivery) (time.Duration, error)
	// Close gives unacknowledged deliveries back.
	Close() error
}

// Errors that drivers return, wrapped or not.
var (
	// ErrTooLarge: the body is larger than the broker takes. It was not stored.
	ErrTooLarge = errors.New("larger than the broker takes")
	// ErrGone: the delivery belongs to a connection that was lost; the message
	// has gone back to its tube.
	ErrGone = errors.New("the delivery has gone back to its tube")
	// ErrBadTube: the broker cannot have a tube of that name. Nothing was sent.
	ErrBadTube = errors.New("not a name for a tube")
	// ErrFull: the broker has no room, or takes nothing any more. It was not stored.
	ErrFull = errors.New("the broker takes no messages")
	// ErrOutage: the broker was lost in between. Nothing was sent.
	ErrOutage = errors.New("the broker was lost in between")
	// ErrClosed: Close was called.
	ErrClosed = errors.New("closed")
)

// A Permanent is a failure to connect that trying again does not mend.
type Permanent struct{ Err error }

func (p *Permanent) Error() string { return p.Err.Error() }
func (p *Permanent) Unwrap() error { return p.Err }

// MailboxName is the tube of the replies that go to n.
func MailboxName(prefix string, n uint64) string { return fmt.Sprintf("%s%d", prefix, n) }

// ControlMailbox is the tube of the responses to a requester of the control
// lane.
func ControlMailbox(prefix, ulid string) string { return prefix + "c" + ulid }
