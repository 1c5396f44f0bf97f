package agent

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"github.com/cbsd/cbsdmq"
	"github.com/cbsd/cbsdmq/cbsd"
	"github.com/cbsd/cbsdmq/internal/crash"
	"github.com/cbsd/cbsdmq/internal/failpoint"
	"github.com/cbsd/cbsdmq/journal"
	"github.com/cbsd/cbsdmq/runner"
)

// An ending is the end of a job on its way into the journal.
type ending struct {
	job    *job
	key    runner.Key // of the run to acknowledge; zero where none was begun
	finish *journal.Finish
	body   []byte // the last reply

	outcome cbsdmq.Outcome
}

// replyMax is the largest reply in bytes. beanstalkd takes JobMax with its
// default settings, two bytes less with a binlog.
const replyMax = cbsdmq.JobMax - 64

// tailSize is how much of the end of stdout is looked at for a reason.
const tailSize = 4 << 10

// conclude makes the result of a job whose command has ended, outside the loop:
// it reads output and the state of the guest.
func (l *loop) conclude(j *job, e runner.Event) {
	failpoint.Hit(failpoint.Exited)
	j.phase = concluding
	s, why, signalled := l.s, j.why, e.Signalled && !e.At.Before(j.termAt)
	if limit := s.cfg.TimeLimit; why == "" && e.Signalled && limit > 0 && e.At.Sub(j.row.Begun) > limit &&
		(e.Signal == syscall.SIGTERM || e.Signal == syscall.SIGKILL) {
		why = cbsdmq.Timeout // an agent before this one sent it, and could not say so any more
	}
	row, plan, before := *j.row, j.plan, j.before
	crash.Go(j.printedID(s.cfg.Pool), func() {
		var end *ending
		if row.Flags&journal.Poison != 0 {
			end = s.poisoned(&row, e)
		} else if err := s.guard(func() error {
			failpoint.Hit(failpoint.Judging)
			end = s.result(&row, plan, before, e, why, signalled)
			return nil
		}); err != nil {
			s.log.Error("handling the end of a job failed", "job", j.printedID(s.cfg.Pool), "err", err)
			r := reply(cbsdmq.Unknown, cbsdmq.ExitUnknown, "the agent could not handle its end: "+firstLine(err.Error()), "")
			end = s.finish(&row, r, nil, 0)
		}
		end.job, end.key = j, e.Key
		s.post(s.life, func(l *loop) { l.end(end) })
	})
}

// guard runs f and makes an error of a panic, so that one job cannot take the
// others with it.
func (s *Server) guard(f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	return f()
}

