package judge

import (
	"slices"
	"strings"
	"time"
)

// A trial is a history with its parts put together.
type trial struct {
	*History
	Rules
	jobs    map[string]*file
	order   []*file // as in History.Jobs
	printed map[string]*file
	nobody  []Act   // acts of no job that is known
	stray   []Reply // replies for no job that is known
	excused int     // replies that may be of any job
}

// A file is all that is known of one job.
type file struct {
	*Job
	acts    []Act
	replies []Reply
	outputs []Output
}

func newTrial(h *History, r Rules) *trial {
	t := &trial{History: h, Rules: r, jobs: make(map[string]*file), printed: make(map[string]*file)}
	tokens := make(map[string]*file)
	for i := range h.Jobs {
		f := &file{Job: &h.Jobs[i]}
		t.jobs[f.ID], t.printed[f.ID] = f, f
		t.order = append(t.order, f)
		if f.Token != "" {
			tokens[f.Token] = f
		}
	}
	for _, a := range h.Acts {
		f := t.printed[a.Job]
		for _, arg := range a.Args {
			if _, value, ok := strings.Cut(arg, "="); ok {
				arg = value
			}
			if by := tokens[arg]; by != nil {
				f = by
			}
		}
		switch {
		case f != nil:
			f.acts = append(f.acts, a)
			if a.Job != "-" {
				t.printed[a.Job] = f
			}
		case a.Job != "-":
			t.nobody = append(t.nobody, a)
		}
	}
	for _, f := range t.order {
		slices.SortStableFunc(f.acts, func(a, b Act) int { return a.Begin.Compare(b.Begin) })
	}
	atAddress := make(map[string][]*file)
	for _, f := range t.order {
		for _, s := range f.Submits {
			if s.Address != "" {
				atAddress[s.Address] = append(atAddress[s.Address], f)
			}
		}
	}
	// Those of addresses first: they tell which job a number is of.
	for _, control := range []bool{false, true} {
		for _, reply := range h.Replies {
			if control != (reply.Address == "") {
				continue
			}
			if t.nameless(reply) {
				t.excused++
				continue
			}
			if f := t.concerned(reply, atAddress[reply.Address]); f != nil {
				f.replies = append(f.replies, reply)
			} else {
				t.stray = append(t.stray, reply)
			}
		}
	}
	for _, o := range h.Outputs {
		if f := t.jobs[o.Job]; f != nil {
			f.outputs = append(f.outputs, o)
		}
	}
	return t
}

// nameless reports whether a reply to who waits for a number may be a stranger's
// without anything that would tell: its broker may have given the number again, and
// all that is seen is the exit status of a program, or somebody has not learned
// which number his job was given.
func (t *trial) nameless(reply Reply) bool {
	waits := t.jobs[reply.For]
	if waits == nil || !waits.Legacy || waits.Asks || t.printed[reply.Job] != nil {
		return false
	}
	since := func(at time.Time) bool {
		return at.After(waits.first().Add(-t.Slack)) && at.Before(reply.At.Add(t.Slack))
	}
	again := slices.ContainsFunc(t.Events, func(e Event) bool {
		return e.Kind == BrokerForgot && (e.Pool == "" || e.Pool == waits.Pool) && since(e.At)
	})
	return again && (reply.Short && reply.Job == "" || slices.ContainsFunc(t.order, func(f *file) bool {
		return f != waits && f.Legacy && f.Pool == waits.Pool && since(f.first()) && f.Submits[0].Address == ""
	}))
}

// concerned finds the job of a reply, nil if it is of none. there are those with
// its address.
func (t *trial) concerned(reply Reply, there []*file) *file {
	if f := t.printed[reply.Job]; f != nil {
		return f
	}
	if reply.For == "" {
		f := unnumbered(reply, there)
		if f != nil && reply.Job != "" {
			t.printed[reply.Job] = f
		}
		return f
	}
	waits := t.jobs[reply.For]
	if waits == nil || reply.Job != "" && !waits.Legacy {
		return nil
	}
	// Where a broker gave a number again it is the last one's, whoever reads it.
	f := waits
	for _, other := range there {
		if other.Legacy && other.first().After(f.first()) && !other.first().After(reply.At) {
			f = other
		}
	}
	if reply.Job != "" {
		t.printed[reply.Job] = f
	}
	return f
}

