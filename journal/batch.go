package journal

import (
	"time"

	"github.com/cbsd/cbsdmq"
)

// Flags of a job.
type Flags int64

// What a job asked for, and what was asked about it since.
const (
	Stream      Flags = 1 << iota // output as it comes
	Cancelled                     // somebody asked to cancel it
	Legacy                        // from an original client
	Reads                         // its command changes nothing: it may be begun twice
	Crashed                       // handling it crashed an agent
	Poison                        // it did so twice
	Again                         // a read that was lost sight of: it may have run, so it cannot expire before it does again
	HandingBack                   // it is being put on the tube for an original agent: it may run there
)

// AddressState says what became of the replies to one address.
type AddressState int

// Owed until the broker confirmed the last reply: Sent. Undeliverable: the
// broker began its ids again, the address may belong to a stranger.
const (
	Owed AddressState = iota
	Sent
	Undeliverable
)

// A Job is a row of the journal.
type Job struct {
	Seq      int64
	ID       string // a ULID; of a legacy job the broker's number, with .2, .3 where that is taken
	Ident    string // what makes a second delivery the same job; a ULID itself
	Sender   string
	Key      string // the sender's own name for the work, "" = none
	Bus      string
	Command  string
	Guest    string
	Signer   string // whose key signed it, "" = not signed
	SignKey  string // the public key of that, in base64
	Plan     []byte // nil once Limits dropped it
	Flags    Flags
	State    cbsdmq.State
	Accepted time.Time
	Expires  time.Time
	Begun    time.Time
	Finished time.Time
	Epoch    uint64 // with N: the number of its begin; zero where another host's runner has it
	N        uint64
	Host     string
	Boot     string
	Before   []byte
	Result   []byte // the last reply as JSON, without its output
	OutSize  int64  // bytes of stdout; where Reader.Output has fewer, some were dropped
}

// An Address is where replies go.
type Address struct {
	Bus  string
	Tube string
	// BrokerID: the tube is named after an id that the broker gave, and dies
	// with the broker's id space.
	BrokerID bool
}

// An Accept is a delivery to be written down. Commit sets the fields after End.
type Accept struct {
	// Job is what to insert. Commit sets its Seq, State, Begun, Epoch, N, Host
	// and Boot, Cancelled in its Flags, and its ID where it is a legacy job and
	// another one has that number. Where Known is set it says nothing.
	Job     *Job
	Address Address // zero: nobody waits for a reply
	Begin   bool    // insert it as begun: its lane and a worker are free
	End     *Finish // it ends at once (refused): its Finish; Commit sets its Seq

	// Known is the job, as it is after the Commit, where the journal had it
	// already: by its identity, or by the signer's and sender's key. Nothing was inserted
	// then but the address; NewAddress says whether that is new.
	Known      *Job
	NewAddress bool
	// Foreign: Known was signed by another one than this delivery, or one of the
	// two by none. Nothing was inserted.
	Foreign bool
	// Cancelled: somebody cancelled the job before it came. It was inserted
	// with that flag, not begun.
	Cancelled bool
}

// A Begin marks a job as begun. A job that was begun may be begun again.
type Begin struct {
	Seq    int64
	Before []byte
	N      uint64 // set by Commit; 0 where the job is held or has ended, and was not begun
}

// A Finish is the end of a job.
type Finish struct {
	Seq     int64
	State   cbsdmq.State
	Result  []byte
	Output  []byte // stdout, where it is at most InlineOutput; else nil and SaveOutput was called
	OutSize int64
	Plan    []byte // in the place of the job's plan, without its secrets; nil: it has none and stays
	Late    bool   // set by Commit: the job had ended before, and keeps that end
}

// A SentReply marks the last reply as confirmed by the broker.
type SentReply struct {
	Seq   int64
	Bus   string
	Tube  string
	PutID uint64
	State AddressState
}

// A Broker is the incarnation of a broker that gives the ids of today, and those
// of all jobs that are written down after this batch.
type Broker struct {
	Bus      string
	Instance string
}

// A Batch is what one Commit writes, in the order of its fields. Begins are
// numbered in the order of Accept, then Begin.
type Batch struct {
	Tombstone []string // ids that are cancelled if they come, in this batch or later
	Accept    []*Accept
	Unbegin   []int64 // seqs of jobs whose begin came to nothing: queued again
	Begin     []*Begin
	Finish    []*Finish
	Sent      []SentReply
	Cancel    []int64 // seqs
	Release   []int64 // seqs of held jobs: queued again
	Mark      []Mark
	Broker    []Broker
	Pause     []cbsdmq.Pause // in place of an earlier one of the same guest
	Resume    []string       // guests, "" = the whole pool
	Verdict   []Verdict
	Act       []cbsdmq.Act // Job is the id alone; Commit gives them their Seq
	// Urgent: the batch may use up the reserve although no job ends in it. Its
	// jobs will make room on the disk.
	Urgent bool
}

// A Mark adds flags to a job that has not ended.
type Mark struct {
	Seq   int64
	Flags Flags
}

// A Verdict is a person's, on the job with that seq. A later one takes its
// place.
type Verdict struct {
	Seq int64
	cbsdmq.Verdict
}

// Empty reports whether there is nothing to write.
func (b *Batch) Empty() bool {
	return len(b.Accept)+len(b.Unbegin)+len(b.Begin)+len(b.Finish)+len(b.Sent)+len(b.Cancel)+len(b.Tombstone)+len(b.Release)+len(b.Mark)+len(b.Broker)+
		len(b.Pause)+len(b.Resume)+len(b.Verdict)+len(b.Act) == 0
}

// micro is the journal's form of a time; the zero time is 0.
func micro(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

func fromMicro(us int64) time.Time {
	if us == 0 {
		return time.Time{}
	}
	return time.UnixMicro(us)
}
