package cbsdmq

// A State says where a job is, or how it ended.
type State string

// States of a job that has not ended.
const (
	Queued  State = "queued"  // accepted, waits for its guest or a worker
	Held    State = "held"    // accepted before the journal went back in time; waits for a person
	Running State = "running" // its command was begun
)

// The ends. Each job reaches exactly one of them, and each reaches the client
// as a reply with Progress 100.
const (
	Done      State = "done"      // if and only if ErrCode is 0
	Failed    State = "failed"    // the command failed, or what was asked for is plainly not there afterwards
	Refused   State = "refused"   // breaks a rule; nothing was run
	Cancelled State = "cancelled" // by request, before or while it ran
	Timeout   State = "timeout"   // ran longer than its limit and was ended
	Unknown   State = "unknown"   // it was begun and its end cannot be known
)

// Ended reports whether s is one of the ends.
func (s State) Ended() bool {
	switch s {
	case Done, Failed, Refused, Cancelled, Timeout, Unknown:
		return true
	}
	return false
}

// An Outcome is what became of the guest, read from CBSD's own state after a
// command that changes something. It is empty for commands that only read and
// where the state could not be read.
type Outcome string

// The outcomes.
const (
	Changed       Outcome = "changed"   // the state asked for is there and was not before
	Unchanged     Outcome = "unchanged" // the state asked for was there already
	OutcomeFailed Outcome = "failed"    // the state asked for is not there
)
