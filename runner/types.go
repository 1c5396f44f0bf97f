package runner

import (
	"log/slog"
	"syscall"
	"time"

	"github.com/cbsd/cbsdmq/internal/proc"
)

// Protocol is the version of the protocol between agent and runner. It is part
// of the names of the runner's files, so that runners of two versions can serve
// side by side in one directory.
const Protocol = 1

// JobVariable is the environment variable that holds Start.Job in every
// command and in what the command leaves behind.
const JobVariable = "CBSDMQ_JOB"

// Bounds of the output that is kept of one run, in bytes of one file.
const (
	OutputHead       = 64 << 10  // from the beginning, always kept
	OutputMin        = 256 << 10 // least OutputMax
	OutputMaxDefault = 256 << 20
)

// Config says where a runner lives.
type Config struct {
	// Dir is the runner's directory: socket, log and output files. It is
	// created with mode 0700. One that belongs to somebody else, or that others
	// may write to, is refused.
	Dir     string
	Log     *slog.Logger // nil: no log
	Version string       // of the program, for people

	every time.Duration // in place of sizesEvery, in tests
}

// A Key names a run.
type Key struct {
	Pool     string // the pool's uuid
	Epoch, N uint64
}

// After reports whether k is higher than o, a key of the same pool.
func (k Key) After(o Key) bool {
	return k.Epoch > o.Epoch || k.Epoch == o.Epoch && k.N > o.N
}

// A Start asks for one command to be run.
type Start struct {
	Key
	Job       string   // value of JobVariable
	Path      string   // of the program; it is not looked up
	Args      []string // without the program's name
	Env       []string // NAME=value; the whole environment but for JobVariable
	Dir       string   // working directory; "" is /
	OutputMax int64    // bytes kept of output, and of error; 0 = OutputMaxDefault, at least OutputMin
}

// A Kind says what an Event tells about a run.
type Kind uint8

const (
	// Accepted: the Start is on record and about to be forked. Only seen in a
	// Snapshot.
	Accepted Kind = iota + 1
	// Started: the command runs. PID and Start are its identity. Of a command
	// that ends within some milliseconds only the end is told.
	Started
	// Exited: the command ended, and with it its output: Status or Signal, Out
	// and Err are final.
	Exited
	// Failed: the command could not be executed. Errno and Reason say why.
	Failed
	// Refused: the Start was not accepted, nothing was forked and nothing is
	// kept. Reason says why, Temporary whether it is worth another try, with the
	// same key. Until then, or until Ack or List, the pool's higher keys are refused
	// too.
	Refused
	// Orphan: the command was started by a runner that is gone, and lives. Its
	// exit status will never be known. Lost follows when it is gone.
	Orphan
	// Lost: the command is gone and its exit status was not seen. Without a PID
	// it is not even known whether it was started.
	Lost
)

// String returns the name of k in lower case.
func (k Kind) String() string {
	names := [...]string{"none", "accepted", "started", "exited", "failed", "refused", "orphan", "lost"}
	if int(k) < len(names) {
		return names[k]
	}
	return "unknown"
}

// Ended reports whether a run of kind k has ended and waits for its Ack.
func (k Kind) Ended() bool { return k == Exited || k == Failed || k == Lost }

// ProcStart is the start of a process, see package proc.
type ProcStart = proc.Start

// An Event is the last known of a run.
type Event struct {
	Key
	Kind      Kind
	Job       string         // as in its Start
	PID       int            // also its process group and session; 0 = never started, or not known
	Start     ProcStart      // 0 where PID is, and in the end of a command that was too short to be Started
	Status    int            // Exited: exit code; 0 where a signal ended it
	Signal    syscall.Signal // Exited: what ended it, or 0
	Errno     syscall.Errno  // Failed: of fork, chdir or execve
	Signalled bool           // Exited: a signal of Client.Kill had reached it, or may have, before its end was seen
	Temporary bool           // Refused: the cause may pass
	Out, Err  File
	Reason    string
	At        time.Time // Accepted, Started: of that; else when the end was seen
}

// A File is what a run has written to its output or error.
//
// Size counts all bytes written. Where they were more than Start.OutputMax some
// in the middle were dropped: [OutputHead, OutputHead+Dropped) reads as zeros.
// Every other byte is where the command wrote it, so an offset once read stays
// good. A reader of a running command must look at Dropped (Client.Output)
// after it has read from a file larger than OutputMax.
type File struct {
	Path    string
	Size    int64
	Dropped int64
}

// A Snapshot is what the runner knows of a pool.
type Snapshot struct {
	RunnerID string  // new with every start of the runner
	BootID   string  // of the machine
	PID      int     // of the runner
	Mark     Key     // the highest key accepted for the pool; zero N and Epoch where there was none
	Runs     []Event // of every run that has not been acknowledged, in order of keys
}
