package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/cbsd/cbsdmq"
	"github.com/cbsd/cbsdmq/bus"
	"github.com/cbsd/cbsdmq/cbsd"
	"github.com/cbsd/cbsdmq/journal"
)

// A HandedBack is what became of one job of a HandBack.
type HandedBack struct {
	ID     string // printed
	As     uint64 // the broker's number of it now, 0 where it stays in the journal
	Reason string // why it stays, or what is not as before; "" else
}

const (
	handBackDoubt = "it was being handed back to the tube when that was interrupted: it may be there, and may have run"
	handBackHint  = "look on the tube, and at the guest, before you submit it again"
)

// HandBack puts the jobs of a journal that have not begun on the tube again, in
// their order, in the form that the original agents understand, and ends them in
// the journal. No Server may serve the pool. A job that the originals cannot do as
// it was asked for stays in the journal.
//
// Before a job is put, the journal says that it is about to be; after, as what it
// was put. So a job of which only the first is known, after a crash, ends unknown:
// here when HandBack is called again, or when a Server starts.
func HandBack(ctx context.Context, pool string, j *journal.Journal, e Endpoint) ([]HandedBack, error) {
	rows, err := j.Reader().Open(ctx)
	if err != nil {
		return nil, err
	}
	var done []HandedBack
	space := idSpace{outages: -1}
	for _, row := range rows {
		if !row.Begun.IsZero() || row.Flags&journal.Cancelled != 0 {
			continue // the next agent has its end
		}
		var h HandedBack
		if err = space.look(ctx, j.Reader(), e); err == nil {
			h, err = handBack(ctx, pool, j, e, space, row)
		}
		if err != nil {
			return done, fmt.Errorf("job %s: %w", cbsdmq.PrintedID(pool, row.ID), err)
		}
		done = append(done, h)
	}
	return done, nil
}

func handBack(ctx context.Context, pool string, j *journal.Journal, e Endpoint, space idSpace, row *journal.Job) (HandedBack, error) {
	h := HandedBack{ID: cbsdmq.PrintedID(pool, row.ID)}
	if row.Flags&journal.HandingBack != 0 {
		h.Reason = handBackDoubt + "; it ends unknown"
		return h, endHandedBack(j, row, reply(cbsdmq.Unknown, cbsdmq.ExitUnknown, handBackDoubt, handBackHint), nil)
	}
	owes, err := j.Reader().Addresses(ctx, row.Seq)
	if err != nil {
		return h, err
	}
	job, why := asOriginal(row)
	if why != "" {
		h.Reason = why
		return h, nil
	}
	replies := 0
	for _, o := range owes {
		if o.State == journal.Owed && o.Address.Bus != e.Name {
			h.Reason = fmt.Sprintf("who waits for it at %s is told that it was handed back, by the next agent that serves the pool there", o.Address.Bus)
		}
		n, err := strconv.ParseUint(strings.TrimPrefix(o.Address.Tube, e.Prefix), 10, 64)
		if o.State != journal.Owed || o.Address.Bus != e.Name || err != nil {
			continue
		}
		if space.stranger(o.Address, e.Prefix) {
			h.Reason = "who waits for it gets no reply: the broker has begun its ids again, and it would reach a stranger"
			continue
		}
		if replies++; replies == 1 {
			job.JobID = n
		}
	}
	if replies > 1 {
		h.Reason = fmt.Sprintf("only one of %d that wait for it gets the reply", replies)
	}
	body, err := job.MarshalJSON()
	if err != nil {
		return h, err
	}
	if err := j.Commit(&journal.Batch{Mark: []journal.Mark{{Seq: row.Seq, Flags: journal.HandingBack}}}); err != nil {
		return h, err
	}
	put := e.Bus.Put(ctx, bus.Message{Tube: bus.Tube{Name: e.Tube}, Body: body})[0]
	if put.Err != nil {
		return h, fmt.Errorf("putting it on tube %s: %w: it may be there", e.Tube, put.Err)
	}
	h.As = put.ID
	r := reply(cbsdmq.Cancelled, cbsdmq.ExitCancelled, fmt.Sprintf("handed back to tube %s, as %d", e.Tube, put.ID), "")
	muted := slices.DeleteFunc(owes, func(o journal.Owe) bool { return o.Address.Bus != e.Name })
	return h, endHandedBack(j, row, r, muted)
}

// endHandedBack ends a job in the journal. Nobody is told at muted: the agent that
// has it now replies, on its own broker.
func endHandedBack(j *journal.Journal, row *journal.Job, r cbsdmq.Reply, muted []journal.Owe) error {
	result, err := json.Marshal(r)
	if err != nil {
		return err
	}
	b := journal.Batch{Finish: []*journal.Finish{{Seq: row.Seq, State: r.State, Result: result, Plan: keepWithout(row.Plan)}}}
	for _, o := range muted {
		b.Sent = append(b.Sent, journal.SentReply{Seq: row.Seq, Bus: o.Address.Bus, Tube: o.Address.Tube, State: journal.Undeliverable})
	}
	return j.Commit(&b)
}

// plain are values that mean the same to the shell that the originals give them
// to.
var plain = regexp.MustCompile(`^[A-Za-z0-9_.,:/@%+=-]*$`)

// asOriginal makes a job of a row that an original agent runs as ours would, or
// says why there is none.
func asOriginal(row *journal.Job) (job cbsdmq.Job, why string) {
	var plan cbsd.Plan
	if err := json.Unmarshal(row.Plan, &plan); err != nil || len(plan.Argv) == 0 {
		return job, "its plan cannot be read"
	}
	switch {
	case row.State == cbsdmq.Held:
		return job, "it is held: release or drop it first"
	case !row.Expires.IsZero():
		return job, "it expires, which the original does not know"
	}
	job.Command = plan.Command
	for _, a := range plan.Argv[1:] {
		name, value, isArg := strings.Cut(a, "=")
		switch {
		case !isArg:
			return job, fmt.Sprintf("it has the word %q, and the original knows none", a)
		case !plain.MatchString(value):
			return job, fmt.Sprintf("%s has characters that the original gives to the shell", name)
		}
		job.Args = append(job.Args, cbsdmq.Arg{Name: name, Value: value})
	}
	return job, ""
}