// result says how a job ended whose command the runner started.
func (s *Server) result(row *journal.Job, plan cbsd.Plan, before cbsd.Snapshot, e runner.Event, why cbsdmq.State, signalled bool) *ending {
	ctx := context.Background() // package cbsd bounds what it asks
	_, secrets := withoutSecrets(plan)
	out, size, tail, warnings := s.collect(row, e, secrets)
	exit := cbsd.Exit{Code: e.Status, Signal: int(e.Signal), Stderr: []byte(readTail(e.Err, cbsdmq.ReplyStderr))}
	mask(exit.Stderr, secrets)
	if e.Signal != 0 {
		exit.Code = cbsdmq.ExitSignal + int(e.Signal)
	}
	var r cbsdmq.Reply
	var now cbsd.Snapshot
	switch e.Kind {
	case runner.Failed:
		code := cbsdmq.ExitCannotRun
		if e.Errno == syscall.ENOENT {
			code = cbsdmq.ExitNotFound
		}
		r = reply(cbsdmq.Failed, code, fmt.Sprintf("cannot run %s: %s", s.cfg.Command, e.Reason),
			`install CBSD, or name its command with the key "cbsd"; `+"`cbsdmq check` says more")
		r.Outcome = cbsdmq.Unchanged
		if plan.Class == cbsd.Read {
			r.Outcome = ""
		}
	case runner.Lost:
		if plan.Class == cbsd.Read && why == cbsdmq.Cancelled {
			r = reply(cbsdmq.Cancelled, cbsdmq.ExitCancelled, cbsd.Remains{Kind: cbsd.Clean, What: "it only reads"}.Reason(cbsdmq.Cancelled), "")
			break
		}
		reason := "it cannot be known how the command ended: " + e.Reason
		if plan.Class == cbsd.Change {
			if now := s.cfg.CBSD.Unknown(ctx, plan); now != "" {
				reason += ". " + now
			}
		}
		r = reply(cbsdmq.Unknown, cbsdmq.ExitUnknown, reason, "look at the guest before you submit it again")
	default:
		exit.Stopped = why != "" && (signalled || e.Signal != 0)
		v := s.cfg.CBSD.After(ctx, plan, before, exit, tail)
		state := cbsdmq.Done
		code := v.ErrCode
		if code != 0 {
			state = cbsdmq.Failed
		}
		if signalled || e.Signal != 0 {
			switch why {
			case cbsdmq.Cancelled:
				state, code = cbsdmq.Cancelled, cbsdmq.ExitCancelled
				if v.Hint = v.Remains.Hint; v.Remains.Kind != cbsd.Untold {
					v.Reason = ""
				}
				v.Reason = join(v.Remains.Reason(state), v.Reason)
			case cbsdmq.Timeout:
				state, code = cbsdmq.Timeout, cbsdmq.ExitTimeout
				v.Reason = join(fmt.Sprintf("ran longer than %s; %s", s.cfg.TimeLimit, v.Remains.Reason("ended")), v.Reason)
				v.Hint = strings.TrimPrefix(v.Remains.Hint+`; the key "time_limit" sets how long a command may run`, "; ")
			}
			// Scripts of cbsd trap SIGTERM: the step that they are at is killed,
			// they go on without it and end with status 0.
			if exit.Code == 0 && plan.Class == cbsd.Change {
				v.Reason += ". It went on to its end, but without the step that SIGTERM cut short"
				v.Hint = strings.TrimSuffix("look at the guest, something may be missing from it; "+v.Hint, "; ")
			}
		}
		r = reply(state, code, v.Reason, v.Hint)
		r.Outcome, now = v.Outcome, v.Now
	}
	r.Warnings = append(append(append(r.Warnings, plan.Warnings...), warnings...), outputAtRisk(e)...)
	r.Guid, r.DskGuid, r.Vnc = s.cfg.CBSD.Lookups(ctx, plan, jobOf(plan), now)
	r.Stderr = string(exit.Stderr)
	return s.finish(row, r, out, size)
}

func join(a, b string) string {
	if b == "" {
		return a
	}
	return a + ": " + b
}

// finish puts a reply into the form of the journal.
func (s *Server) finish(row *journal.Job, r cbsdmq.Reply, out []byte, size int64) *ending {
	result, err := json.Marshal(r)
	if err != nil {
		result = nil // a Reply always has a JSON form
	}
	end := &ending{finish: &journal.Finish{
		Seq: row.Seq, State: r.State, Result: result, Output: out, OutSize: size, Plan: keepWithout(row.Plan),
	}, outcome: r.Outcome}
	if int64(len(out)) == size { // else its end is in a file
		end.body = s.lastReply(row, r, out, size, replyMax)
	}
	return end
}

// storedReply is lastReply from what the journal keeps of a job.
func (s *Server) storedReply(row *journal.Job, tail []byte, most int) []byte {
	var r cbsdmq.Reply
	if err := json.Unmarshal(row.Result, &r); err != nil {
		r = cbsdmq.Reply{ErrCode: cbsdmq.ExitUnknown, State: cbsdmq.Unknown, Reason: "the result is not kept any more"}
	}
	return s.lastReply(row, r, tail, row.OutSize, most)
}

