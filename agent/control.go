package agent

import (
	"context"
	"encoding/json"
	"io"
	"slices"
	"time"

	"github.com/cbsd/cbsdmq"
	"github.com/cbsd/cbsdmq/bus"
	"github.com/cbsd/cbsdmq/internal/senders"
	"github.com/cbsd/cbsdmq/journal"
	"github.com/cbsd/cbsdmq/runner"
)

const (
	maxRequests = 64               // answered at once
	maxWait     = 25 * time.Second // of one request for output that is still to come
	jobsLimit   = 100
	dataSize    = 44 << 10 // output in one response; base64 makes 4 bytes of 3
	responseTTL = 5 * time.Minute
)

// control answers the requests of e's control lane. It reads on a connection of
// its own and never waits for workers.
func (s *Server) control(ctx context.Context, e Endpoint) {
	tube := bus.Tube{Name: e.Tube + cbsdmq.ControlSuffix}
	slots := make(chan struct{}, maxRequests)
	for attempt := 0; ; attempt++ {
		c, err := e.Bus.Consume(ctx, bus.ConsumeOptions{Tubes: []bus.Tube{tube}, MaxBody: cbsdmq.JobMax})
		for err == nil {
			var ds []bus.Delivery
			if ds, err = c.Receive(ctx, maxRequests); err != nil {
				c.Close()
				break
			}
			attempt = 0
			for _, d := range ds {
				if outlived(ctx, c, d) {
					continue
				}
				select {
				case slots <- struct{}{}:
				case <-ctx.Done():
					c.Close()
					return
				}
				go func() {
					defer func() { <-slots }()
					s.serve(ctx, e, d)
				}()
			}
			// A request that is lost is asked again by who needs it.
			_ = c.Ack(ctx, ds...)
		}
		if !sleep(ctx, pause(attempt)) {
			return
		}
	}
}

// requestMax is how old a request may be that changes something. By then who asked
// has been told that no agent answers, and takes it for not done.
const requestMax = time.Minute

// outlived reports whether a request is to be dropped: its client was killed before
// it could take it back, and no agent was there. The broker's clock says how old it
// is, whatever those of client and agent say.
func outlived(ctx context.Context, c bus.Consumer, d bus.Delivery) bool {
	req, err := cbsdmq.ParseRequest(d.Body)
	if err != nil || !changes(req.Op) {
		return false
	}
	age, err := c.Age(ctx, d)
	return err == nil && age > requestMax
}

// serve answers one request. One without a usable mailbox has no answer.
func (s *Server) serve(ctx context.Context, e Endpoint, d bus.Delivery) {
	req, err := cbsdmq.ParseRequest(d.Body)
	if !cbsdmq.ValidULID(req.Reply) {
		return
	}
	if !req.Expires.IsZero() && time.Now().After(req.Expires) {
		return
	}
	var key *senders.Key
	if err == nil {
		var again bool
		if key, again, err = s.proveRequest(&req, time.Now()); again {
			return
		}
	}
	resp := cbsdmq.Response{}
	if err == nil && req.Pool != "" && req.Pool != s.cfg.Pool {
		err = cbsdmq.Errorf(cbsdmq.CodeRefused, "pool", "the request is for pool %q, this is %q", req.Pool, s.cfg.Pool)
	}
	if err == nil {
		err = s.guard(func() error { var err error; resp, err = s.answerTo(ctx, key, req); return err })
	}
	resp.V, resp.Req, resp.Error = cbsdmq.MetaVersion, req.Req, cbsdmq.NewProblem(err)
	body, err := json.Marshal(resp.Fit(replyMax))
	if err != nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, e.Timeout)
	defer cancel()
	e.Bus.Put(ctx, bus.Message{
		Tube: bus.Tube{Name: bus.ControlMailbox(e.Prefix, req.Reply), Kind: bus.Mailbox}, Body: body, TTL: responseTTL,
	})
}

