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
	looks                     time.Duration // the same of a look at a guest
	faults                    faults
	crashes                   []crash // of each agent
	clients                   []clientPlan
	deeds                     []deed
	horizon                   time.Duration
	orderly                   bool   // the broker delivers in order
	foreign                   bool   // somebody else works on guests
	late                      bool   // followers come after everything
	focus                     string // what goes wrong most of all
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

	stallAt, stalls time.Duration // when it stands still, and for how long; 0 = it does not
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

// A crash kills an agent at its nth call at a boundary; "" = at any.
type crash struct {
	where string
	n     int
}

// failpoints are the agent's (internal/failpoint) as boundaries: received, accepted
// and acked, starting and started, looking, exited, judging, finishing and finished,
// replied. What it writes to the journal lies between two writes of SQLite.
var failpoints = []string{
	"receive done", "ack", "ack done", "start", "start done", "before", "next done", "after", "lookups done", "acknowledge", "put done", "journal write",
}

var boundaries = append([]string{
	"receive", "before done", "next", "after done", "lookups", "acknowledge done", "put", "kill", "kill done", "inspect", "inspect done",
	"list", "list done", "consume", "consume done", "dial", "dial done", "release", "release done", "age", "age done",
}, failpoints...)

// A deed is something that is done to the world.
type deed struct {
	at   time.Duration
	what string
	for_ time.Duration
	arg  string
}

// slack is how late a thing may be noticed: with the agent's next tick, after some
// slow calls.
func (s schedule) slack() time.Duration { return 1100*time.Millisecond + 2*s.slowest }

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
	if maybe(0.3) {
		s.looks = pick(d, "schedule", 500*time.Millisecond, 4*time.Second)
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
		s.crashes = append(s.crashes, crash{failpoints[d.seed%uint64(len(failpoints))], 1})
		for range between(0, 4) {
			c := crash{n: between(1, pick(d, "schedule", 10, 60, 300))}
			if maybe(0.5) {
				c = crash{pick(d, "schedule", boundaries...), between(1, pick(d, "schedule", 1, 3, 10))}
			}
			s.crashes = append(s.crashes, c)
		}
	}
	s.addDeeds(d)
	s.addStalls(d)
	if s.focus == "lose runner" && s.timeLimit == 0 && maybe(0.7) {
		s.timeLimit = time.Duration(between(2, 5)) * time.Second
	}
	s.addClients(d)
	s.stallClients(d)
	s.ageCopy(d)
	slices.SortStableFunc(s.deeds, func(a, b deed) int { return int(a.at - b.at) })
	return s
}

// addDeeds chooses what goes wrong: in half of all schedules a little of
// everything, in the others one thing often and others rarely.
func (s *schedule) addDeeds(d *dice) {
	if s.focus == "" && d.chance("deeds", 0.5) {
		s.focus = pick(d, "deeds", "kill agent", "restart agent", "rival", "disk full", "disk read-only", "lose runner", "refuse starts",
			"power off", "set clock", "roll back", "foreign command", "cut", "freeze", "stop broker", "forgetful broker", "cancel", "expiry")
	}
	moment := func() time.Duration { return d.upTo("deeds", s.horizon*2/3) }
	times := func(p float64, most int, what string, f func()) {
		if s.focus == what {
			p, most = 1, 4
		} else if s.focus != "" {
			p /= 3
		}
		if d.chance("deeds", p) {
			for range d.between("deeds", 1, most) {
				f()
			}
		}
	}
	simple := func(p float64, most int, what string, longest time.Duration) {
		times(p, most, what, func() { s.deeds = append(s.deeds, deed{at: moment(), what: what, for_: d.upTo("deeds", longest)}) })
	}
	simple(0.3, 3, "kill agent", 0)
	simple(0.2, 2, "restart agent", 0)
	simple(0.1, 2, "rival", 20*time.Second)
	simple(0.15, 2, "disk full", 15*time.Second)
	simple(0.15, 2, "disk read-only", 15*time.Second)
	times(0.35, 3, "lose runner", func() {
		s.deeds = append(s.deeds, deed{at: moment(), what: "lose runner", for_: d.upTo("deeds", pick(d, "deeds", 2*time.Second, 12*time.Second)),
			arg: pick(d, "deeds", "", "", "before its log", "before the fork", "after the fork", "before it notes an end", "before it tells an end")})
		if last := &s.deeds[len(s.deeds)-1]; s.focus == "lose runner" && d.chance("deeds", 0.6) {
			last.for_ = time.Duration(d.between("deeds", 3, 12)) * time.Second
			last.arg = pick(d, "deeds", "before its log", "before its log", "", last.arg)
			// And there is no room when it is back.
			s.deeds = append(s.deeds, deed{at: last.at + last.for_/2, what: "refuse starts", for_: last.for_})
		}
	})
	simple(0.2, 3, "refuse starts", 5*time.Second)
	simple(0.08, 1, "power off", 0)
	times(0.08, 2, "set clock", func() {
		s.deeds = append(s.deeds, deed{at: moment(), what: "set clock", for_: pick[time.Duration](d, "deeds", 1, -1) * d.upTo("deeds", pick(d, "deeds", 5*time.Second, 45*time.Minute))})
	})
	times(0.08, 1, "roll back", func() {
		a, b := moment(), moment()
		s.foreign = true // commands that the journal has forgotten
		s.deeds = append(s.deeds, deed{at: min(a, b), what: "copy journal"}, deed{at: max(a, b), what: "roll back"})
	})
	times(0.1, 1, "foreign command", func() {
		s.foreign = true
		s.deeds = append(s.deeds, deed{at: moment(), what: "foreign command", for_: d.upTo("deeds", 20*time.Second), arg: fmt.Sprint("g", d.n("deeds", 3))})
	})
	before := len(s.deeds)
	simple(0.2, 3, "cut", 0)
	simple(0.15, 2, "freeze", 10*time.Second)
	simple(0.15, 2, "stop broker", 10*time.Second)
	times(0.12, 2, "forgetful broker", func() {
		s.volatile = true
		s.deeds = append(s.deeds, deed{at: moment(), what: "stop broker", for_: d.upTo("deeds", 5*time.Second)})
	})
	if len(s.deeds) > before {
		s.orderly = false
	}
}

