package cbsd

import "github.com/cbsd/cbsdmq"

// A Class says what a command does to the pool.
type Class string

// The classes.
const (
	Read   Class = "read"   // changes nothing; may be run again
	Change Class = "change" // may change a guest or the pool; is begun at most once
)

// A Verb is what a command does to its guest, the same word in each family of
// guests: bstart, jstart and qstart are all Start.
type Verb string

// The verbs whose outcome is read from CBSD's state. Every other command has
// the verb [Other], and its outcome is left to its exit code.
const (
	Other      Verb = ""
	Create     Verb = "create"
	Start      Verb = "start"
	Stop       Verb = "stop"
	Restart    Verb = "restart"
	Pause      Verb = "pause"
	Remove     Verb = "remove"
	Get        Verb = "get"
	Set        Verb = "set"
	List       Verb = "list"
	Disk       Verb = "disk"
	Clone      Verb = "clone"
	Rename     Verb = "rename"
	Mode       Verb = "mode"
	Register   Verb = "register"
	Unregister Verb = "unregister"
)

// WholePool is the lane of a command that may touch every guest of the pool.
const WholePool = "*"

// A Plan is what is known about a job before it runs. It is plain data: it can
// be stored as JSON, or made again from the job.
type Plan struct {
	Command  string   `json:"command"`
	Argv     []string `json:"argv"`              // the arguments of cbsd: command, key=value in the order of the body, words
	Class    Class    `json:"class"`             // Read or Change
	Family   string   `json:"family,omitempty"`  // jail, bhyve, qemu, xen, virtualbox, or "" where the command belongs to none
	Verb     Verb     `json:"verb,omitempty"`    // Other where the outcome is left to the exit code
	Guest    string   `json:"guest,omitempty"`   // the main guest, "" where the command names none
	Lanes    []string `json:"lanes,omitempty"`   // every guest named, "!command" for a change without a guest, WholePool for a wildcard; empty for a read without a guest
	Warnings []string `json:"warnings,omitempty"` // for the reply
}

// Plan checks job against the policy and says what it would do. A job that may
// not run is an *cbsdmq.Error of CodeRefused that names the field
// ("CommandArgs.jname"), what is wrong with it, and in its hint the way out.
//
// Plan starts no process for a command of the catalogue.
func (p *Pool) Plan(job cbsdmq.Job) (Plan, error) {
	return Plan{Command: job.Command, Argv: []string{job.Command}, Class: Change, Lanes: []string{"!" + job.Command}}, nil
}

// Redact reports whether the value of the argument name is a secret that must
// not appear in logs and listings.
func Redact(name string) bool { return false }
