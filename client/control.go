package client

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/cbsd/cbsdmq"
	"github.com/cbsd/cbsdmq/bus"
)

// clockSkew is how far the clocks of client and agent may be apart before the
// agent takes a request for an old one.
const clockSkew = 10 * time.Minute

// tellAfter is how long an answer may take before Options.Unanswered is called.
const tellAfter = time.Second

// ask puts a request on the control lane and waits for its answer. A request
// that nobody has answered is taken back.
func (c *Client) ask(ctx context.Context, r cbsdmq.Request) (cbsdmq.Response, error) {
	timeout := c.o.RequestTimeout + r.Wait
	r.V, r.Reply, r.Pool = cbsdmq.MetaVersion, c.session, c.o.Pool
	r.Req = strconv.FormatUint(c.seq.Add(1), 10)
	r.Expires = time.Now().Add(timeout + clockSkew).UTC().Truncate(time.Second)
	if c.o.Sign != nil {
		r.Made, r.Since = time.Now().UTC().Truncate(time.Second), r.Since.Truncate(time.Second)
		if err := c.o.Sign.SignRequest(&r); err != nil {
			return cbsdmq.Response{}, err
		}
	}
	body, err := json.Marshal(r)
	if err != nil {
		return cbsdmq.Response{}, err
	}
	answer := make(chan cbsdmq.Response, 1)
	c.mu.Lock()
	if c.life.Err() != nil {
		c.mu.Unlock()
		return cbsdmq.Response{}, c.stopped(ctx)
	}
	c.waiting[r.Req] = answer
	c.asks.Add(1)
	c.mu.Unlock()
	defer c.asks.Done()
	defer func() {
		c.mu.Lock()
		delete(c.waiting, r.Req)
		c.mu.Unlock()
	}()

	wait, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	defer context.AfterFunc(c.life, cancel)()
	lane := bus.Tube{Name: c.o.Tube + cbsdmq.ControlSuffix}
	put := time.Now()
	id, err := c.putRequest(wait, bus.Message{Tube: lane, Body: body, TTL: timeout})
	if err != nil {
		if ctx.Err() != nil || c.life.Err() != nil {
			return cbsdmq.Response{}, c.stopped(ctx)
		}
		return cbsdmq.Response{}, err
	}
	if c.o.Unanswered != nil {
		late := time.AfterFunc(r.Wait+tellAfter, c.o.Unanswered)
		defer late.Stop()
	}
	select {
	case resp := <-answer:
		return resp, c.older(r.Op, resp.Error.Err())
	case <-wait.Done():
	}
	c.takeBack(lane.Name, id, put)
	if ctx.Err() != nil || c.life.Err() != nil {
		return cbsdmq.Response{}, c.stopped(ctx)
	}
	return cbsdmq.Response{}, c.noAgent()
}

// putRequest puts m until the broker has it. Requests may arrive twice.
func (c *Client) putRequest(ctx context.Context, m bus.Message) (id uint64, err error) {
	for {
		r := c.o.Bus.Put(ctx, m)[0]
		_, permanent := errors.AsType[*bus.Permanent](r.Err)
		switch {
		case r.Err == nil:
			return r.ID, nil
		case ctx.Err() != nil, permanent, errors.Is(r.Err, bus.ErrClosed), errors.Is(r.Err, bus.ErrBadTube), errors.Is(r.Err, bus.ErrTooLarge):
			return 0, brokerError(r.Err)
		}
	}
}

// takeBack removes an unanswered request where the broker does not do that by
// itself. A broker that was restarted may have given the id to somebody else's
// request, which is younger; ages come in whole seconds.
func (c *Client) takeBack(lane string, id uint64, put time.Time) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	if err := c.o.Bus.Expire(ctx, lane, id, time.Since(put)-time.Second); err != nil {
		c.log.Debug("unanswered request not taken back", "err", err)
	}
}

func (c *Client) noAgent() error {
	return cbsdmq.Errorf(cbsdmq.CodeGaveUp, "", "no cbsdmq agent serves %s", c.pool()).
		WithHint("on its host, `service cbsdmq status` says whether it runs, and `cbsdmq check` what is wrong; an original agent answers no requests")
}

// silent reports whether err says that nobody answered, so that asking again
// may help.
func silent(err error) bool {
	if _, ok := errors.AsType[*bus.Permanent](err); ok || errors.Is(err, bus.ErrClosed) {
		return false
	}
	code := cbsdmq.CodeOf(err)
	return code == cbsdmq.CodeGaveUp || code == cbsdmq.CodeUnreachable
}

// Status says which agent serves the pool and how it is.
func (c *Client) Status(ctx context.Context) (cbsdmq.AgentInfo, error) {
	resp, err := c.ask(ctx, cbsdmq.Request{Op: cbsdmq.OpStatus})
	if err != nil {
		return cbsdmq.AgentInfo{}, err
	}
	if resp.Agent == nil {
		return cbsdmq.AgentInfo{}, incomplete()
	}
	return *resp.Agent, nil
}

// Job says what is known of a job, with its last reply where it has ended.
func (c *Client) Job(ctx context.Context, id string) (cbsdmq.JobInfo, *cbsdmq.Reply, error) {
	id, err := c.jobID(id)
	if err != nil {
		return cbsdmq.JobInfo{}, nil, err
	}
	resp, err := c.ask(ctx, cbsdmq.Request{Op: cbsdmq.OpStatus, Job: id})
	if err != nil {
		return cbsdmq.JobInfo{}, nil, err
	}
	if resp.Job == nil {
		return cbsdmq.JobInfo{}, nil, incomplete()
	}
	return *resp.Job, resp.Final, nil
}

