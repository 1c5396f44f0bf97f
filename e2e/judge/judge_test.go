package judge

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/cbsd/cbsdmq"
)

var noon = time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC)

func at(seconds float64) time.Time { return noon.Add(time.Duration(seconds * float64(time.Second))) }

var rules = Rules{Slack: 50 * time.Millisecond, TimeLimit: 5 * time.Second}

// innocent is a history in which every promise was kept, with a job for every
// end.
func innocent() *History {
	h := &History{Measures: []Measure{{Name: "descriptors of the agent", Before: 10, After: 11, Room: 3}}}
	// add records a job submitted at t, whose command ran from begin to end;
	// begin 0 = not, end 0 = it wrote none.
	add := func(name string, t, begin, end float64, status int, state cbsdmq.State, code int) *Job {
		id := "pool1/" + name
		h.Jobs = append(h.Jobs, Job{
			ID: id, Token: "tok" + name, Pool: "pool1", Sender: "s", Command: "bset", Args: []string{"jname=vm1", "tags=tok" + name},
			Guests: []string{"vm1"}, Changes: true,
			Submits: []Submit{{At: at(t), Done: at(t + 0.01), Confirmed: true, Address: "box"}},
		})
		out := []byte("output of " + name + "\n")
		told := t + 1
		if begin > 0 {
			a := Act{Pool: "pool1", Job: id, PID: len(h.Jobs), Command: "bset", Args: []string{"jname=vm1", "tags=tok" + name}, Guests: []string{"vm1"}, Begin: at(begin), Lines: []string{"B " + name}}
			if end > 0 {
				a.End, a.Status, a.Bytes, a.Sum = at(end), status, int64(len(out)), OutputSum(out)
				told = end + 0.1
			}
			h.Acts = append(h.Acts, a)
		}
		r := Reply{Job: id, Address: "box", At: at(told), Final: true, State: state, ErrCode: code, Output: out, Reason: "a reason"}
		h.Replies = append(h.Replies, r)
		r.Address, r.Follower, r.At = "", "late", at(told+100)
		h.Replies = append(h.Replies, r)
		return &h.Jobs[len(h.Jobs)-1]
	}
	event := func(kind string, t float64, pid int) {
		h.Events = append(h.Events, Event{Kind: kind, Pool: "pool1", At: at(t), PID: pid})
	}
	add("a", 1, 2, 3, 0, cbsdmq.Done, 0)
	add("b", 1.5, 4, 5, 0, cbsdmq.Done, 0).Stream = true
	h.Outputs = append(h.Outputs, Output{Job: "pool1/a", By: "output", Data: []byte("output of a\n")}, Output{Job: "pool1/b", By: StreamedBy, Data: []byte("output of b\n")})
	add("fails", 6, 7, 8, 3, cbsdmq.Failed, 3)
	add("killed", 9, 10, 0, 0, cbsdmq.Failed, 137)
	event(CommandKilled, 10, 4)
	add("cancelled", 11, 12, 0, 0, cbsdmq.Cancelled, 130).Cancels = []Cancel{{At: at(12.5), Done: at(12.6), Confirmed: true}}
	h.Jobs = append(h.Jobs, Job{
		ID: "hostile", Token: "tokhostile", Pool: "pool1", Command: "bset", Hostile: true, Legacy: true,
		Submits: []Submit{{At: at(13), Done: at(13), Confirmed: true, Address: "17"}},
	})
	h.Replies = append(h.Replies, Reply{Job: "pool1/17", For: "hostile", Address: "17", At: at(13), Final: true, State: cbsdmq.Refused, ErrCode: 2, Reason: "; is shell"})
	add("late", 20, 21, 0, 0, cbsdmq.Timeout, 124)
	h.Replies[len(h.Replies)-2].At = at(26.5)
	add("lost", 30, 31, 33, 0, cbsdmq.Unknown, 125)
	event(RunnerLost, 32, 0)
	return h
}