func (s *Server) answer(ctx context.Context, req cbsdmq.Request) (cbsdmq.Response, error) {
	var resp cbsdmq.Response
	switch req.Op {
	case cbsdmq.OpStatus:
		if req.Job == "" {
			in := s.fullInfo(ctx)
			resp.Agent = &in
			return resp, nil
		}
		row, err := s.row(ctx, req.Job)
		if err != nil {
			return resp, err
		}
		return s.status(ctx, row)
	case cbsdmq.OpJobs:
		return s.list(ctx, req)
	case cbsdmq.OpGuests:
		var err error
		resp.Guests, err = s.guests(ctx, req)
		return resp, err
	case cbsdmq.OpImages:
		store, images, err := s.cfg.CBSD.Images(ctx)
		store.Host = s.cfg.Boot
		resp.Store = &store
		for _, im := range images {
			if im.Profile > req.After {
				resp.Images = append(resp.Images, im)
			}
		}
		return resp, err
	case cbsdmq.OpOutput:
		return s.output(ctx, req)
	case cbsdmq.OpCancel:
		return resp, s.cancel(ctx, req)
	case cbsdmq.OpHeld:
		return resp, s.heldJobs(ctx, req)
	case cbsdmq.OpPause:
		return resp, s.pause(ctx, req)
	case cbsdmq.OpResume:
		return resp, s.resume(ctx, req)
	case cbsdmq.OpPauses:
		return s.listPauses(req), nil
	case cbsdmq.OpWhy:
		return s.why(ctx, req)
	case cbsdmq.OpResolve:
		return resp, s.resolve(ctx, req)
	case cbsdmq.OpActs:
		return s.acts(ctx, req)
	}
	return resp, cbsdmq.Errorf(cbsdmq.CodeRefused, "op", "not known here")
}

// row finds a job by its id.
func (s *Server) row(ctx context.Context, id string) (*journal.Job, error) {
	row, err := s.cfg.Journal.Reader().Job(ctx, id)
	if err == nil && row == nil {
		err = cbsdmq.Errorf(cbsdmq.CodeNotFound, "job", "pool %s knows no job %s", s.cfg.Pool, id).
			WithHint("`cbsdmq jobs %s` lists those it knows", s.cfg.Pool)
	}
	return row, err
}

// status is what is known of one job; with its last reply where it has ended.
func (s *Server) status(ctx context.Context, row *journal.Job) (cbsdmq.Response, error) {
	info := s.info(ctx, row)
	resp := cbsdmq.Response{Job: &info}
	if !row.State.Ended() {
		return resp, nil
	}
	tail, err := s.outputTail(ctx, row)
	if err != nil {
		return resp, err
	}
	final, err := cbsdmq.ParseReply(s.storedReply(row, tail, replyMax))
	resp.Final = &final
	return resp, err
}

// output answers with stdout from an offset on; if asked to, it waits until
// there is some.
func (s *Server) output(ctx context.Context, req cbsdmq.Request) (cbsdmq.Response, error) {
	deadline := time.Now().Add(min(req.Wait, maxWait))
	moved := time.Now().Add(workAfter) // then who asked is told how far it is
	buf := make([]byte, dataSize)
	for {
		n, running := s.live.read(req.Job, buf, req.Offset)
		if running && n > 0 {
			return cbsdmq.Response{Data: buf[:n], Offset: req.Offset}, nil
		}
		if running && req.Work && time.Now().After(moved) {
			if w := s.work(ctx, req.Job); w != nil {
				return cbsdmq.Response{Offset: req.Offset, Work: w}, nil
			}
		}
		if !running {
			row, err := s.row(ctx, req.Job)
			if err != nil {
				return cbsdmq.Response{}, err
			}
			if row.State.Ended() {
				return s.endedOutput(ctx, row, buf, req.Offset)
			}
		}
		if !time.Now().Before(deadline) || !sleep(ctx, streamPoll) {
			return cbsdmq.Response{Offset: req.Offset}, nil
		}
	}
}

func (s *Server) endedOutput(ctx context.Context, row *journal.Job, buf []byte, offset int64) (cbsdmq.Response, error) {
	n, from, err := s.storedOutput(ctx, row, buf, offset)
	if err != nil {
		return cbsdmq.Response{}, err
	}
	resp := cbsdmq.Response{Data: buf[:n], Offset: from}
	if from+int64(n) < row.OutSize && n > 0 {
		return resp, nil
	}
	st, err := s.status(ctx, row)
	if err != nil {
		return resp, err
	}
	resp.End, resp.Final = true, st.Final
	if n > 0 && resp.Final != nil {
		// The rest of the output goes first: both might not fit.
		resp.End, resp.Final = false, nil
	}
	return resp, nil
}

// storedOutput reads an ended job's stdout from offset on. Where bytes in the
// middle were dropped, or only the end was kept, from lies beyond offset.
func (s *Server) storedOutput(ctx context.Context, row *journal.Job, p []byte, offset int64) (n int, from int64, err error) {
	f, err := s.cfg.Journal.Reader().Output(ctx, row.Seq)
	if err != nil {
		return 0, offset, err
	}
	defer f.Close()
	kept, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return 0, offset, err
	}
	pos, limit := offset, kept
	if dropped := row.OutSize - kept; dropped > 0 {
		head := headOf(kept)
		switch {
		case offset < head:
			limit = head
		default:
			offset = max(offset, head+dropped)
			pos = offset - dropped
		}
	}
	if pos >= limit {
		return 0, offset, nil
	}
	if _, err := f.Seek(pos, io.SeekStart); err != nil {
		return 0, offset, err
	}
	n, err = io.ReadFull(f, p[:min(int64(len(p)), limit-pos)])
	return n, offset, err
}