// addStalls chooses what stands still, or is not heard of: in a fifth of all
// schedules.
func (s *schedule) addStalls(d *dice) {
	what := ""
	if d.chance("stalls", 0.2) {
		what = pick(d, "stalls", "cut runner", "cut runner", "freeze runner", "freeze agent")
	}
	if what == "" {
		return
	}
	if s.focus == "" {
		s.focus = what
	}
	if what == "cut runner" {
		s.workers = max(s.workers, 3)
	}
	for range d.between("stalls", 1, 4) {
		dd := deed{at: d.upTo("stalls", s.horizon*2/3), what: what}
		dd.for_ = d.upTo("stalls", pick(d, "stalls", 2*time.Second, 15*time.Second))
		if what != "cut runner" && d.chance("stalls", 0.2) {
			dd.for_ = d.upTo("stalls", 5*time.Minute) // longer than anybody waits for anything
		}
		s.deeds = append(s.deeds, dd)
		s.horizon = max(s.horizon, dd.at+dd.for_+5*time.Second)
		// While it does, somebody may lose patience.
		if what == "cut runner" {
			s.deeds[len(s.deeds)-1].for_ += 2 * time.Second
			continue
		}
		for range d.between("stalls", 0, 2) {
			s.deeds = append(s.deeds, deed{at: dd.at + d.upTo("stalls", dd.for_), what: pick(d, "stalls", "kill agent", "restart agent", "lose runner")})
		}
	}
}

// stallClients has clients stand still for as long.
func (s *schedule) stallClients(d *dice) {
	for i := range s.clients {
		if c := &s.clients[i]; d.chance("stalled clients", 0.05) {
			c.stallAt = d.upTo("stalled clients", s.horizon)
			c.stalls = d.upTo("stalled clients", pick(d, "stalled clients", 10*time.Second, 5*time.Minute)) + time.Millisecond
		}
	}
}

// ageCopy has an hour pass before the journal goes back, in some schedules in
// which it does: by then all that its copy does not know has long ended.
func (s *schedule) ageCopy(d *dice) {
	i := slices.IndexFunc(s.deeds, func(d deed) bool { return d.what == "roll back" })
	if i < 0 || !d.chance("old copy", 0.5) {
		return
	}
	const hour = time.Hour
	s.deeds[i].arg = "by an hour"
	s.horizon += hour
	at := s.deeds[i].at
	for k := range s.deeds {
		if s.deeds[k].at >= at && s.deeds[k].what != "copy journal" {
			s.deeds[k].at += hour
		}
	}
	for k := range s.clients {
		if d.chance("old copy", 0.5) { // it comes when the hour is over
			s.clients[k].from += at + hour - d.upTo("old copy", time.Minute)
		}
	}
}

func (s *schedule) rollsBack() bool {
	return slices.ContainsFunc(s.deeds, func(d deed) bool { return d.what == "roll back" })
}

func (s *schedule) addClients(d *dice) {
	maybe := func(p float64) bool { return d.chance("clients", p) }
	guests := d.between("clients", 1, 3)
	long, cancel, expire := maybe(0.5), 0.0, 0.1
	if maybe(0.5) {
		cancel = 0.3
	}
	legacy := 0.12
	switch {
	case s.volatile && s.rollsBack(): // then numbers mean others than before, and nobody can tell
		legacy = 0
	case s.volatile: // its numbers are the addresses, and it gives them again
		legacy = 0.5
	}
	switch s.focus {
	case "cancel":
		cancel = 0.7
	case "expiry":
		expire = 0.6
	case "lose runner", "cut runner": // what was begun waits, and may not be wanted any more when there is a runner again
		cancel, expire = 0.5, 0.4
	}
	left := d.between("clients", 4, 24)
	n := d.between("clients", 1, 3)
	for i := range n {
		c := clientPlan{name: fmt.Sprintf("client%d", i), from: d.upTo("clients", time.Second)}
		if maybe(0.15) {
			c.death = d.upTo("clients", s.horizon) + time.Millisecond
		}
		jobs := left / (n - i)
		left -= jobs
		gap := 3 * s.horizon / time.Duration(2*jobs+1)
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
			t.legacy, t.hostile = maybe(legacy), maybe(0.06)
			if t.legacy && s.volatile {
				t.hostile = false // whose refusal it is at a number that comes again nobody can tell
			}
			if t.command == "change" && maybe(0.1) {
				t.guests = pick(d, "clients", "g0,g1", "*", "")
			}
			if maybe(expire) {
				t.expires = d.upTo("clients", pick(d, "clients", 5*time.Second, 20*time.Second)) + time.Second
			}
			if maybe(cancel) {
				t.cancel = d.upTo("clients", pick(d, "clients", 20*time.Millisecond, 3*time.Second, 20*time.Second)) + time.Nanosecond
				if maybe(0.4) {
					t.work = d.between("clients", 1000, 8000) // so that it runs by then
				}
			}
			t.tombed = maybe(cancel / 6)
			if maybe(0.1) {
				t.again = d.upTo("clients", 20*time.Second) + time.Nanosecond
			}
			c.tasks = append(c.tasks, t)
		}
		s.clients = append(s.clients, c)
	}
}