// mutate finds what name is of.
func (h *History) job(name string) *Job { return &h.Jobs[h.index(name)] }

func (h *History) index(name string) int {
	for i := range h.Jobs {
		if h.Jobs[i].ID == "pool1/"+name {
			return i
		}
	}
	panic(name)
}

func (h *History) act(name string) *Act {
	for i := range h.Acts {
		if h.Acts[i].Job == "pool1/"+name {
			return &h.Acts[i]
		}
	}
	panic(name)
}

func (h *History) reply(name string) *Reply {
	for i := range h.Replies {
		if h.Replies[i].Job == "pool1/"+name {
			return &h.Replies[i]
		}
	}
	panic(name)
}

func (h *History) without(name string) {
	var rs []Reply
	for _, r := range h.Replies {
		if r.Job != "pool1/"+name {
			rs = append(rs, r)
		}
	}
	h.Replies = rs
}

// forgets has the broker forget a job of the number that the hostile one is given
// then; who submitted it reads that one's reply.
func (h *History) forgets() {
	h.Jobs = append(h.Jobs, Job{
		ID: "forgotten", Pool: "pool1", Legacy: true,
		Submits: []Submit{{At: at(10), Done: at(10), Confirmed: true, Address: "17"}},
	})
	h.reply("17").For = "forgotten"
	h.Events = append(h.Events, Event{Kind: BrokerForgot, At: at(11)})
}

func TestInnocent(t *testing.T) {
	v := Judge(innocent(), rules)
	if v.Convicted() > 0 {
		var b bytes.Buffer
		v.Write(&b, 10)
		t.Error(b.String())
	}
	for _, c := range v.Checks {
		if c.Looked == 0 {
			t.Errorf("%s looked at nothing", c.Name)
		}
	}
}