// headOf is how much of the beginning is among the kept bytes of an output that
// lost some: see collect.
func headOf(kept int64) int64 {
	if kept <= journal.InlineOutput {
		return 0 // only the end was kept
	}
	return runner.OutputHead
}

// maxTombstones bounds the jobs that are cancelled before they come.
const maxTombstones = 100_000

// cancel ends a job, or keeps it from beginning: also one that has not come
// yet.
func (s *Server) cancel(ctx context.Context, req cbsdmq.Request) error {
	return s.ask(ctx, func(l *loop, done func(error)) { l.cancel(req, done) })
}

func (l *loop) cancel(req cbsdmq.Request, done func(error)) {
	id := req.Job
	j := l.byID[id]
	if j == nil {
		row, err := l.s.cfg.Journal.Reader().Job(context.Background(), id)
		switch {
		case err != nil:
			done(err)
			return
		case row != nil && row.State.Ended():
			done(cbsdmq.Errorf(cbsdmq.CodeNotFound, "job", "has ended before: %s", row.State))
			return
		case row != nil:
			j = l.jobs[row.Seq]
		}
	}
	if j == nil && l.s.cfg.Journal.Tombstones()+len(l.batch.Tombstone) >= maxTombstones {
		done(cbsdmq.Errorf(cbsdmq.CodeUnavailable, "job", "pool %s knows no job %s, and has been told to cancel %d others that had not come",
			l.s.cfg.Pool, id, maxTombstones).WithHint("look whether a client cancels what it never submits; cancel this one when it is in `cbsdmq jobs %s`", l.s.cfg.Pool))
		return
	}
	l.note(done)
	if j != nil {
		req.Guest = j.row.Guest
	}
	l.act("cancel", req)
	switch {
	case j == nil:
		l.batch.Tombstone = append(l.batch.Tombstone, id)
	case j.unbegun():
		l.batch.Cancel = append(l.batch.Cancel, j.row.Seq)
		l.cancelUnbegun(j)
	default:
		l.batch.Cancel = append(l.batch.Cancel, j.row.Seq)
		l.after = append(l.after, func() {
			if j.unbegun() { // its start was refused meanwhile
				l.cancelUnbegun(j)
				return
			}
			l.terminate(j, cbsdmq.Cancelled)
		})
	}
}

// unbegun reports whether j waits to be begun.
func (j *job) unbegun() bool {
	return j.phase == queued || j.phase == preparing && j.arrival == nil
}

// cancelUnbegun ends a job whose command was not begun, or is not to be begun
// again.
func (l *loop) cancelUnbegun(j *job) {
	reason := "cancelled before it began"
	if j.row.Flags&journal.Again != 0 {
		reason = "cancelled before it ran again: its runner was lost"
	}
	l.endQueued(j, cbsdmq.Cancelled, cbsdmq.ExitCancelled, reason, "")
}

// heldJobs lets the jobs run, or ends them, that were held because the journal
// went back in time.
func (s *Server) heldJobs(ctx context.Context, req cbsdmq.Request) error {
	if req.Action != "release" && req.Action != "drop" {
		return cbsdmq.Errorf(cbsdmq.CodeRefused, "action", "%q is neither release nor drop", req.Action)
	}
	return s.ask(ctx, func(l *loop, done func(error)) {
		l.note(done)
		l.act(req.Action, req)
		l.held(req.Action == "release")
	})
}

func (l *loop) held(release bool) {
	var js []*job
	for _, j := range l.jobs {
		if j.row.State == cbsdmq.Held {
			js = append(js, j)
		}
	}
	slices.SortFunc(js, func(a, b *job) int { return int(a.row.Seq - b.row.Seq) })
	for _, j := range js {
		if !release {
			l.endQueued(j, cbsdmq.Cancelled, cbsdmq.ExitCancelled, "dropped by a person after the journal went back in time", "")
			continue
		}
		l.batch.Release = append(l.batch.Release, j.row.Seq)
		l.after = append(l.after, func() {
			j.row.State = cbsdmq.Queued
			l.s.held.Add(-1)
			if j.waits == 0 {
				l.makeReady(j)
			}
		})
	}
}
