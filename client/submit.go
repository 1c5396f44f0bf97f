package client

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/cbsd/cbsdmq"
	"github.com/cbsd/cbsdmq/bus"
)

// A Job is what to submit.
type Job struct {
	Command string
	Args    []cbsdmq.Arg
	Words   []string // positional arguments, after Args
	Stream  bool     // send output as it comes; Run sets it
	InOrder bool     // a command that only reads takes its place among those that change its guest
	Force   bool     // even if it cuts the pool off from its broker
	Key     string   // the sender's own name for the work: submitted twice, it is one job
	Expires time.Time
	// ID is for submitting a job again where it is not known whether the agent
	// has it. "" makes a new one.
	ID string
}

// Run submits a job and follows it to its end. f gets its output as it comes;
// with nil none is sent but the end of it, in the final reply.
func (c *Client) Run(ctx context.Context, job Job, f func(cbsdmq.Reply) error) (cbsdmq.Reply, error) {
	job.Stream = f != nil
	id, err := c.Submit(ctx, job)
	if err != nil {
		return cbsdmq.Reply{}, err
	}
	return c.Follow(ctx, id, 0, f)
}

// Submit puts a job on the pool's tube and returns its printed id (the id alone
// where Options.Pool is not known) when the broker has confirmed it.
//
// Where the confirmation got lost, it asks the agent, and submits the job again
// under the same id if the agent does not know it. If there is no agent to ask,
// the error has CodeGaveUp and the id is returned with it: the job may be on
// the tube.
func (c *Client) Submit(ctx context.Context, job Job) (string, error) {
	b, err := c.newInbox(job)
	if err != nil {
		return "", err
	}
	c.add(b)
	printed := b.id
	if c.o.Pool != "" {
		printed = cbsdmq.PrintedID(c.o.Pool, b.id)
	}
	doubt, err := c.put(ctx, b)
	if doubt {
		err = c.settle(ctx, b, err)
	}
	if err != nil {
		c.forget(b)
		if cbsdmq.CodeOf(err) != cbsdmq.CodeGaveUp {
			printed = ""
		}
		return printed, err
	}
	return printed, nil
}

// NewID makes the id of a job.
func NewID() (string, error) { return newULID() }

// Check checks a job as Submit does and as the agent will.
func (job Job) Check(pool, sender string) error {
	if job.ID == "" {
		job.ID = anyID
	}
	_, err := job.body(pool, sender, 1<<53-1, nil)
	return err
}

const anyID = "00000000000000000000000000"

func (job Job) body(pool, sender string, address uint64, sign *cbsdmq.Signer) ([]byte, error) {
	message := cbsdmq.Job{
		Command: job.Command, Args: job.Args, JobID: address,
		Meta: &cbsdmq.Meta{
			V: cbsdmq.MetaVersion, ID: job.ID, Pool: pool, Key: job.Key, Sender: sender,
			Stream: job.Stream, InOrder: job.InOrder, Force: job.Force, Words: job.Words, Expires: job.Expires,
		},
	}
	if sign != nil {
		if err := sign.SignJob(&message); err != nil {
			return nil, err
		}
	}
	body, err := json.Marshal(message)
	if err != nil {
		if e, ok := errors.AsType[*cbsdmq.Error](err); ok {
			return nil, e
		}
		return nil, cbsdmq.Errorf(cbsdmq.CodeRefused, "", "%w", err)
	}
	_, err = cbsdmq.ParseJob(body)
	return body, err
}

// newInbox makes the job's body, and checks it as the agent will.
func (c *Client) newInbox(job Job) (*inbox, error) {
	if job.ID == "" {
		var err error
		if job.ID, err = newULID(); err != nil {
			return nil, err
		}
	}
	body, err := job.body(c.o.Pool, c.o.Sender, c.address, c.o.Sign)
	if err != nil {
		return nil, err
	}
	return &inbox{id: job.ID, key: job.Key, stream: job.Stream, body: body, wake: make(chan struct{}, 1)}, nil
}

// put hands the job to the broker. With doubt it is not known whether the
// broker has it.
func (c *Client) put(ctx context.Context, b *inbox) (doubt bool, err error) {
	if c.life.Err() != nil {
		return false, c.stopped(ctx)
	}
	pctx, cancel := context.WithTimeout(ctx, c.o.ConnectTimeout)
	defer cancel()
	defer context.AfterFunc(c.life, cancel)()
	err = c.o.Bus.Put(pctx, bus.Message{Tube: c.tube(), Body: b.body})[0].Err
	_, permanent := errors.AsType[*bus.Permanent](err)
	switch {
	case err == nil:
		return false, nil
	case c.life.Err() != nil:
		return false, c.stopped(ctx)
	case errors.Is(err, bus.ErrTooLarge):
		return false, cbsdmq.Errorf(cbsdmq.CodeRefused, "", "the job has %d bytes: %w", len(b.body), err).
			WithHint("send less, or raise the broker's limit")
	case errors.Is(err, bus.ErrFull):
		return false, cbsdmq.Errorf(cbsdmq.CodeUnreachable, "", "the job was not submitted: %w", err).
			WithHint("make room for the broker, then submit it again")
	case permanent, errors.Is(err, bus.ErrBadTube), cbsdmq.CodeOf(err) == cbsdmq.CodeUnreachable:
		return false, brokerError(err) // nothing was sent
	}
	return true, err
}

// settle finds out what became of a job whose confirmation was lost by cause.
func (c *Client) settle(ctx context.Context, b *inbox, cause error) error {
	for range maxSilent {
		if !b.open() {
			return nil // it was answered meanwhile
		}
		_, err := c.ask(ctx, cbsdmq.Request{Op: cbsdmq.OpStatus, Job: b.id})
		switch {
		case err == nil, !b.open():
			return nil
		case cbsdmq.CodeOf(err) == cbsdmq.CodeNotFound:
			// It may lie on the tube all the same: the agent takes one of the two.
			doubt, err := c.put(ctx, b)
			if !doubt {
				return err
			}
			cause = err
		case ctx.Err() != nil || c.life.Err() != nil || !silent(err):
			return c.inDoubt(b, err)
		default:
			cause = errors.Join(cause, err)
		}
	}
	return c.inDoubt(b, cause)
}

func (c *Client) inDoubt(b *inbox, cause error) error {
	return cbsdmq.Errorf(cbsdmq.CodeGaveUp, "", "it is not known whether the broker has the job: %w", cause).
		WithHint("if the agent is one of cbsdmq, job %s can be submitted again under its id: it runs once", b.id)
}

// lost submits the job again if the broker has started anew since: it may have
// lost what it had confirmed. Only for a job that an agent says it does not
// have, so that it cannot run twice.
func (c *Client) lost(ctx context.Context, b *inbox) {
	info, err := c.o.Bus.Inspect(ctx, c.tube())
	if err != nil || info.Instance == "" || c.instance.Swap(info.Instance) == info.Instance {
		return
	}
	c.log.Info("job submitted again: the broker was restarted", "job", b.id)
	if _, err := c.put(ctx, b); err != nil {
		c.log.Warn("submitting the job again failed", "job", b.id, "err", err)
	}
}
