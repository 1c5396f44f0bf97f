package judge

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/cbsd/cbsdmq"
)

// answered: a job whose submit was confirmed has a final reply at each address
// at which somebody waits, and where nobody does its end is known all the same.
// So is that of a job that was begun without the sender's knowledge.
func answered(t *trial, c *Check) {
	for _, f := range t.order {
		finals := f.finals()
		if !f.confirmed() {
			if t.Partial || len(f.acts) == 0 && f.Accepted.IsZero() {
				continue
			}
			switch c.Looked++; {
			case len(finals) > 0:
			case t.forgotten(f, false), t.rolledBack(f):
				c.Excused++
			default:
				c.broken(f.ID, t.evidence(f), "it was accepted and has no end")
			}
			continue
		}
		for _, s := range f.Submits {
			if !s.Confirmed {
				continue
			}
			c.Looked++
			there := slices.ContainsFunc(finals, func(r Reply) bool {
				return s.Address == "" || s.Left || r.Address == s.Address
			})
			switch {
			case there:
			case t.forgotten(f, len(finals) > 0), t.rolledBack(f), t.addressUndone(f, s):
				c.Excused++
			case len(finals) > 0:
				c.broken(f.ID, t.evidence(f), "no final reply at %s", s.Address)
			default:
				c.broken(f.ID, t.evidence(f), "it was confirmed and has no end")
			}
		}
	}
}

// addressUndone reports whether a rollback may have undone that the address of s
// came to be known. Where a job has one address only, it was known as soon as the
// job was.
func (t *trial) addressUndone(f *file, s Submit) bool {
	several := slices.ContainsFunc(f.Submits, func(o Submit) bool { return o.Address != s.Address })
	return several && slices.ContainsFunc(t.Events, func(e Event) bool {
		return e.Kind == Rollback && (e.Pool == "" || e.Pool == f.Pool) && !e.At.Before(s.At.Add(-t.Slack))
	})
}

// forgotten reports whether a broker may have lost the job before an agent had
// it, or the reply after it was ended.
func (t *trial) forgotten(f *file, ended bool) bool {
	return t.lost(f, ended) || ended && !f.Asks && t.since(RepliesForgot, f)
}

func (t *trial) lost(f *file, ended bool) bool {
	if !ended && !f.Legacy && (len(f.acts) > 0 || !f.Accepted.IsZero()) {
		return false // a reply to a number that the broker may give again is never sent
	}
	return t.since(BrokerForgot, f)
}

// since reports whether something happened after the job was submitted.
func (t *trial) since(kind string, f *file) bool {
	return slices.ContainsFunc(t.Events, func(e Event) bool {
		return e.Kind == kind && (e.Pool == "" || e.Pool == f.Pool) && !e.At.Before(f.first().Add(-t.Slack))
	})
}

func oneEnd(t *trial, c *Check) {
	for _, f := range t.order {
		if t.rolledBack(f) {
			c.Excused++
			continue
		}
		var first *Reply
		for _, r := range f.finals() {
			if r.Follower != "" {
				continue
			}
			c.Looked++
			if first == nil {
				first = &r
			} else if !sameEnd(*first, r) {
				c.broken(f.ID, t.evidence(f), "it ended %s %d %s and %s %d %s", first.State, first.ErrCode, first.Outcome, r.State, r.ErrCode, r.Outcome)
				break
			}
			if !r.State.Ended() {
				c.broken(f.ID, t.evidence(f), "its final reply has the state %q", r.State)
			}
			if (r.State == cbsdmq.Done) != (r.ErrCode == 0) {
				c.broken(f.ID, t.evidence(f), "it is %s with the code %d", r.State, r.ErrCode)
			}
		}
	}
}

// followers: what the control lane says of a job's end is what the replies say.
func followers(t *trial, c *Check) {
	for _, f := range t.order {
		finals := f.finals()
		if t.rolledBack(f) {
			c.Excused++
			continue
		}
		for _, r := range finals {
			if r.Follower == "" {
				continue
			}
			c.Looked++
			if !sameEnd(finals[0], r) {
				c.broken(f.ID, t.evidence(f), "%s was told %s %d %s, before it was %s %d %s", r.Follower, r.State, r.ErrCode, r.Outcome, finals[0].State, finals[0].ErrCode, finals[0].Outcome)
				break
			}
		}
	}
}