// Each mutation is one promise broken, and the check of that promise must say
// so, with the job and evidence.
func TestMutations(t *testing.T) {
	for _, m := range []struct {
		check, what, job string
		mutate           func(h *History)
	}{
		{Answered, "no reply", "a", func(h *History) { h.without("a") }},
		{Answered, "the reply at another address is missing", "a", func(h *History) {
			h.job("a").Submits = append(h.job("a").Submits, Submit{At: at(1), Done: at(1), Confirmed: true, Address: "other"})
		}},
		{Answered, "the reply at another address is missing, and a rollback was before", "a", func(h *History) {
			h.job("a").Submits = append(h.job("a").Submits, Submit{At: at(50), Done: at(50), Confirmed: true, Address: "other"})
			h.Events = append(h.Events, Event{Kind: Rollback, From: at(40), At: at(45)})
		}},
		{Answered, "the end was known before what a rollback undid", "a", func(h *History) {
			h.reply("a").Address, h.reply("a").Follower = "", "early"
			h.Events = append(h.Events, Event{Kind: Rollback, From: at(40), At: at(45)})
		}},
		{Answered, "only pieces", "a", func(h *History) {
			for i := range h.Replies {
				if h.Replies[i].Job == "pool1/a" {
					h.Replies[i].Final = false
				}
			}
		}},
		{Answered, "lost although accepted when the broker forgot", "a", func(h *History) {
			h.without("a")
			h.Events = append(h.Events, Event{Kind: BrokerForgot, At: at(1.5)})
		}},
		{Answered, "no end, when replies were forgotten", "a", func(h *History) {
			h.without("a")
			h.Events = append(h.Events, Event{Kind: RepliesForgot, At: at(1.5)})
		}},
		{Answered, "who asks has no reply, when replies were forgotten", "a", func(h *History) {
			h.reply("a").Address = ""
			h.Replies[0].Follower = "late"
			h.job("a").Asks = true
			h.Events = append(h.Events, Event{Kind: RepliesForgot, At: at(1.5)})
		}},
		{Answered, "whoever waited has gone and the end is not known", "a", func(h *History) { h.without("a"); h.job("a").Submits[0].Left = true }},
		{Answered, "not confirmed, but begun", "a", func(h *History) { h.without("a"); h.job("a").Submits[0].Confirmed = false }},
		{OneEnd, "two ends", "a", func(h *History) {
			r := *h.reply("a")
			r.State, r.ErrCode = cbsdmq.Failed, 1
			h.Replies = append(h.Replies, r)
		}},
		{OneEnd, "another outcome", "a", func(h *History) {
			r := *h.reply("a")
			r.Outcome = cbsdmq.Changed
			h.Replies = append(h.Replies, r)
		}},
		{OneEnd, "no end", "a", func(h *History) { r := *h.reply("a"); r.State = cbsdmq.Running; h.Replies = append(h.Replies, r) }},
		{OneEnd, "done with a code", "a", func(h *History) { h.reply("a").ErrCode = 1; h.Replies[1].ErrCode = 1 }},
		{Addressee, "at a stranger's", "a", func(h *History) { r := *h.reply("a"); r.Address = "other"; h.Replies = append(h.Replies, r) }},
		{Addressee, "of nobody", "x", func(h *History) {
			h.Replies = append(h.Replies, Reply{Job: "pool1/x", Address: "box", Final: true, State: cbsdmq.Done})
		}},
		{Addressee, "of nobody, at the address of an original client whose job ran", "77", func(h *History) {
			h.job("a").Legacy = true
			h.Replies = append(h.Replies, Reply{Job: "pool1/77", Address: "box", At: at(60), Final: true, State: cbsdmq.Done})
		}},
		{Addressee, "the number was given again", "a", func(h *History) {
			r := *h.reply("a")
			r.For = "hostile"
			h.Replies = append(h.Replies, r)
		}},
		{Once, "twice", "a", func(h *History) { h.Acts = append(h.Acts, *h.act("a")) }},
		{Overlap, "by times", "b", func(h *History) { h.act("a").End = at(4.5) }},
		{Overlap, "by the lock", "b", func(h *History) { h.act("b").Overlaps = []string{"vm1: pool1/a 1"} }},
		{Overlap, "with one further back", "lost", func(h *History) { h.act("a").End = at(40) }},
		{Order, "swapped", "b", func(h *History) {
			a, b := h.act("a"), h.act("b")
			a.Begin, a.End, b.Begin, b.End = b.Begin, b.End, a.Begin, a.End
		}},
		{Order, "a read that asked for its place", "b", func(h *History) {
			h.job("b").Changes, h.job("b").InOrder = false, true
			h.act("b").Begin, h.act("b").End = at(1.6), at(1.7)
		}},
		{AsAsked, "another command", "a", func(h *History) { h.act("a").Command = "bremove" }},
		{AsAsked, "other arguments", "a", func(h *History) { h.act("a").Args = []string{"jname=vm1", "tags=toka", "x=1"} }},
		{AsAsked, "under another id", "a", func(h *History) { h.act("a").Job = "pool1/zz" }},
		{AsAsked, "answered under another id", "a", func(h *History) {
			h.job("a").Legacy = true
			h.act("a").Job = "pool1/17"
		}},
		{Done, "the command failed", "a", func(h *History) { h.act("a").Status = 1 }},
		{Done, "the command did not end", "a", func(h *History) { h.act("a").End = time.Time{} }},
		{Done, "it did not run", "a", func(h *History) { h.Acts = h.Acts[1:] }},
		{Done, "another end was right", "a", func(h *History) { h.job("a").Ends = []cbsdmq.State{cbsdmq.Failed} }},
		{Failed, "the command ended well", "fails", func(h *History) { h.act("fails").Status = 0 }},
		{Failed, "with another code", "fails", func(h *History) { h.act("fails").Status = 4 }},
		{Failed, "nobody killed it", "killed", func(h *History) { h.Events = h.Events[1:] }},
		{Failed, "it did not run", "fails", func(h *History) { h.Acts = append(h.Acts[:2:2], h.Acts[3:]...) }},
		{Cancelled, "nobody asked", "cancelled", func(h *History) { h.job("cancelled").Cancels = nil }},
		{Cancelled, "it had ended", "cancelled", func(h *History) { h.act("cancelled").End = at(12.2) }},
		{Cancelled, "it began afterwards", "cancelled", func(h *History) { h.act("cancelled").Begin = at(13) }},
		{Refused, "it ran", "fails", func(h *History) {
			h.reply("fails").State = cbsdmq.Refused
		}},
		{Refused, "without a reason", "hostile", func(h *History) { h.reply("17").Reason = "" }},
		{Refused, "it breaks no rule", "hostile", func(h *History) {
			for i := range h.Jobs {
				h.Jobs[i].Hostile = false
			}
		}},
		{Refused, "it had not expired", "hostile", func(h *History) {
			for i := range h.Jobs {
				h.Jobs[i].Hostile, h.Jobs[i].Expires = false, at(14)
			}
		}},
		{Refused, "it ran after it had expired", "a", func(h *History) { h.job("a").Expires = at(1.5) }},
		{Refused, "a read ran after it had expired", "a", func(h *History) { h.job("a").Expires, h.job("a").Changes = at(1.5), false }},
		{Refused, "it ran after it had expired, and the runner was frozen only then", "a", func(h *History) {
			h.job("a").Expires = at(0.5)
			h.Events = append(h.Events, Event{Kind: RunnerFrozen, From: at(1.9), At: at(2.5)})
		}},
		{Refused, "a change ran after it had expired, and its runner was lost", "a", func(h *History) {
			h.job("a").Expires = at(1.5)
			h.Events = append(h.Events, Event{Kind: RunnerLost, At: at(1.7)})
		}},
		{Timeout, "too early", "late", func(h *History) { h.reply("late").At = at(23) }},
		{Timeout, "too early, and the clock had been set before", "late", func(h *History) {
			h.reply("late").At = at(23)
			h.Events = append(h.Events, Event{Kind: ClockSet, At: at(19)})
		}},
		{Timeout, "it had ended", "late", func(h *History) { h.act("late").End = at(24) }},
		{Timeout, "it did not run", "late", func(h *History) { h.act("late").Args = nil; h.act("late").Job = "-" }},
		{Unknown, "no runner was lost", "lost", func(h *History) { h.Events = h.Events[:1] }},
		{Unknown, "it had ended before", "lost", func(h *History) { h.act("lost").End = at(31.5) }},
		{Unknown, "the runner was lost afterwards", "lost", func(h *History) { h.Events[1].At = at(40) }},
		{Unknown, "the runner that was lost did not have it", "lost", func(h *History) { h.Events[1].Jobs = []string{"pool1/a"} }},
		{Unknown, "that of another pool was lost", "lost", func(h *History) { h.Events[1].Pool = "pool2" }},
		{Whole, "a byte", "a", func(h *History) { h.reply("a").Output = []byte("output of A\n") }},
		{Whole, "the end is missing", "a", func(h *History) { h.reply("a").Output = []byte("output of a") }},
		{Whole, "in the wrong place", "a", func(h *History) { r := h.reply("a"); r.Output, r.Offset = r.Output[:5], 7 }},
		{Whole, "another job's", "a", func(h *History) { h.reply("a").Output = []byte("output of b\n") }},
		{Whole, "as put together", "a", func(h *History) { h.Outputs[0].Data = []byte("output of b\n") }},
		{Whole, "not kept", "a", func(h *History) { h.Outputs[0].Missing = 1 }},
		{Streamed, "a piece is missing", "b", func(h *History) { h.Outputs[1].Data = []byte("output b\n") }},
		{Streamed, "pieces do not fit", "b", func(h *History) { h.Outputs[1].Broken = "a piece at 7, there are 5" }},
		{Followers, "another end", "a", func(h *History) { h.Replies[1].State, h.Replies[1].ErrCode = cbsdmq.Unknown, 125 }},
		{Hostile, "it ran", "hostile", func(h *History) {
			h.Acts = append(h.Acts, Act{Pool: "pool1", Job: "pool1/17", Command: "bset", Args: []string{"tags=tokhostile"}, Begin: at(13)})
		}},
		{Hostile, "nobody's ran", "pool1/99", func(h *History) {
			h.Acts = append(h.Acts, Act{Pool: "pool1", Job: "pool1/99", Command: "bset", Begin: at(13), Lines: []string{"B"}})
		}},
		{Hostile, "evaluated", "-", func(h *History) { h.Canaries = []string{"/tmp/canary is there"} }},
		{Resources, "leaked", "-", func(h *History) { h.Measures[0].After = 100 }},
		{Truth, "half a line", "-", func(h *History) { h.Broken = []string{"B 1"} }},
	} {
		t.Run(m.check+": "+m.what, func(t *testing.T) {
			h := innocent()
			m.mutate(h)
			c := Judge(h, rules).Check(m.check)
			for _, bad := range c.Violations {
				if strings.HasSuffix(bad.Job, m.job) && bad.What != "" && len(bad.Evidence) > 0 {
					return
				}
			}
			t.Errorf("not convicted of %s: %+v", m.job, c)
		})
	}
}

