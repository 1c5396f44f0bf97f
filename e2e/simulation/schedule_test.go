package simulation

import (
	"fmt"
	"slices"
	"time"
)

// A schedule is what a seed stands for: who submits what and when, and what goes
// wrong.
type schedule struct {
	workers, readers, backlog int
	timeLimit                 time.Duration
	volatile                  bool          // the broker forgets everything when it is restarted
	slowest                   time.Duration // of a call; 0 = calls take no time
	faults                    faults
	crashes                   []int // at which of its calls each agent is killed
	clients                   []clientPlan
	deeds                     []deed
	horizon                   time.Duration
	orderly                   bool // the broker delivers in order
	foreign                   bool // somebody else works on guests
	late                      bool // followers come after everything
}

// faults are what the broker does now and then, each with its probability.
type faults struct {
	dial, putRefused, putLost, lose, twice, overtaken, ackLost, ackRefused float64
}

type clientPlan struct {
	name  string
	from  time.Duration
	death time.Duration // 0 = it is not killed
	tasks []task
}

// A task is one job, and what its sender does about it.
type task struct {
	tag      string
	after    time.Duration // the task before
	command  string
	guests   string
	work     int // milliseconds
	out      int // bytes
	code     int
	term     string
	stream   bool
	inOrder  bool
	legacy   bool
	hostile  bool
	ask      bool          // whether the agent has it
	expires  time.Duration // 0 = never
	cancel   time.Duration // after its submit; 0 = not
	tombed   bool          // it is cancelled before it is submitted
	again    time.Duration // it is submitted again, by another session; 0 = not
	deserted bool          // nobody waits for its reply
}

// A deed is something that is done to the world.
type deed struct {
	at   time.Duration
	what string
	for_ time.Duration
	arg  string
}

func (t task) args() []string {
	args := []string{"tag=" + t.tag}
	if t.guests != "" {
		args = append(args, "jname="+t.guests)
	}
	if t.hostile {
		args = append(args, "note=$(reboot)")
	}
	return append(args, fmt.Sprint("work=", t.work), fmt.Sprint("out=", t.out), fmt.Sprint("code=", t.code), "term="+t.term)
}

func newSchedule(d *dice) schedule {
	maybe := func(p float64) bool { return d.chance("schedule", p) }
	between := func(low, high int) int { return d.between("schedule", low, high) }

	s := schedule{
		workers: between(1, 4), readers: between(1, 2), backlog: pick(d, "schedule", 2, 5, 100),
		horizon: time.Duration(between(5, 60)) * time.Second, orderly: true, late: maybe(0.3),
	}
	if maybe(0.2) {
		s.timeLimit = time.Duration(between(2, 8)) * time.Second
	}
	if maybe(0.4) {
		s.slowest = pick(d, "schedule", 20*time.Millisecond, 300*time.Millisecond, 2*time.Second)
	}
	if maybe(0.4) {
		s.orderly = false
		for _, p := range []*float64{
			&s.faults.dial, &s.faults.putRefused, &s.faults.putLost, &s.faults.lose, &s.faults.twice,
			&s.faults.overtaken, &s.faults.ackLost, &s.faults.ackRefused,
		} {
			if maybe(0.4) {
				*p = pick(d, "schedule", 0.02, 0.1, 0.3)
			}
		}
	}
	if maybe(0.6) {
		for range between(1, 5) {
			s.crashes = append(s.crashes, between(1, pick(d, "schedule", 10, 60, 300)))
		}
	}
	s.addDeeds(d)
	s.addClients(d)
	return s
}

