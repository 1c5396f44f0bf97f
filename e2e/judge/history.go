// Package judge finds out from what the simulated cbsd wrote down, and from
// what clients sent and were told, whether the promises of cbsdmq were kept.
//
// It knows nothing of the program that it judges: neither its log nor its
// journal. Whoever runs a test records a [History], and [Judge] compares its
// parts with each other.
package judge

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/cbsd/cbsdmq"
)

// A History is all that is known from outside about a run.
type History struct {
	Jobs     []Job
	Acts     []Act
	Replies  []Reply
	Outputs  []Output
	Events   []Event
	Measures []Measure
	// Canaries say what is there that must not be: traces of something that was
	// evaluated, of a program that crashed.
	Canaries []string
	// Broken are lines of the truth that cannot be read.
	Broken []string
}

// A Job is a job as its sender knows it.
type Job struct {
	ID    string // printed id; for a job of an original client any name that no other job has
	Token string // a text in its arguments that no other job has; "" where ID is what the truth says
	Pool  string

	Sender  string // jobs of one sender are submitted one after the other, in the order of History.Jobs
	Command string
	Args    []string // as the command must get them; nil: not compared
	Guests  []string
	Changes bool // it changes its guests
	InOrder bool // it only reads, and asked for its place in the order
	Stream  bool // it asked for its output as it comes
	Hostile bool // must not run
	Legacy  bool // ID is not its printed id: its sender does not know that
	Asks    bool // its sender asks the agent for the end, where no reply tells it
	// Ends are the only ends that can be right; nil: any that the truth allows.
	Ends    []cbsdmq.State
	Expires time.Time

	Submits []Submit // at least one; several are repeats of the same job
	Cancels []Cancel
	// Accepted is when a sender learned from the agent that it has the job; zero:
	// it did not ask.
	Accepted time.Time
}

// A Submit is one time that a job was given to the broker.
type Submit struct {
	At, Done  time.Time
	Confirmed bool
	Address   string // where the reply is to go; "" where nobody waits for one
	Left      bool   // whoever waited at Address was killed or has gone
}

// A Cancel is a request to end a job.
type Cancel struct {
	At, Done  time.Time
	Confirmed bool
}

// An Act is one time that a command ran, as the simulated cbsd wrote it down.
type Act struct {
	Pool    string
	Job     string // printed id; "-" where nobody's job started it
	PID     int
	Command string
	Args    []string
	Guests  []string
	Begin   time.Time
	End     time.Time // zero: it wrote no end
	Status  int
	Bytes   int64  // of stdout, when it ended
	Sum     string // of stdout, as OutputSum makes it; "" = not known
	// Overlaps says what held its guest when it began.
	Overlaps []string
	Lines    []string // of the truth, as evidence
}

// A Reply is an answer about a job, as somebody got it.
type Reply struct {
	Job      string // printed id that it bears; "" = none
	For      string // ID of the job that the reader waited for; "" = of any at Address
	Address  string // where it was read; "" for an answer on the control lane
	Follower string // who asked on the control lane
	At       time.Time
	Final    bool
	State    cbsdmq.State
	ErrCode  int
	Outcome  cbsdmq.Outcome
	Reason   string
	Short    bool  // Outcome and Reason are not known
	Offset   int64 // of Output within stdout
	Cut      int64
	Output   []byte
}

// An Output is the whole stdout of a job as a client put it together.
type Output struct {
	Job     string // ID
	By      string // who, and how
	Data    []byte
	Missing int64  // bytes that the client was told are not kept
	Broken  string // pieces that did not fit together, or ""
}

// The kinds of events. They widen what the judge lets pass; nothing else does.
const (
	RunnerLost    = "runner lost"
	RunnerFrozen  = "runner frozen" // it did not see what happened meanwhile
	AgentFrozen   = "agent frozen"  // likewise
	CommandKilled = "command killed"
	DiskFull      = "disk full"      // of the journal: output may not be kept
	BrokerForgot  = "broker forgot"  // it lost what it had confirmed, as it may
	RepliesForgot = "replies forgot" // those that nobody had read
	Reordered     = "reordered"      // what the broker had handed out came back late
	Rollback      = "rollback"       // the journal went back in time
	ClockSet      = "clock set"      // that of the agent's host; the times in Event and all others are of another
)

// An Event is something that was done to the system. What has no Pool was done
// to all.
type Event struct {
	Kind     string
	Pool     string
	From, At time.Time // From: it did not work from then on, zero = At
	PID      int       // of a command
	Jobs     []string  // printed ids of those that a lost runner had and had told no end of; nil = not known
}

// A Measure is a resource before and after a run.
type Measure struct {
	Name                string
	Before, After, Room int64 // After may be Room more than Before
	Unit                string
}

// Rules are what the judge is to take into account.
type Rules struct {
	// Slack is how much later than it happened a thing may be noticed.
	Slack time.Duration
	// TimeLimit of commands; 0 = none.
	TimeLimit time.Duration
	// ReadsUnseen: commands that only read are not in the truth.
	ReadsUnseen bool
	// Partial: of jobs without a confirmed submit nobody asked for the end.
	Partial bool
}

// FromReply is the record of r.
func FromReply(r cbsdmq.Reply, at time.Time) Reply {
	return Reply{
		Job: r.ID, At: at, Final: r.Final(), State: r.State, ErrCode: r.ErrCode, Outcome: r.Outcome, Reason: r.Reason,
		Offset: r.Offset, Cut: r.Cut, Output: r.Output(),
	}
}

const clock = "15:04:05.000000"

func (r Reply) String() string {
	where := r.Address
	if r.Follower != "" {
		where = r.Follower
	}
	kind := "piece"
	if r.Final {
		kind = fmt.Sprintf("%s %d %s", r.State, r.ErrCode, r.Outcome)
	}
	return fmt.Sprintf("reply %s at %s for %s: %s, %d bytes from %d, cut %d %s", r.At.Format(clock), where, r.Job, kind, len(r.Output), r.Offset, r.Cut, r.Reason)
}

func (j *Job) String() string {
	return fmt.Sprintf("job %s (%s) of %s: %s %s", j.ID, j.Token, j.Sender, j.Command, strings.Join(j.Args, " "))
}

func (s Submit) String() string {
	return fmt.Sprintf("submit %s to %s, confirmed %t, address %s, left %t", s.At.Format(clock), s.Done.Format(clock), s.Confirmed, s.Address, s.Left)
}

func (c Cancel) String() string {
	return fmt.Sprintf("cancel %s to %s, confirmed %t", c.At.Format(clock), c.Done.Format(clock), c.Confirmed)
}

func (e Event) String() string {
	text := fmt.Sprintf("event %s %s %s", e.At.Format(clock), e.Kind, e.Pool)
	if e.PID > 0 {
		text += fmt.Sprintf(" pid %d", e.PID)
	}
	if !e.From.IsZero() {
		text += ", away from " + e.From.Format(clock) + " on"
	}
	return text
}

func (m Measure) String() string {
	return fmt.Sprintf("%s: %d %s before, %d after, room for %d", m.Name, m.Before, m.Unit, m.After, m.Room)
}

func (j *Job) confirmed() bool {
	return slices.ContainsFunc(j.Submits, func(s Submit) bool { return s.Confirmed })
}

func (j *Job) first() time.Time { return j.Submits[0].At }