// lastReply is the last reply of a job: the result r, the end of its output,
// and how large the whole was. It is the same each time it is made.
func (s *Server) lastReply(row *journal.Job, r cbsdmq.Reply, tail []byte, size int64, most int) []byte {
	r.ID = cmp.Or(r.ID, cbsdmq.PrintedID(s.cfg.Pool, row.ID)) // see unproven
	r.Key, r.Progress = row.Key, 100
	r.SetOutput(tail)
	if size == 0 && row.Flags&journal.Legacy != 0 {
		r.Message = forOriginals(r)
	}
	r.Offset = size - int64(len(tail))
	r.Cut = r.Offset
	b, err := json.Marshal(r)
	if err == nil && len(b) > most {
		b, err = json.Marshal(r.Fit(most))
	}
	if err != nil {
		return nil
	}
	return b
}

// forOriginals is the Message of a job that ended without its command having
// had a say: original clients show nothing else, and would show an empty line.
func forOriginals(r cbsdmq.Reply) string {
	switch r.State {
	case cbsdmq.Refused, cbsdmq.Cancelled, cbsdmq.Timeout, cbsdmq.Unknown:
	default:
		return ""
	}
	text := fmt.Sprintf("%s: %s\n", r.State, r.Reason)
	if r.Hint != "" {
		text += "hint: " + r.Hint + "\n"
	}
	return text
}

// reply begins the last reply of a job.
func reply(state cbsdmq.State, code int, reason, hint string) cbsdmq.Reply {
	return cbsdmq.Reply{Guid: "0", DskGuid: "0", Progress: 100, ErrCode: code, State: state, Reason: reason, Hint: hint}
}

// collect takes a run's stdout: all of it where it is short, else it goes to
// disk and only its end is returned.
//
// What it printed of its own secret arguments is masked.
func (s *Server) collect(row *journal.Job, e runner.Event, secrets [][]byte) (out []byte, size int64, tail []byte, warnings []string) {
	if e.Out.Size == 0 || e.Out.Path == "" {
		return nil, 0, nil, nil
	}
	f, err := os.Open(e.Out.Path)
	if err != nil {
		return nil, 0, nil, []string{"the output is lost: " + err.Error()}
	}
	defer f.Close()
	size = e.Out.Size
	last := make([]byte, min(size, journal.InlineOutput))
	if n, err := f.ReadAt(last, size-int64(len(last))); err != nil && !errors.Is(err, io.EOF) {
		warnings = append(warnings, "the output is lost: "+err.Error())
		last = last[:n]
	}
	mask(last, secrets)
	tail = last[max(0, len(last)-tailSize):]
	if size <= journal.InlineOutput {
		return last, size, tail, warnings
	}
	head := io.NewSectionReader(f, 0, size)
	var src io.Reader = head
	if e.Out.Dropped > 0 {
		from := runner.OutputHead + e.Out.Dropped
		src = io.MultiReader(io.NewSectionReader(f, 0, runner.OutputHead), io.NewSectionReader(f, from, size-from))
		warnings = append(warnings, fmt.Sprintf("%d bytes in the middle of the output were dropped: it was longer than output_max", e.Out.Dropped))
	}
	if err := s.cfg.Journal.SaveOutput(row.Seq, masked(src, secrets)); err != nil {
		warnings = append(warnings, "only the end of the output was kept: "+err.Error())
		return last, size, tail, warnings
	}
	return nil, size, tail, warnings
}

func readTail(file runner.File, n int64) string {
	if file.Size == 0 || file.Path == "" {
		return ""
	}
	f, err := os.Open(file.Path)
	if err != nil {
		return ""
	}
	defer f.Close()
	b := make([]byte, min(file.Size, n))
	m, _ := f.ReadAt(b, file.Size-int64(len(b)))
	return strings.ToValidUTF8(string(b[:m]), "\uFFFD")
}

