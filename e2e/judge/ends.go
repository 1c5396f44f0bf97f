package judge

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/cbsd/cbsdmq"
)

func once(t *trial, c *Check) {
	for _, f := range t.order {
		if !f.Changes {
			continue
		}
		c.Looked++
		switch {
		case len(f.acts) <= 1:
		case t.rolledBack(f):
			c.Excused++
		default:
			c.broken(f.ID, t.evidence(f), "it began %d times", len(f.acts))
		}
	}
}

// overlap: while a command that changes a guest is at work no other begins
// there. What was killed wrote no end: there the lock counts that it had.
func overlap(t *trial, c *Check) {
	type key struct{ pool, guest string }
	on := make(map[key][]Act)
	jobs := make(map[string]*file)
	for _, f := range t.order {
		if !f.Changes {
			continue
		}
		for _, a := range f.acts {
			jobs[a.Job] = f
			c.Looked++
			if len(a.Overlaps) > 0 {
				c.broken(f.ID, t.evidence(f), "it began while another was at work on %s", strings.Join(a.Overlaps, ", "))
				continue
			}
			for _, guest := range a.Guests {
				on[key{a.Pool, guest}] = append(on[key{a.Pool, guest}], a)
			}
		}
	}
	for where, acts := range on {
		slices.SortFunc(acts, func(a, b Act) int { return a.Begin.Compare(b.Begin) })
		var latest *Act // to end, of those before
		for i := range acts {
			a := &acts[i]
			if latest != nil && a.Begin.Before(latest.End) {
				c.broken(jobs[a.Job].ID, slices.Concat(latest.Lines, a.Lines), "it began while %s was at work on %s", jobs[latest.Job].ID, where.guest)
			}
			if latest == nil || a.End.After(latest.End) {
				latest = a
			}
		}
	}
}

// states calls check for each end of the state that was told, but for those
// that the sender rules out.
func states(t *trial, c *Check, state cbsdmq.State, check func(f *file, r Reply)) {
	for _, f := range t.order {
		for _, r := range f.ends() {
			if r.State != state {
				continue
			}
			if c.Looked++; t.rolledBack(f) {
				c.Excused++
				continue
			}
			if f.Ends != nil && !slices.Contains(f.Ends, state) {
				c.broken(f.ID, t.evidence(f), "it ended %s: %s", state, r.Reason)
				continue
			}
			check(f, r)
		}
	}
}

func done(t *trial, c *Check) {
	states(t, c, cbsdmq.Done, func(f *file, r Reply) {
		well := slices.ContainsFunc(f.acts, func(a Act) bool { return !a.End.IsZero() && a.Status == 0 })
		if !well && t.seen(f) {
			c.broken(f.ID, t.evidence(f), "it is done, but its command did not end well")
		}
	})
}

func failed(t *trial, c *Check) {
	const cannotRun, missing, bySignal = 126, 127, 128
	states(t, c, cbsdmq.Failed, func(f *file, r Reply) {
		a := f.last()
		switch {
		case !t.seen(f):
		case a == nil:
			if r.ErrCode != cannotRun && r.ErrCode != missing {
				c.broken(f.ID, t.evidence(f), "it failed, but did not run")
			}
		case r.ErrCode > bySignal && t.killed(a):
		case a.End.IsZero():
			c.broken(f.ID, t.evidence(f), "it failed with %d, but its command wrote no end and nobody killed it", r.ErrCode)
		case r.Outcome == cbsdmq.OutcomeFailed && a.Status == 0:
		case !slices.ContainsFunc(f.acts, func(a Act) bool { return a.Status == r.ErrCode && a.Status != 0 }):
			c.broken(f.ID, t.evidence(f), "it failed with %d, but its command ended with %d", r.ErrCode, a.Status)
		}
	})
}

