package agent

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/cbsd/cbsdmq"
	"github.com/cbsd/cbsdmq/bus"
	"github.com/cbsd/cbsdmq/cbsd"
	"github.com/cbsd/cbsdmq/internal/senders"
	"github.com/cbsd/cbsdmq/journal"
)

// arrive reads a delivery. A body that is not a job, or may not be run, becomes
// a job that is refused at once; an error means that the delivery is to come
// again later.
func (s *Server) arrive(ctx context.Context, e Endpoint, c bus.Consumer, d bus.Delivery) (*arrival, error) {
	now := time.Now()
	job, err := s.parse(d)
	row := &journal.Job{
		Bus: e.Name, Command: printable(job.Command), Accepted: now,
	}
	addr := journal.Address{Bus: e.Name, Tube: bus.MailboxName(e.Prefix, d.ID), BrokerID: true}
	if job.JobID != 0 {
		addr.Tube, addr.BrokerID = bus.MailboxName(e.Prefix, job.JobID), false
	}
	a := &arrival{accept: &journal.Accept{Job: row, Address: addr}}
	if m := job.Meta; m != nil && cbsdmq.ValidULID(m.ID) {
		row.ID, row.Ident, row.Sender, row.Key, row.Expires = m.ID, m.ID, m.Sender, m.Key, m.Expires
		if err != nil {
			row.Sender = printable(m.Sender) // it may be what is wrong
		}
		if m.Stream {
			row.Flags |= journal.Stream
		}
	} else {
		row.Flags |= journal.Legacy
		if s.cfg.LegacyExpires > 0 {
			row.Expires = now.Add(s.cfg.LegacyExpires)
		}
		if err := s.identify(ctx, c, d, e, row); err != nil {
			return nil, err
		}
		if d.ID == 0 && err == nil { // a broker whose messages are numbered by their senders
			err = cbsdmq.Errorf(cbsdmq.CodeRefused, "", "the message has no number and the job no id: nothing would tell the next one like it from this one").
				WithHint("number the messages, or give each job an id: see docs/WIRE.md")
		}
	}
	var key *senders.Key
	if err == nil {
		if key, err = s.proveJob(&job, now); key != nil {
			row.Signer, row.SignKey = key.Name, key.ID()
		}
	}
	if err != nil && s.cfg.Senders != nil && row.Flags&journal.Legacy == 0 {
		a.accept.End = s.unproven(ctx, row, err)
		return a, nil
	}
	if err == nil {
		err = s.admit(job, now)
	}
	var plan cbsd.Plan
	if err == nil {
		plan, err = s.plan(job)
	}
	if err == nil {
		err = s.permit(key, job.Command, &plan)
	}
	if err == nil {
		err = s.checkName(ctx, plan)
	}
	if err == nil && (job.Meta == nil || !job.Meta.Force) {
		err = s.checkCarrier(ctx, plan)
	}
	if err == nil {
		var broken error
		if err, broken = s.checkKey(ctx, row, plan); broken != nil {
			return nil, broken
		}
	}
	if err != nil {
		row.Key = "" // the same work may be submitted again once it is right
		row.Guest = cbsd.GuestOf(job)
		a.accept.End = refusal(err)
		return a, nil
	}
	if plan.Class == cbsd.Read {
		row.Flags |= journal.Reads
		if job.Meta == nil || !job.Meta.InOrder {
			plan.Lanes = nil
		}
	}
	row.Guest = plan.Guest
	if row.Plan, err = json.Marshal(plan); err != nil {
		return nil, err
	}
	if s.suspects[cbsdmq.PrintedID(s.cfg.Pool, row.ID)] {
		row.Flags |= journal.Crashed
	}
	a.plan = plan
	return a, nil
}

// checkName refuses to make a guest whose name another pool of this host uses.
// CBSD knows a running VM by its name alone: stopping the one would stop the
// other.
func (s *Server) checkName(ctx context.Context, plan cbsd.Plan) error {
	arg, name := makes(plan)
	if name == "" || s.cfg.Elsewhere == nil {
		return nil
	}
	if pool := s.cfg.Elsewhere(ctx, name); pool != "" {
		return cbsdmq.Errorf(cbsdmq.CodeRefused, "CommandArgs."+arg, "%s of this host has, or is making, a guest %s", pool, name).
			WithHint("choose another name: CBSD tells running guests of one host apart by their names only")
	}
	return nil
}

