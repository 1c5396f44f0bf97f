package client

import (
	"context"
	"encoding/json"
	"io"

	"github.com/cbsd/cbsdmq"
	"github.com/cbsd/cbsdmq/bus"
)

// An Exchange is one job as the original client submits it: any body, and the
// replies to the tube that is named after the broker's number for it, or after
// the body's JobID.
type Exchange struct {
	ID        uint64 // the broker's number
	ReplyTube string

	in    bus.Consumer
	queue []bus.Delivery
	ended bool
}

// NewExchange puts body on the tube as it is. An error with CodeGaveUp says that
// it is not known whether the broker has it: it must not be put again, since an
// original agent would run it again.
func NewExchange(ctx context.Context, b Bus, tube, prefix string, body []byte) (*Exchange, error) {
	r := b.Put(ctx, bus.Message{Tube: bus.Tube{Name: tube}, Body: body})[0]
	if doubt, err := putError(r.Err, len(body)); err != nil {
		if doubt {
			err = cbsdmq.Errorf(cbsdmq.CodeGaveUp, "", "it is not known whether the broker has the job: %w", err)
		}
		return nil, err
	}
	e := &Exchange{ID: r.ID, ReplyTube: bus.MailboxName(prefix, r.ID)}
	var named struct{ JobID uint64 }
	if json.Unmarshal(body, &named) == nil && named.JobID != 0 {
		e.ReplyTube = bus.MailboxName(prefix, named.JobID)
	}
	var err error
	e.in, err = b.Consume(ctx, bus.ConsumeOptions{
		Tubes:   []bus.Tube{{Name: e.ReplyTube, Kind: bus.Mailbox}},
		MaxBody: maxReply,
	})
	if err != nil {
		return nil, brokerError(err)
	}
	return e, nil
}

// Next waits for the next reply. After the final one it returns io.EOF.
func (e *Exchange) Next(ctx context.Context) (cbsdmq.Reply, error) {
	if e.ended {
		return cbsdmq.Reply{}, io.EOF
	}
	if len(e.queue) == 0 {
		ds, err := e.in.Receive(ctx, 16)
		if ctx.Err() != nil && len(ds) == 0 {
			return cbsdmq.Reply{}, cbsdmq.Errorf(cbsdmq.CodeGaveUp, "", "stopped waiting: %w", context.Cause(ctx))
		}
		if err != nil {
			return cbsdmq.Reply{}, brokerError(err)
		}
		e.queue = ds
		_ = e.in.Ack(ctx, ds...) // where it is lost the broker drops them in time
	}
	r, err := cbsdmq.ParseReply(e.queue[0].Body)
	e.queue = e.queue[1:]
	e.ended = err == nil && r.Final()
	return r, err
}

// Close ends the exchange. The job goes on.
func (e *Exchange) Close() error { return e.in.Close() }