// What may happen is let pass.
func TestExcused(t *testing.T) {
	for what, mutate := range map[string]func(h *History){
		"a broker forgot a job": func(h *History) {
			h.without("a")
			h.Acts = h.Acts[1:]
			h.Outputs = h.Outputs[1:]
			h.Events = append(h.Events, Event{Kind: BrokerForgot, At: at(1.5)})
		},
		"a broker forgot a reply": func(h *History) {
			h.reply("a").Address = ""
			h.Replies[0].Follower = "late"
			h.Events = append(h.Events, Event{Kind: BrokerForgot, At: at(1.5)})
		},
		"a job came back late": func(h *History) {
			h.act("a").Begin, h.act("a").End = at(5.1), at(5.9)
			h.reply("a").At = at(6)
			h.Events = append(h.Events, Event{Kind: Reordered, Pool: "pool1", At: at(1.6)})
		},
		"a reply was forgotten": func(h *History) {
			h.reply("a").Address = ""
			h.Replies[0].Follower = "late"
			h.Events = append(h.Events, Event{Kind: RepliesForgot, At: at(1.5)})
		},
		"an answer on the control lane is for no other job without an address": func(h *History) {
			r := h.reply("17")
			r.Address, r.Follower, r.At = "", "late", at(15)
			for i := range h.Jobs {
				if h.Jobs[i].Hostile {
					h.Jobs[i].Submits[0].Left = true
				}
			}
			h.Jobs = append(h.Jobs, Job{
				ID: "unconfirmed", Token: "tokun", Pool: "pool1", Command: "bset", Changes: true, Legacy: true,
				Submits: []Submit{{At: at(14), Done: at(14)}},
			})
			h.Acts = append(h.Acts, Act{Pool: "pool1", Job: "pool1/18", Command: "bset", Args: []string{"tags=tokun"}, Begin: at(14), End: at(15), Sum: OutputSum(nil)})
			h.Replies = append(h.Replies, Reply{Job: "pool1/18", For: "unconfirmed", Follower: "late", At: at(16), Final: true, State: cbsdmq.Done})
		},
		"only the exit status is known": func(h *History) {
			h.act("fails").Status = 0
			for i := range h.Replies {
				if h.Replies[i].Job == "pool1/fails" {
					h.Replies[i].Outcome = cbsdmq.OutcomeFailed
				}
			}
			r := Reply{For: "pool1/fails", Address: "box", At: at(8), Final: true, State: cbsdmq.Failed, ErrCode: 3, Short: true}
			h.Replies = append([]Reply{r}, h.Replies...)
		},
		"nothing was printed": func(h *History) {
			for i := range h.Replies {
				if h.Replies[i].Job == "pool1/a" {
					h.Replies[i].Output = nil
				}
			}
			h.Outputs[0].Data = nil
			h.act("a").Bytes, h.act("a").Sum = 0, OutputSum(nil)
		},
		"an original client is told why, where nothing was printed": func(h *History) {
			h.job("lost").Legacy = true
			h.act("lost").Bytes, h.act("lost").Sum = 0, OutputSum(nil)
			for i := range h.Replies {
				if h.Replies[i].Job == "pool1/lost" {
					h.Replies[i].Output = []byte("unknown: a reason\n")
				}
			}
		},
		"a broker gave a number again": func(h *History) {
			r := *h.reply("b")
			r.For = "pool1/a"
			h.Replies = append(h.Replies, r)
			h.Events = append(h.Events, Event{Kind: BrokerForgot, At: at(1.2)})
		},
		"a broker gave the number of a job that it forgot to one that is refused": func(h *History) {
			h.forgets()
		},
		"a broker gave a number again to who tells it to nobody": func(h *History) {
			h.job("b").Submits[0].Address = "a program"
			h.reply("b").Address = "a program"
			r := *h.reply("b")
			r.Address, r.For = "box", "pool1/a"
			h.Replies = append(h.Replies, r)
			h.Events = append(h.Events, Event{Kind: BrokerForgot, At: at(1.2)})
		},
		"a program that waits for a number exits with another's status": func(h *History) {
			h.job("a").Legacy = true
			r := Reply{For: "pool1/a", Address: "box", At: at(4), Final: true, State: cbsdmq.Refused, ErrCode: 2, Reason: "exit status", Short: true}
			h.Replies = append(h.Replies, r)
			h.Events = append(h.Events, Event{Kind: BrokerForgot, At: at(1.2)})
		},
		"a broker gave a number again to who did not learn it": func(h *History) {
			h.forgets()
			for i := range h.Jobs {
				if h.Jobs[i].ID == "hostile" {
					h.Jobs[i].Submits[0].Address, h.Jobs[i].Submits[0].Confirmed = "", false
				}
			}
			h.reply("17").At = at(13.5)
		},
		"who had a number before reads what its next owner's command did": func(h *History) {
			h.job("a").Legacy, h.job("b").Legacy = true, true
			h.reply("b").For = "pool1/a"
			h.Events = append(h.Events, Event{Kind: BrokerForgot, At: at(1.2)})
			h.Jobs = append(h.Jobs, Job{ID: "original", Pool: "pool1", Command: "bset", Legacy: true, Submits: []Submit{{At: at(1.6)}}})
		},
		"there was no room for output": func(h *History) {
			h.Outputs[0].Missing, h.Outputs[0].Data = 12, nil
			h.Events = append(h.Events, Event{Kind: DiskFull, From: at(2), At: at(4)})
		},
		"a read runs again": func(h *History) {
			h.job("a").Changes = false
			again := *h.act("a")
			again.Begin, again.End = again.Begin.Add(time.Millisecond), again.End.Add(time.Millisecond)
			h.Acts = append(h.Acts, again)
		},
		"the clock was set while a command ran that has a limit": func(h *History) {
			h.reply("late").At = at(23)
			h.Events = append(h.Events, Event{Kind: ClockSet, At: at(22)})
		},
		"nobody waits any more where an original client's job did not run": func(h *History) {
			h.reply("17").For = ""
		},
		"a rollback undid that another address was known": func(h *History) {
			h.job("a").Submits = append(h.job("a").Submits, Submit{At: at(44), Done: at(44), Confirmed: true, Address: "other"})
			h.Events = append(h.Events, Event{Kind: Rollback, From: at(40), At: at(45)})
		},
		"the runner was told to begin before the cancel, and was frozen": func(h *History) {
			h.job("cancelled").Cancels[0] = Cancel{At: at(11.2), Done: at(11.3), Confirmed: true}
			h.Events = append(h.Events, Event{Kind: RunnerFrozen, Pool: "pool1", From: at(11.1), At: at(11.98)})
		},
		"the runner was told to begin in time, and was frozen": func(h *History) {
			h.job("a").Expires = at(1.2)
			h.Events = append(h.Events, Event{Kind: RunnerFrozen, Pool: "pool1", From: at(1.1), At: at(1.98)})
		},
		"a read that may have run in time runs again when it has expired": func(h *History) {
			h.job("a").Expires, h.job("a").Changes = at(1.5), false
			h.Events = append(h.Events, Event{Kind: RunnerLost, At: at(1.3)})
		},
		"a runner that was frozen, then killed": func(h *History) {
			h.act("lost").End = at(31.5)
			h.Events[1].From = at(31.2)
		},
		"a submit without confirmation": func(h *History) {
			h.without("a")
			h.Acts = h.Acts[1:]
			h.Outputs = h.Outputs[1:]
			h.job("a").Submits[0].Confirmed = false
		},
		"the runner was frozen when the command ended": func(h *History) {
			h.act("late").End, h.act("late").Status = at(24), 1
			h.act("cancelled").End, h.act("cancelled").Status = at(12.2), 1
			for _, end := range []float64{24, 12.2} {
				h.Events = append(h.Events, Event{Kind: RunnerFrozen, From: at(end - 0.3), At: at(end + 0.5)})
			}
		},
		"expired": func(h *History) {
			for i := range h.Jobs {
				if h.Jobs[i].Hostile {
					h.Jobs[i].Hostile, h.Jobs[i].Expires = false, at(12.9)
				}
			}
		},
		"the guest is not as asked for": func(h *History) {
			h.act("fails").Status = 0
			for i := range h.Replies {
				if h.Replies[i].Job == "pool1/fails" {
					h.Replies[i].Outcome = cbsdmq.OutcomeFailed
				}
			}
		},
	} {
		t.Run(what, func(t *testing.T) {
			h := innocent()
			mutate(h)
			if v := Judge(h, rules); v.Convicted() > 0 {
				var b bytes.Buffer
				v.Write(&b, 10)
				t.Error(b.String())
			}
		})
	}
}