// Cancel ends a job, or keeps it from beginning; also one that the agent does
// not have yet. It returns when the agent has noted it: the job's last reply
// says how it ended.
func (c *Client) Cancel(ctx context.Context, id string) error {
	id, err := c.jobID(id)
	if err != nil {
		return err
	}
	_, err = c.ask(ctx, cbsdmq.Request{Op: cbsdmq.OpCancel, Job: id, By: c.by("")})
	return err
}

// Held lets the jobs run that were held because the journal went back in time
// ("release"), or ends them ("drop").
func (c *Client) Held(ctx context.Context, action string) error {
	_, err := c.ask(ctx, cbsdmq.Request{Op: cbsdmq.OpHeld, Action: action, By: c.by("")})
	return err
}

// Jobs returns the newest jobs first, at most limit of them (0 = 100), and only
// those in state unless that is "".
func (c *Client) Jobs(ctx context.Context, limit int, state cbsdmq.State) ([]cbsdmq.JobInfo, error) {
	return c.Search(ctx, limit, Query{State: state})
}

// Search is Jobs of those that q chooses. An older agent knows q.State only.
func (c *Client) Search(ctx context.Context, limit int, q Query) ([]cbsdmq.JobInfo, error) {
	if limit <= 0 {
		limit = 100
	}
	var jobs []cbsdmq.JobInfo
	for after := ""; ; {
		resp, err := c.ask(ctx, cbsdmq.Request{
			Op: cbsdmq.OpJobs, Limit: min(limit-len(jobs), 1000), State: q.State, Guest: q.Guest, Since: q.Since, After: after,
		})
		if err != nil {
			return jobs, err
		}
		for _, j := range resp.Jobs {
			if (q.Guest == "" || j.Guest == q.Guest) && !j.AcceptedAt.Before(q.Since) {
				jobs = append(jobs, j)
			}
		}
		n := len(resp.Jobs)
		if n == 0 && resp.More && resp.Next != "" && resp.Next != after {
			after = resp.Next // the agent has looked so far for jobs that we may see
			continue
		}
		if !resp.More || len(jobs) >= limit || n == 0 || resp.Jobs[n-1].AcceptedAt.Before(q.Since) {
			return jobs[:min(len(jobs), limit)], nil
		}
		_, next, err := cbsdmq.SplitID(resp.Jobs[n-1].ID)
		if err != nil || next == after {
			return jobs, incomplete()
		}
		after = next
	}
}

// Images returns the images of the pool's VM profiles, by name, and the room for
// them.
func (c *Client) Images(ctx context.Context) (cbsdmq.Store, []cbsdmq.Image, error) {
	var store cbsdmq.Store
	var images []cbsdmq.Image
	for after := ""; ; {
		resp, err := c.ask(ctx, cbsdmq.Request{Op: cbsdmq.OpImages, After: after})
		if err != nil {
			return store, nil, err
		}
		if resp.Store == nil {
			return store, nil, incomplete()
		}
		store = *resp.Store
		images = append(images, resp.Images...)
		if !resp.More || len(resp.Images) == 0 {
			return store, images, nil
		}
		after = images[len(images)-1].Profile
	}
}

// Guests returns the pool's guests by name.
func (c *Client) Guests(ctx context.Context) ([]cbsdmq.Guest, error) { return c.guests(ctx, "") }

func (c *Client) guests(ctx context.Context, one string) ([]cbsdmq.Guest, error) {
	var guests []cbsdmq.Guest
	for after := ""; ; {
		resp, err := c.ask(ctx, cbsdmq.Request{Op: cbsdmq.OpGuests, After: after, Guest: one})
		if err != nil {
			return guests, err
		}
		guests = append(guests, resp.Guests...)
		if !resp.More || len(resp.Guests) == 0 {
			return guests, nil
		}
		next := guests[len(guests)-1].Name
		if next <= after {
			return guests, incomplete()
		}
		after = next
	}
}

// Output writes the output of a job so far to w and returns how many bytes of
// it are not kept any more.
func (c *Client) Output(ctx context.Context, id string, w io.Writer) (dropped int64, err error) {
	id, err = c.jobID(id)
	if err != nil {
		return 0, err
	}
	for offset := int64(0); ; {
		resp, err := c.ask(ctx, cbsdmq.Request{Op: cbsdmq.OpOutput, Job: id, Offset: offset})
		if err != nil {
			return dropped, err
		}
		if resp.Offset > offset {
			dropped += resp.Offset - offset
			offset = resp.Offset
		}
		if _, err := w.Write(resp.Data); err != nil {
			return dropped, err
		}
		offset += int64(len(resp.Data))
		if resp.End || len(resp.Data) == 0 {
			return dropped, nil
		}
	}
}

// jobID takes a printed id, of this pool, or an id alone.
func (c *Client) jobID(id string) (string, error) {
	if !strings.Contains(id, "/") {
		if cbsdmq.ValidID(id) {
			return id, nil
		}
		id = "/" + id // let SplitID say what is wrong
	}
	pool, bare, err := cbsdmq.SplitID(id)
	if err != nil {
		return "", err
	}
	if c.o.Pool != "" && pool != c.o.Pool {
		return "", cbsdmq.Errorf(cbsdmq.CodeRefused, "ID", "%s is a job of pool %s, this is pool %s", id, pool, c.o.Pool)
	}
	return bare, nil
}

func incomplete() error {
	return cbsdmq.Errorf(cbsdmq.CodeInternal, "", "the agent's answer lacks what was asked for").
		WithHint("client and agent are of different ages: update the older one")
}
