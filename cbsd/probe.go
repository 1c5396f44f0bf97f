package cbsd

import "context"

// A Finding is one thing that Probe looked at.
type Finding struct {
	Level Level  // OK, Warning or Fatal
	About string // what was looked at: "cbsd", "workdir", "inventory", ...
	Text  string // what was found
	Hint  string // what a person can do; "" where nothing is wrong
}

// A Level says how bad a Finding is.
type Level string

// The levels.
const (
	OK      Level = "ok"
	Warning Level = "warning"
	Fatal   Level = "fatal"
)

// A Report is what Probe found.
type Report struct {
	Version  string // of CBSD, "" where it could not be asked
	Findings []Finding
}

// Err is the first fatal finding as an error of CodeBadConfig, or nil.
func (r Report) Err() error { return nil }

// Probe looks whether this host's cbsd can serve the pool.
func (p *Pool) Probe(ctx context.Context) Report { return Report{} }
