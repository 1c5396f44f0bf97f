package cbsdmq

import (
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// The most bytes of what a person writes beside a request, and of a job's sender
// and key: both are kept as long as its id, and are in each line about it.
const (
	WhoMax    = 128
	ReasonMax = 400
	NameMax   = 512
)

// A Pause keeps everything that changes a guest, or the whole pool, from being
// begun. Jobs are accepted all the same, and wait.
type Pause struct {
	Pool   string    `json:"pool,omitempty"`
	Guest  string    `json:"guest"` // "" = the whole pool
	Reason string    `json:"reason"`
	By     string    `json:"by"`
	Since  time.Time `json:"since,omitzero"`
}

// A Verdict is what a person found out about a job that ended unknown. The job
// keeps its own end: its replies do not change.
type Verdict struct {
	State  State     `json:"state"` // Done or Failed
	Reason string    `json:"reason,omitempty"`
	By     string    `json:"by"`
	At     time.Time `json:"at,omitzero"`
}

// An Act is what a person did beside submitting a job.
type Act struct {
	Seq    int64     `json:"seq"` // of the pool's acts; grows
	Pool   string    `json:"pool"`
	At     time.Time `json:"at,omitzero"`
	By     string    `json:"by"`
	What   string    `json:"what"` // pause, resume, resolve, cancel, release, drop
	Guest  string    `json:"guest,omitempty"`
	Job    string    `json:"job,omitempty"` // printed id
	Reason string    `json:"reason,omitempty"`
}

// A Wait says of one job that has not ended what it waits for.
type Wait struct {
	Job     string    `json:"job"` // printed id
	Command string    `json:"command"`
	Guest   string    `json:"guest"`
	State   State     `json:"state"` // Queued, Held or Running
	Sender  string    `json:"sender"`
	Since   time.Time `json:"since,omitzero"` // accepted, or begun where it runs
	Causes  []Cause   `json:"causes"`         // none where it runs, or is about to begin
}

// A Cause is one thing that keeps a job from being begun.
type Cause struct {
	Kind  string    `json:"kind"` // pause, held, lane, foreign, worker, journal, runner, drain
	Text  string    `json:"text"`
	Since time.Time `json:"since,omitzero"`
	Job   string    `json:"job,omitempty"` // printed id of the job that is in the way
}

// checkLine refuses what would not be one line of text for people.
func checkLine(field, s string, most int) error {
	switch {
	case len(s) > most:
		return refusedf(field, "%d bytes, more than %d", len(s), most)
	case !utf8.ValidString(s), strings.ContainsFunc(s, unicode.IsControl):
		return refusedf(field, "not a line of text").WithHint("leave out control characters")
	}
	return nil
}