// unnumbered is the job of an original client that got the number of reply last,
// of those of which it is not known as what they ran.
func unnumbered(reply Reply, there []*file) (last *file) {
	for _, f := range there {
		if f.Legacy && len(f.acts) == 0 && !f.first().After(reply.At) && (last == nil || f.first().After(last.first())) {
			last = f
		}
	}
	return last
}

// last is the last time that the job's command ran, nil if it did not.
func (f *file) last() *Act {
	if len(f.acts) == 0 {
		return nil
	}
	return &f.acts[len(f.acts)-1]
}

// finals are the job's last replies.
func (f *file) finals() (rs []Reply) {
	for _, r := range f.replies {
		if r.Final {
			rs = append(rs, r)
		}
	}
	return rs
}

// ends are the different ends that were told, as completely as they were.
func (f *file) ends() (rs []Reply) {
	finals := f.finals()
	slices.SortStableFunc(finals, func(a, b Reply) int {
		switch {
		case a.Short == b.Short:
			return 0
		case a.Short:
			return 1
		}
		return -1
	})
	for _, r := range finals {
		if !slices.ContainsFunc(rs, func(o Reply) bool { return sameEnd(o, r) }) {
			rs = append(rs, r)
		}
	}
	return rs
}

func sameEnd(a, b Reply) bool {
	return a.State == b.State && a.ErrCode == b.ErrCode &&
		(a.Short || b.Short || a.Outcome == b.Outcome && a.Reason == b.Reason)
}

// ended is when somebody first knew the end; zero = nobody does.
func (f *file) ended() (at time.Time) {
	for _, r := range f.finals() {
		if at.IsZero() || r.At.Before(at) {
			at = r.At
		}
	}
	return at
}

// evidence is all that there is about the job, and the events of the time.
func (t *trial) evidence(f *file) []string {
	lines := []string{f.String()}
	for _, s := range f.Submits {
		lines = append(lines, s.String())
	}
	for _, c := range f.Cancels {
		lines = append(lines, c.String())
	}
	for _, a := range f.acts {
		lines = append(lines, a.Lines...)
	}
	for _, r := range f.replies {
		lines = append(lines, r.String())
	}
	for _, e := range t.Events {
		if t.during(e, f) && (e.PID == 0 || slices.ContainsFunc(f.acts, func(a Act) bool { return a.PID == e.PID })) {
			lines = append(lines, e.String())
		}
	}
	const most = 40
	if len(lines) > most {
		lines = append(lines[:most], "...")
	}
	return lines
}

// during reports whether e was between the job's submit and its end.
func (t *trial) during(e Event, f *file) bool {
	end := f.ended()
	return (e.Pool == "" || e.Pool == f.Pool) && !e.At.Before(f.first().Add(-t.Slack)) &&
		(end.IsZero() || !e.from().After(end.Add(t.Slack)))
}

func (e Event) from() time.Time {
	if e.From.IsZero() {
		return e.At
	}
	return e.From
}

// happened reports whether an event of the kind was between the job's submit
// and its end.
func (t *trial) happened(kind string, f *file) bool {
	return slices.ContainsFunc(t.Events, func(e Event) bool { return e.Kind == kind && t.during(e, f) })
}

// rolledBack reports whether the journal went back to a time from which on it
// knows nothing more of the job, or less. Then the job may be forgotten, or begin
// and end once more when its sender or a person says so.
func (t *trial) rolledBack(f *file) bool {
	return slices.ContainsFunc(t.Events, func(e Event) bool {
		end := f.ended()
		return e.Kind == Rollback && (e.Pool == "" || e.Pool == f.Pool) && (end.IsZero() || !end.Add(t.Slack).Before(e.from())) &&
			!e.At.Before(f.first().Add(-t.Slack))
	})
}

// killed reports whether somebody killed the command.
func (t *trial) killed(a *Act) bool {
	return slices.ContainsFunc(t.Events, func(e Event) bool {
		return e.Kind == CommandKilled && e.PID == a.PID && (e.Pool == "" || e.Pool == a.Pool) && !e.At.Before(a.Begin.Add(-t.Slack)) &&
			(a.End.IsZero() || e.At.Before(a.End.Add(t.Slack)))
	})
}

// seen reports whether the job's command is in the truth if it ran.
func (t *trial) seen(f *file) bool { return f.Changes || !t.ReadsUnseen }