// jobOf is the job that a plan was made of, as far as look-ups need it.
func jobOf(plan cbsd.Plan) cbsdmq.Job {
	j := cbsdmq.Job{Command: plan.Command}
	for _, a := range plan.Argv[min(1, len(plan.Argv)):] {
		if name, value, ok := strings.Cut(a, "="); ok {
			j.Args = append(j.Args, cbsdmq.Arg{Name: name, Value: value})
		}
	}
	return j
}

// end puts the end of a job into the next commit.
func (l *loop) end(e *ending) {
	if e.job.phase == ended {
		return
	}
	e.job.phase = concluding
	failpoint.Hit(failpoint.Finishing)
	l.endings = append(l.endings, e)
	l.batch.Finish = append(l.batch.Finish, e.finish)
}

// endQueued ends a job that was not begun.
func (l *loop) endQueued(j *job, state cbsdmq.State, code int, reason, hint string) {
	if j.row.State == cbsdmq.Held {
		l.s.held.Add(-1)
		j.row.State = cbsdmq.Queued
	}
	l.giveSlot(j)
	l.unready(j)
	r := reply(state, code, reason, hint)
	r.Warnings = j.plan.Warnings
	if j.plan.Class == cbsd.Change && j.row.Flags&journal.HandingBack == 0 {
		r.Outcome = cbsdmq.Unchanged
	}
	e := l.s.finish(j.row, r, nil, 0)
	e.job = j
	l.end(e)
}

// finished lets a job go whose end is in the journal: its guest is free for the
// next, and its replies may leave.
func (l *loop) finished(e *ending) {
	j := e.job
	if e.key != (runner.Key{}) {
		l.s.running.Add(-1)
		l.s.live.gone(j)
	}
	l.forget(j)
	j.tellEnd()
	if e.finish.Late {
		l.s.log.Error("a job had ended before", "job", j.printedID(l.s.cfg.Pool), "state", e.finish.State)
		return
	}
	if j.streaming != nil {
		j.streaming.finish(streamEnd{seq: j.row.Seq, addrs: j.addrs, body: e.body})
	} else {
		l.s.owe(j.row.Seq, j.addrs, e.body)
	}
	now := time.Now()
	l.s.cfg.Stats.count(e.finish.State, j.row.Accepted, j.row.Begun, now)
	l.s.log.Info("job ended", append(l.s.about(j), "state", e.finish.State, "outcome", e.outcome, "took", took(j.row, now))...)
}

// about is what the log says of which job.
func (s *Server) about(j *job) []any {
	return []any{
		"job", j.printedID(s.cfg.Pool), "command", j.row.Command, "guest", j.row.Guest, "sender", j.row.Sender, "signer", j.row.Signer,
	}
}

// took is how long the command of a job has run.
func took(row *journal.Job, now time.Time) time.Duration {
	if row.Begun.IsZero() {
		return 0
	}
	return max(0, now.Sub(row.Begun)).Round(time.Millisecond)
}

// tellEnd calls those who wait for the end of a job in this process.
func (j *job) tellEnd() {
	for _, f := range j.ended {
		f()
	}
	j.ended = nil
}

// refusal is the end of a job that was never accepted as work.
func refusal(err error) *journal.Finish {
	b, err := json.Marshal(reply(cbsdmq.Refused, cbsdmq.ExitRefused, err.Error(), cbsdmq.HintOf(err)))
	if err != nil {
		b = nil
	}
	return &journal.Finish{State: cbsdmq.Refused, Result: b}
}

func refusedReason(f *journal.Finish) string {
	var r cbsdmq.Reply
	_ = json.Unmarshal(f.Result, &r)
	return r.Reason
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}

// printable makes a string from outside fit for logs and listings.
func printable(s string) string {
	const most = 64
	b := bytes.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return '?'
		}
		return r
	}, []byte(s))
	if len(b) > most {
		b = append(b[:most:most], "..."...)
	}
	return strings.ToValidUTF8(string(b), "?")
}