// addDeeds chooses what goes wrong.
func (s *schedule) addDeeds(d *dice) {
	maybe := func(p float64) bool { return d.chance("deeds", p) }
	moment := func() time.Duration { return d.upTo("deeds", s.horizon) }
	add := func(what string, most time.Duration, arg string) {
		s.deeds = append(s.deeds, deed{at: moment(), what: what, for_: d.upTo("deeds", most), arg: arg})
	}
	times := func(p float64, most int, f func()) {
		if maybe(p) {
			for range d.between("deeds", 1, most) {
				f()
			}
		}
	}
	times(0.3, 3, func() { add("kill agent", 0, "") })
	times(0.2, 2, func() { add("restart agent", 0, "") })
	times(0.1, 2, func() { add("rival", 20*time.Second, "") })
	times(0.15, 2, func() { add("disk full", 15*time.Second, "") })
	times(0.15, 2, func() { add("disk read-only", 15*time.Second, "") })
	times(0.35, 3, func() {
		add("lose runner", 5*time.Second, pick(d, "deeds", "", "", "before its log", "before the fork", "after the fork", "before it notes an end", "before it tells an end"))
	})
	times(0.1, 2, func() { add("refuse starts", 5*time.Second, "") })
	times(0.08, 1, func() { add("power off", 0, "") })
	if maybe(0.08) {
		a, b := moment(), moment()
		s.foreign = true // commands that the journal has forgotten
		s.deeds = append(s.deeds, deed{at: min(a, b), what: "copy journal"}, deed{at: max(a, b), what: "roll back"})
	}
	if maybe(0.1) {
		s.foreign = true
		add("foreign command", 20*time.Second, fmt.Sprint("g", d.n("deeds", 3)))
	}
	before := len(s.deeds)
	times(0.2, 3, func() { add("cut", 0, "") })
	times(0.15, 2, func() { add("freeze", 10*time.Second, "") })
	times(0.15, 2, func() { add("stop broker", 10*time.Second, "keep") })
	if maybe(0.12) {
		s.volatile = true
		times(1, 2, func() { add("stop broker", 5*time.Second, "") })
	}
	if len(s.deeds) > before {
		s.orderly = false
	}
	slices.SortStableFunc(s.deeds, func(a, b deed) int { return int(a.at - b.at) })
}

func (s *schedule) addClients(d *dice) {
	maybe := func(p float64) bool { return d.chance("clients", p) }
	guests := d.between("clients", 1, 3)
	long, cancels := maybe(0.5), maybe(0.5)
	left := d.between("clients", 4, 24)
	n := d.between("clients", 1, 3)
	for i := range n {
		c := clientPlan{name: fmt.Sprintf("client%d", i), from: d.upTo("clients", time.Second)}
		if maybe(0.15) {
			c.death = d.upTo("clients", s.horizon) + time.Millisecond
		}
		jobs := left / (n - i)
		left -= jobs
		gap := s.horizon / time.Duration(2*jobs+1)
		for k := range jobs {
			t := task{
				tag: fmt.Sprintf("tag-%d-%d", i, k), after: d.upTo("clients", gap), command: pick(d, "clients", "change", "change", "change", "stop", "read"),
				guests: fmt.Sprint("g", d.n("clients", guests)), work: d.n("clients", pick(d, "clients", 1, 50, 2000)),
				out: d.n("clients", pick(d, "clients", 1, 1, 200, 5000)), term: pick(d, "clients", "", "", "well", "badly", "not"),
			}
			if maybe(0.4) {
				t.after = 0
			}
			if long && maybe(0.2) {
				t.work = d.between("clients", 1000, 15000)
			}
			if maybe(0.01) {
				t.out = d.between("clients", 60_000, 200_000)
			}
			if maybe(0.2) {
				t.code = d.between("clients", 1, 3)
			}
			t.stream, t.inOrder, t.ask, t.deserted = maybe(0.3), maybe(0.3), maybe(0.3), maybe(0.1)
			t.legacy, t.hostile = maybe(0.12), maybe(0.06)
			if t.command == "change" && maybe(0.1) {
				t.guests = pick(d, "clients", "g0,g1", "*", "")
			}
			if maybe(0.1) {
				t.expires = d.upTo("clients", 20*time.Second) + time.Second
			}
			if cancels && maybe(0.3) {
				t.cancel = d.upTo("clients", pick(d, "clients", 20*time.Millisecond, 3*time.Second, 20*time.Second)) + time.Nanosecond
			}
			t.tombed = cancels && maybe(0.05)
			if maybe(0.1) {
				t.again = d.upTo("clients", 20*time.Second) + time.Nanosecond
			}
			c.tasks = append(c.tasks, t)
		}
		s.clients = append(s.clients, c)
	}
}
