package client

import (
	"cmp"
	"context"
	"errors"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/cbsd/cbsdmq"
)

// by is who asks, on one line.
func (c *Client) by(who string) string {
	who = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return -1
		}
		return r
	}, strings.ToValidUTF8(cmp.Or(who, c.o.Sender, "somebody"), "?"))
	for len(who) > cbsdmq.WhoMax {
		runes := []rune(who)
		who = string(runes[:len(runes)-1])
	}
	return who
}

// older explains the refusal of a request that the agent does not know.
func (c *Client) older(op cbsdmq.Op, err error) error {
	if e, ok := errors.AsType[*cbsdmq.Error](err); ok && e.Code == cbsdmq.CodeRefused && e.Field == "op" {
		return cbsdmq.Errorf(cbsdmq.CodeRefused, "", "the agent of %s is older: it does not know %q", c.pool(), op).
			WithHint("update the program on its host and restart the agent; `cbsdmq pools` shows versions")
	}
	return err
}

// Guest returns one guest; false where the pool has none of that name.
func (c *Client) Guest(ctx context.Context, name string) (cbsdmq.Guest, bool, error) {
	guests, err := c.guests(ctx, name)
	for _, g := range guests { // an older agent sends them all
		if g.Name == name {
			return g, true, nil
		}
	}
	return cbsdmq.Guest{}, false, err
}

// Pause keeps everything that changes a guest, or the whole pool where guest is
// "", from being begun until Resume. Jobs are accepted and wait; what runs goes
// on, and so does what only reads.
func (c *Client) Pause(ctx context.Context, guest, reason string) error {
	_, err := c.ask(ctx, cbsdmq.Request{Op: cbsdmq.OpPause, Guest: guest, Reason: reason, By: c.by("")})
	return err
}

// Resume ends a Pause. CodeNotFound: there was none.
func (c *Client) Resume(ctx context.Context, guest string) error {
	_, err := c.ask(ctx, cbsdmq.Request{Op: cbsdmq.OpResume, Guest: guest, By: c.by("")})
	return err
}

// Pauses returns what is paused, the whole pool first, then by guest.
func (c *Client) Pauses(ctx context.Context) ([]cbsdmq.Pause, error) {
	var pauses []cbsdmq.Pause
	for after := ""; ; {
		resp, err := c.ask(ctx, cbsdmq.Request{Op: cbsdmq.OpPauses, After: after})
		if err != nil {
			return pauses, err
		}
		pauses = append(pauses, resp.Pauses...)
		if !resp.More || len(resp.Pauses) == 0 {
			return pauses, nil
		}
		after = pauses[len(pauses)-1].Guest
	}
}

// A Waiting is what Why answers.
type Waiting struct {
	Waits []cbsdmq.Wait   // in order of acceptance
	More  bool            // there are more
	Guest *cbsdmq.Guest   // that was asked for
	Ended *cbsdmq.JobInfo // the job that was asked for, where it has ended
}

// Why says what jobs wait for: those of a guest, or one of them by its id.
func (c *Client) Why(ctx context.Context, guest, id string) (Waiting, error) {
	if id != "" {
		var err error
		if id, err = c.jobID(id); err != nil {
			return Waiting{}, err
		}
	}
	resp, err := c.ask(ctx, cbsdmq.Request{Op: cbsdmq.OpWhy, Guest: guest, Job: id})
	w := Waiting{Waits: resp.Waits, More: resp.More, Ended: resp.Job}
	if len(resp.Guests) > 0 {
		w.Guest = &resp.Guests[0]
	}
	return w, err
}

// Resolve notes a person's verdict on a job that ended unknown: state is Done or
// Failed. by "" is Options.Sender.
func (c *Client) Resolve(ctx context.Context, id string, state cbsdmq.State, by, reason string) error {
	id, err := c.jobID(id)
	if err != nil {
		return err
	}
	_, err = c.ask(ctx, cbsdmq.Request{Op: cbsdmq.OpResolve, Job: id, State: state, By: c.by(by), Reason: reason})
	return err
}

// A Query chooses jobs; what is empty is not looked at.
type Query struct {
	State cbsdmq.State
	Guest string
	Since time.Time // when they were accepted
}

// Acts returns what people did beside submitting jobs, the newest first, at most
// limit of them; of a guest unless that is "".
func (c *Client) Acts(ctx context.Context, limit int, guest string, since time.Time) ([]cbsdmq.Act, error) {
	var acts []cbsdmq.Act
	for after := ""; ; {
		resp, err := c.ask(ctx, cbsdmq.Request{Op: cbsdmq.OpActs, Limit: min(limit-len(acts), 1000), Guest: guest, Since: since, After: after})
		if err != nil {
			return acts, err
		}
		if len(resp.Acts) == 0 && resp.More && resp.Next != "" && resp.Next != after {
			after = resp.Next // what people did with guests that we may not see
			continue
		}
		acts = append(acts, resp.Acts...)
		if !resp.More || len(acts) >= limit || len(resp.Acts) == 0 {
			return acts[:min(len(acts), limit)], nil
		}
		after = strconv.FormatInt(acts[len(acts)-1].Seq, 10)
	}
}