func addressee(t *trial, c *Check) {
	c.Looked, c.Excused = t.excused, t.excused
	for _, f := range t.order {
		for _, r := range f.replies {
			if r.Address == "" {
				continue
			}
			c.Looked++
			switch {
			case r.For != "" && r.For != f.ID && t.renumbered(f, t.jobs[r.For]):
				c.Excused++
			case !slices.ContainsFunc(f.Submits, func(s Submit) bool { return s.Address == r.Address }):
				c.broken(f.ID, t.evidence(f), "its reply was read at %s", r.Address)
			case r.For != "" && r.For != f.ID:
				c.broken(f.ID, t.evidence(f), "its reply came to who waits for %s", r.For)
			}
		}
	}
	for _, r := range t.stray {
		c.Looked++
		c.broken(cmp.Or(r.Job, r.For), []string{r.String()}, "a reply for a job that nobody submitted")
	}
}

// renumbered reports whether a broker that forgot everything gave the number of
// other's message again, to f's, while somebody still waited at that address.
func (t *trial) renumbered(f, other *file) bool {
	return other != nil && slices.ContainsFunc(t.Events, func(e Event) bool {
		return e.Kind == BrokerForgot && (e.Pool == "" || e.Pool == f.Pool) &&
			e.At.After(other.first().Add(-t.Slack)) && e.At.Before(f.first().Add(t.Slack))
	})
}

// order: of two jobs for a guest, of which one sender had the first confirmed
// before it submitted the second, the first begins first.
func order(t *trial, c *Check) {
	type lane struct{ sender, pool, guest string }
	last := make(map[lane]*file) // of those before, the one that began last
	for _, f := range t.order {
		if len(f.acts) == 0 || !f.Changes && !f.InOrder || f.Sender == "" || !t.seen(f) {
			continue
		}
		for _, guest := range f.Guests {
			l := lane{f.Sender, f.Pool, guest}
			before := last[l]
			if before != nil && !before.settled().After(f.first()) {
				c.Looked++
				if f.acts[0].Begin.Before(before.acts[0].Begin) {
					if t.happened(BrokerForgot, before) || t.happened(Rollback, before) || t.happened(Reordered, before) {
						c.Excused++
					} else {
						c.broken(f.ID, append(t.evidence(before), t.evidence(f)...), "it began before %s, which was submitted before it, on %s", before.ID, guest)
					}
				}
			}
			if !f.settled().IsZero() && (before == nil || f.acts[0].Begin.After(before.acts[0].Begin)) {
				last[l] = f
			}
		}
	}
}

// settled is when the first confirmation came; zero: none did.
func (f *file) settled() (at time.Time) {
	for _, s := range f.Submits {
		if s.Confirmed && (at.IsZero() || s.Done.Before(at)) {
			at = s.Done
		}
	}
	return at
}

// hostile: what must not run has not, nor has what nobody sent, and nothing was
// evaluated.
func hostile(t *trial, c *Check) {
	for _, f := range t.order {
		if !f.Hostile {
			continue
		}
		c.Looked++
		if len(f.acts) > 0 {
			c.broken(f.ID, t.evidence(f), "it ran")
		}
	}
	for _, a := range t.nobody {
		c.Looked++
		c.broken(a.Job, a.Lines, "%s ran for a job that nobody submitted", a.Command)
	}
	for _, trace := range t.Canaries {
		c.Looked++
		c.broken("-", []string{trace}, "%s", trace)
	}
}

func resources(t *trial, c *Check) {
	for _, m := range t.Measures {
		c.Looked++
		if m.After > m.Before+m.Room {
			c.broken("-", []string{m.String()}, "%s grew", m.Name)
		}
	}
}

func truth(t *trial, c *Check) {
	c.Looked = len(t.Acts) + len(t.Broken)
	for _, line := range t.Broken {
		c.broken("-", []string{line}, "a line that cannot be read")
	}
}

// asAsked: the command is the one that was asked for, with its arguments, and
// answers bear the id that it ran with.
func asAsked(t *trial, c *Check) {
	for _, f := range t.order {
		for _, a := range f.acts {
			c.Looked++
			switch {
			case a.Command != f.Command:
				c.broken(f.ID, t.evidence(f), "%s ran", a.Command)
			case f.Args != nil && !slices.Equal(a.Args, f.Args):
				c.broken(f.ID, t.evidence(f), "it ran with %s", strings.Join(a.Args, " "))
			case !f.Legacy && a.Job != f.ID:
				c.broken(f.ID, t.evidence(f), "it ran as %s", a.Job)
			case a.Job != f.acts[0].Job:
				c.broken(f.ID, t.evidence(f), "it ran as %s and as %s", f.acts[0].Job, a.Job)
			}
		}
		for _, r := range f.replies {
			if r.Job != "" && len(f.acts) > 0 && r.Job != f.acts[0].Job {
				c.broken(f.ID, t.evidence(f), "it ran as %s and was answered as %s", f.acts[0].Job, r.Job)
			}
		}
	}
}