func cancelled(t *trial, c *Check) {
	states(t, c, cbsdmq.Cancelled, func(f *file, r Reply) {
		if len(f.Cancels) == 0 {
			c.broken(f.ID, t.evidence(f), "nobody asked for it")
			return
		}
		a := f.last()
		if a == nil {
			return
		}
		asked := f.Cancels[0].At
		switch {
		case a.End.IsZero() || !a.End.Add(t.Slack).Before(asked):
		case t.unseen(f, a), !f.Changes && t.happened(RunnerLost, f): // its end was lost, and it was to run again
			c.Excused++
		default:
			c.broken(f.ID, t.evidence(f), "its command had ended when somebody asked for it")
		}
	})
	// Whatever it says then: a cancel that was confirmed before the begin keeps
	// the command from beginning.
	for _, f := range t.order {
		for _, s := range f.Cancels {
			if s.Confirmed && len(f.acts) > 0 && f.acts[0].Begin.After(s.Done.Add(t.Slack)) && !t.rolledBack(f) {
				if t.late(f, &f.acts[0], s.Done) {
					c.Excused++
					continue
				}
				c.broken(f.ID, t.evidence(f), "it began after its cancel was confirmed")
			}
		}
	}
}

// unseen reports whether the runner was frozen when the command ended: what was
// signalled then had ended already, and nobody could know.
func (t *trial) unseen(f *file, a *Act) bool {
	return slices.ContainsFunc(t.Events, func(e Event) bool {
		return (e.Kind == RunnerFrozen || e.Kind == RunnerLost) && t.during(e, f) &&
			!a.End.Before(e.from().Add(-t.Slack)) && !a.End.After(e.At)
	})
}

func refused(t *trial, c *Check) {
	states(t, c, cbsdmq.Refused, func(f *file, r Reply) {
		expired := !f.Expires.IsZero() && !r.At.Before(f.Expires.Add(-t.Slack))
		switch {
		case len(f.acts) > 0:
			c.broken(f.ID, t.evidence(f), "it is refused, and it ran")
		case r.Reason == "":
			c.broken(f.ID, t.evidence(f), "it is refused without a reason")
		case !f.Hostile && !expired && !slices.Contains(f.Ends, cbsdmq.Refused):
			c.broken(f.ID, t.evidence(f), "it is refused and breaks no rule: %s", r.Reason)
		}
	})
	for _, f := range t.order {
		a := f.last()
		if !f.Expires.IsZero() && a != nil && a.Begin.After(f.Expires.Add(t.Slack)) && (f.Changes || len(f.acts) == 1 && !t.happened(RunnerLost, f)) {
			if t.late(f, a, f.Expires) {
				c.Excused++
				continue
			}
			c.broken(f.ID, t.evidence(f), "it began after it had expired")
		}
	}
}

// late reports whether the runner, told to begin by then, may have been frozen until
// it did.
func (t *trial) late(f *file, a *Act, then time.Time) bool {
	return slices.ContainsFunc(t.Events, func(e Event) bool {
		return e.Kind == RunnerFrozen && t.during(e, f) && e.from().Before(then.Add(t.Slack)) && !a.Begin.After(e.At.Add(t.Slack))
	})
}

func timedOut(t *trial, c *Check) {
	states(t, c, cbsdmq.Timeout, func(f *file, r Reply) {
		a := f.last()
		switch {
		case a == nil && t.seen(f):
			c.broken(f.ID, t.evidence(f), "it did not run")
		case t.TimeLimit > 0 && t.happened(ClockSet, f): // it is counted by that clock
			c.Excused++
		case t.TimeLimit == 0 || a != nil && r.At.Sub(a.Begin) < t.TimeLimit-t.Slack:
			c.broken(f.ID, t.evidence(f), "it was not at work for so long")
		case a != nil && !a.End.IsZero() && a.End.Sub(a.Begin) < t.TimeLimit-t.Slack && t.unseen(f, a):
			c.Excused++
		case a != nil && !a.End.IsZero() && a.End.Sub(a.Begin) < t.TimeLimit-t.Slack:
			c.broken(f.ID, t.evidence(f), "its command had ended")
		}
	})
}

// unknown: the runner was lost after the command may have begun and before its
// end was noticed, or the journal went back in time.
func unknown(t *trial, c *Check) {
	states(t, c, cbsdmq.Unknown, func(f *file, r Reply) {
		a := f.last()
		for _, e := range t.Events {
			if e.Kind != RunnerLost && e.Kind != Rollback || !t.during(e, f) {
				continue
			}
			if e.Jobs != nil && !slices.ContainsFunc(e.Jobs, func(id string) bool { return t.printed[id] == f }) {
				continue // it never had it, or had told its end
			}
			if a == nil || a.End.IsZero() || !a.End.Add(t.Slack).Before(e.from()) {
				return
			}
		}
		c.broken(f.ID, t.evidence(f), "it is unknown, and its end could be known")
	})
}

