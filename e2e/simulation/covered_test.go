package simulation

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"text/tabwriter"

	"github.com/cbsd/cbsdmq/e2e/judge"
)

// troubles are what must have gone wrong under one of TestSeeds' seeds. A bench
// in which one of them never comes proves nothing about it.
var troubles = []string{
	// The runner is killed at each of its failpoints; the agent too, see failpoints.
	"lose runner", "lose runner before its log", "lose runner before the fork", "lose runner after the fork",
	"lose runner before it notes an end", "lose runner before it tells an end", "refuse starts",
	"cut runner", "killed after its first start to a runner that is back",
	// What stands still for longer than anybody waits.
	"freeze runner", judge.RunnerFrozen, "freeze agent", judge.AgentFrozen, "freeze client",
	// The broker, and the way to it.
	"broker: dial", "broker: lose", "broker: twice", "broker: overtaken", "broker: ack lost", "broker: ack refused", "broker: ack applied",
	"broker: put refused of a job", "broker: put lost of a job", "broker: put refused of a reply", "broker: put lost of a reply",
	"broker: put refused of the control lane", "broker: put lost of the control lane",
	"cut", "freeze", "stop broker", judge.BrokerForgot,
	// The host.
	"kill agent", "restart agent", "rival", "disk full", "disk read-only", "power off", judge.Rollback, judge.ClockSet, "foreign command g0",
	"the journal is another's", "full disk written to", "read-only disk written to", "slow call",
	// Somebody does not want a job any more.
	"cancelled before it was submitted", "cancelled before it began", "cancelled while it ran", "cancelled after its end",
}

// rare is what a thousand schedules have.
var rare = []string{"cancelled before its start", "a start of before is read", "roll back by an hour", "forgets as a reply is put"}

// covered complains about troubles that none of so many schedules had.
func covered(t *testing.T, tally map[string]int, schedules int) {
	t.Helper()
	for _, where := range failpoints {
		if tally["killed at "+where] == 0 {
			t.Errorf("no agent was killed at: %s", where)
		}
	}
	want := troubles
	if schedules >= 1000 {
		want = slices.Concat(troubles, rare)
	}
	for _, what := range want {
		if tally[what] == 0 {
			t.Errorf("never: %s", what)
		}
	}
	if !testing.Verbose() {
		return
	}
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	for _, what := range sorted(tally) {
		fmt.Fprintf(w, "%s\t%d\n", what, tally[what])
	}
	w.Flush()
	t.Log("what went wrong, and how often\n" + b.String())
}

// countCancels notes when jobs were cancelled.
func (w *world) countCancels() {
	for _, j := range w.order {
		i := slices.IndexFunc(w.history.Acts, func(a judge.Act) bool { return a.Job == j.ID })
		for _, c := range j.Cancels {
			switch {
			case c.At.Before(j.Submits[0].At):
				w.tally["cancelled before it was submitted"]++
			case i < 0 || c.At.Before(w.history.Acts[i].Begin):
				w.tally["cancelled before it began"]++
			case w.history.Acts[i].End.IsZero() || c.At.Before(w.history.Acts[i].End):
				w.tally["cancelled while it ran"]++
			default:
				w.tally["cancelled after its end"]++
			}
		}
	}
}
