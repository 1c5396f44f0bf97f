package cbsd

import (
	"context"

	"github.com/cbsd/cbsdmq"
)

// An Exit is how a command ended.
type Exit struct {
	Code   int // exit status; 128 + Signal where a signal ended it
	Signal int // 0 where it ended by itself
}

// A Snapshot is what After must know of the time before a change. It is small
// and can be stored as JSON.
type Snapshot struct {
	Guests map[string]GuestState `json:"guests,omitempty"` // by name; nil where the state could not be read
}

// A GuestState is one guest at one moment.
type GuestState struct {
	Exists bool `json:"exists,omitempty"`
}

// A Verdict is what became of the guest, whatever the exit code claims.
type Verdict struct {
	Outcome cbsdmq.Outcome // "" for reads, for commands without a check, and where the state could not be read
	ErrCode int            // for the reply: 0 if and only if the job is done
	Reason  string         // why ErrCode is not 0, or why the outcome is not what the exit code says
	Hint    string         // what a person can do
}

// Before reads what must be known before plan runs.
func (p *Pool) Before(ctx context.Context, plan Plan) (Snapshot, error) { return Snapshot{}, nil }

// After reads the state again and says what the command did. tail is the end of
// its stdout, where CBSD prints its errors.
func (p *Pool) After(ctx context.Context, plan Plan, before Snapshot, exit Exit, tail []byte) Verdict {
	return Verdict{ErrCode: exit.Code}
}