// whole: each piece of output that anybody got is what the command printed
// there, and the final reply has the end of it.
func whole(t *trial, c *Check) {
	for _, f := range t.order {
		total, text, known := t.printout(f)
		if !known || t.rolledBack(f) {
			continue
		}
		for _, o := range f.outputs {
			if strings.HasPrefix(o.By, StreamedBy) {
				continue
			}
			c.Looked++
			if o.Missing > 0 && t.happened(DiskFull, f) {
				c.Excused++
			} else if what := differs(o, text, total); what != "" {
				c.broken(f.ID, t.evidence(f), "%s has another output: %s", o.By, what)
			}
		}
		for _, r := range f.replies {
			if r.Short {
				continue
			}
			c.Looked++
			end := r.Offset + int64(len(r.Output))
			switch {
			case len(r.Output) == 0 && (!r.Final || r.Follower != ""):
			case f.Legacy && total == 0 && r.Reason != "" && strings.Contains(string(r.Output), r.Reason): // original clients show nothing else
			case end > total || r.Final && end != total:
				c.broken(f.ID, t.evidence(f), "%s ends at %d, the command printed %d", r.String(), end, total)
			case text != nil && string(text[r.Offset:end]) != string(r.Output):
				c.broken(f.ID, t.evidence(f), "%s is not what the command printed there", r.String())
			case text == nil && r.Offset == 0 && end == total && !f.summed(r.Output):
				c.broken(f.ID, t.evidence(f), "%s is not what the command printed", r.String())
			}
		}
	}
}

// StreamedBy begins the By of an Output that was put together from the pieces
// that came by themselves.
const StreamedBy = "stream"

func streamed(t *trial, c *Check) {
	for _, f := range t.order {
		total, text, known := t.printout(f)
		known = known && !t.rolledBack(f)
		for _, o := range f.outputs {
			if !strings.HasPrefix(o.By, StreamedBy) {
				continue
			}
			c.Looked++
			if o.Missing > 0 && t.happened(DiskFull, f) {
				c.Excused++
			} else if o.Broken != "" {
				c.broken(f.ID, t.evidence(f), "%s: %s", o.By, o.Broken)
			} else if what := differs(o, text, total); known && what != "" {
				c.broken(f.ID, t.evidence(f), "%s has another output: %s", o.By, what)
			}
		}
	}
}

// printout is how much the command printed in the one run that ended, and the
// text itself where somebody has it whole.
func (t *trial) printout(f *file) (total int64, text []byte, known bool) {
	a := f.last()
	if a == nil || a.End.IsZero() || a.Sum == "" || len(f.acts) > 1 || f.Hostile {
		return 0, nil, false
	}
	for _, r := range f.finals() {
		lost := r.State == cbsdmq.Cancelled && !f.Changes && t.happened(RunnerLost, f) // and was to run again
		if r.State == cbsdmq.Unknown || lost {
			return 0, nil, false // what it printed may be lost with its end
		}
	}
	for _, o := range f.outputs {
		if int64(len(o.Data)) == a.Bytes && f.summed(o.Data) {
			return a.Bytes, nonNil(o.Data), true
		}
	}
	for _, r := range f.replies {
		if r.Offset == 0 && int64(len(r.Output)) == a.Bytes && f.summed(r.Output) {
			return a.Bytes, nonNil(r.Output), true
		}
	}
	return a.Bytes, nil, true
}

func nonNil(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}

func (f *file) summed(stdout []byte) bool { return OutputSum(stdout) == f.last().Sum }

// differs says in what o is not the text, of which only the length may be known.
func differs(o Output, text []byte, total int64) string {
	switch {
	case o.Missing > 0:
		return "bytes are not kept"
	case int64(len(o.Data)) != total:
		return sizes(int64(len(o.Data)), total)
	case total > 0 && (text == nil || string(text) != string(o.Data)):
		return "other bytes"
	}
	return ""
}

func sizes(has, printed int64) string {
	return fmt.Sprintf("%d bytes, the command printed %d", has, printed)
}