func TestReadTruth(t *testing.T) {
	text := strings.Join([]string{
		`B 1000000000 7 pool1/01A bset vm1,vm2 ["jname=vm1","tags=a b"]`,
		`B 1000000001 8 - jls - []`,
		`O 1000000002 7 pool1/01A bset vm1 pool1/01B 6`,
		`E 1000000003 7 pool1/01A bset vm1,vm2 3 12 00112233445566aa`,
		`E 1000000003 9 pool1/01A bset vm1 0 1 00`,
		`B 100`,
		`B x 7 pool1/01A bset vm1 []`,
		`B 1000000004 7 pool1/01A bset vm1 []`,
		`E 1000000005 7 pool1/01A bset vm1 0 0 e3`,
	}, "\n")
	acts, broken, err := ReadTruth(strings.NewReader(text), "pool1")
	if err != nil || len(acts) != 3 || len(broken) != 4 {
		t.Fatalf("%d acts, broken %q, %v", len(acts), broken, err)
	}
	a := acts[0]
	got := fmt.Sprint(a.Pool, a.Job, a.PID, a.Command, a.Args, len(a.Args), a.Guests, a.Begin.UnixNano(), a.End.UnixNano(), a.Status, a.Bytes, a.Sum, a.Overlaps, len(a.Lines))
	want := "pool1pool1/01A7bset[jname=vm1 tags=a b] 2 [vm1 vm2] 1000000000 1000000003 3 12 00112233445566aa [vm1: pool1/01B 6] 3"
	if strings.ReplaceAll(got, " ", "") != strings.ReplaceAll(want, " ", "") {
		t.Errorf("got %s", got)
	}
	if !acts[1].End.IsZero() || acts[1].Job != "-" || acts[1].Guests != nil {
		t.Errorf("got %+v", acts[1])
	}
}