// makes returns the name of the guest that plan makes, and the argument that
// has it.
func makes(plan cbsd.Plan) (arg, name string) {
	switch plan.Verb {
	case cbsd.Create, cbsd.Register:
		arg = "jname"
	case cbsd.Import:
		if _, renamed := plan.Arg("new_jname"); renamed {
			return "new_jname", plan.Guest
		}
		return "jname", plan.Guest
	case cbsd.Clone, cbsd.Rename:
		arg = "new"
	default:
		return "", ""
	}
	name, _ = plan.Arg(arg)
	return arg, name
}

func (s *Server) parse(d bus.Delivery) (cbsdmq.Job, error) {
	if d.Body == nil && d.Size > 0 {
		return cbsdmq.Job{}, cbsdmq.Errorf(cbsdmq.CodeRefused, "", "the job has %d bytes, more than %d", d.Size, cbsdmq.JobMax).
			WithHint("send less: put long texts into a file on the host and name the file")
	}
	return cbsdmq.ParseJob(d.Body)
}

// admit checks what concerns the job as a message; what concerns the command is
// for cbsd.Plan.
func (s *Server) admit(job cbsdmq.Job, now time.Time) error {
	m := job.Meta
	if m == nil {
		return nil
	}
	refuse := func(field, format string, args ...any) *cbsdmq.Error {
		return cbsdmq.Errorf(cbsdmq.CodeRefused, field, format, args...)
	}
	switch {
	case !cbsdmq.ValidULID(m.ID):
		return refuse("cbsdmq.id", "not a ULID").WithHint("see github.com/ulid/spec; it has 26 characters")
	case m.Pool != "" && m.Pool != s.cfg.Pool:
		return s.otherPool(m.Pool)
	case !m.Expires.IsZero() && !now.Before(m.Expires):
		return refuse("cbsdmq.expires", "expired %s ago, before the agent had it", now.Sub(m.Expires).Round(time.Second)).
			WithHint(hintExpired)
	}
	made := cbsdmq.ULIDTime(m.ID)
	if age := now.Sub(made); age > s.cfg.Limits.IDs {
		return refuse("cbsdmq.id", "stale: made %s ago, ids are remembered for %s", age.Round(time.Second), s.cfg.Limits.IDs).
			WithHint("submit it again under a new id")
	}
	if ahead := made.Sub(now); ahead > s.cfg.Limits.Ahead() {
		return refuse("cbsdmq.id", "made %s in the future", ahead.Round(time.Second)).
			WithHint("set the clocks of client and agent")
	}
	return nil
}

// identify gives a job of an original client its identity: the broker's id and
// the body. A broker that started anew may give its ids again: where the journal
// has that identity from before, the age of the message tells which of the two it
// is; in doubt they are the same. Clocks are not asked where the broker that runs
// now gave both, or has only this one from before, or kept nothing from before.
func (s *Server) identify(ctx context.Context, c bus.Consumer, d bus.Delivery, e Endpoint, row *journal.Job) error {
	sum := sha256.Sum256(d.Body)
	row.ID = strconv.FormatUint(d.ID, 10)
	row.Ident = fmt.Sprintf("%s/%s/%d/%x", e.Name, e.Tube, d.ID, sum[:16])
	last, n, err := s.cfg.Journal.Reader().Legacy(ctx, row.Ident)
	if err != nil || last == nil {
		return err
	}
	if now := s.out[e.Name].incarnation.Load(); now != nil {
		_, since, err := s.cfg.Journal.Reader().Broker(ctx, e.Name)
		switch {
		case err != nil:
			return err
		case last.Seq >= since, now.Durable && d.ID < now.IDBase:
			row.Ident = last.Ident
			return nil
		case !now.Durable:
			row.Ident = journal.LegacyIdent(row.Ident, n+1)
			return nil
		}
	}
	asked := time.Now() // the answer may be late: the message is older than it says, not younger
	age, err := c.Age(ctx, d)
	if err != nil {
		return err
	}
	put := asked.Add(-age - time.Second)
	if put.After(last.Accepted) {
		row.Ident = journal.LegacyIdent(row.Ident, n+1)
	} else {
		row.Ident = last.Ident
	}
	return nil
}
