package cbsd

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/cbsd/cbsdmq"
)

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
// the verb Other, and its outcome is left to its exit code.
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
	Snapshots  Verb = "snapshots"
	Export     Verb = "export"
	Import     Verb = "import"
	Migrate    Verb = "migrate"
	Fetch      Verb = "fetch"
	Image      Verb = "image"
	Transfer   Verb = "transfer"
)

// WholePool is the lane of a command that may touch every guest of the pool.
const WholePool = "*"

// A Plan is what is known about a job before it runs. It is plain data: it can
// be stored as JSON, or made again from the job.
type Plan struct {
	Command  string   `json:"command"`
	Argv     []string `json:"argv"`               // the arguments of cbsd: command, key=value in the order of the body, words; inter=0 before words that CBSD would lose
	Class    Class    `json:"class"`              // Read or Change
	Family   string   `json:"family,omitempty"`   // jail, bhyve, qemu, xen, virtualbox, or "" where the command belongs to none
	Verb     Verb     `json:"verb,omitempty"`     // Other where the outcome is left to the exit code
	Guest    string   `json:"guest,omitempty"`    // the main guest, "" where the command names none
	Lanes    []string `json:"lanes,omitempty"`    // every guest named, "!command" for a change without a guest, WholePool for a wildcard; empty for a read without a guest
	Warnings []string `json:"warnings,omitempty"` // for the reply
	Own      bool     `json:"own,omitempty"`      // carried out by this program, not by cbsd: see Own
}

// Arg returns the value that the plan gives to the argument name.
func (p *Plan) Arg(name string) (string, bool) {
	for _, a := range p.Argv[min(1, len(p.Argv)):] {
		if n, v, ok := strings.Cut(a, "="); ok && n == name {
			return v, true
		}
	}
	return "", false
}

// FreesRoom reports whether what the plan does makes room on the pool's disk.
func (p *Plan) FreesRoom() bool {
	mode, _ := p.Arg("mode")
	switch p.Verb {
	case Stop, Remove:
		return true
	case Disk:
		return mode == "detach" || mode == "delete" || mode == "remove"
	}
	return strings.HasSuffix(p.Command, "snapshot") && strings.HasPrefix(mode, "destroy")
}

// Plan checks job against the policy and says what it would do. A job that may
// not run is an *cbsdmq.Error of CodeRefused that names the field
// ("CommandArgs.jname"), what is wrong with it, and in its hint the way out.
//
// Plan starts no process, but for an argument that the catalogue does not know:
// then it asks this host's cbsd for the arguments of the command, once.
func (p *Pool) Plan(job cbsdmq.Job) (Plan, error) {
	cmd, err := p.command(job)
	if err != nil {
		return Plan{}, err
	}
	b := planner{pool: p, cmd: cmd, job: job, plan: Plan{
		Command: job.Command, Argv: []string{job.Command},
		Class: Change, Family: cmd.family, Verb: cmd.verb, Own: cmd.own,
	}}
	if words := job.Words(); len(job.Args) == 0 && len(words) == 1 && asks(cmd, words[0]) {
		b.plan.Argv = append(b.plan.Argv, words[0])
		b.plan.Class, b.plan.Verb = Read, Other
		return b.plan, nil
	}
	for _, a := range job.Args {
		if err := b.arg(a); err != nil {
			return Plan{}, err
		}
	}
	for i, w := range job.Words() {
		if err := b.word(i, w); err != nil {
			return Plan{}, err
		}
	}
	if cmd.host && len(b.guests) == 0 && !p.allow.names(cmd.name) {
		return Plan{}, refuse("CommandArgs.jname", "is missing: "+cmd.name+" would act on the host itself",
			fmt.Sprintf(`name the guest, or name %q in the agent's key "allow" to permit it`, cmd.name))
	}
	plan := b.finish()
	if err := p.checkZFS(&plan); err != nil {
		return Plan{}, err
	}
	if cmd.own {
		if err := p.checkOwn(&plan); err != nil {
			return Plan{}, err
		}
	}
	return plan, nil
}

// asks reports whether word makes a command describe itself and do nothing.
func asks(cmd *command, word string) bool {
	return !cmd.mute && (word == "--help" || word == "--desc" || word == "--args")
}

// command finds the command of a job and checks that it may be run at all.
func (p *Pool) command(job cbsdmq.Job) (*command, error) {
	name := job.Command
	if !verbName.MatchString(name) {
		return nil, refuse("Command", fmt.Sprintf("%q is not a command", name), "a command is one word, such as jstart, without a path")
	}
	cmd, listed := catalogue()[name]
	if !p.host.has(name, cmd) {
		if listed {
			return nil, refuse("Command", "this host's CBSD has no "+name, missingHint(cmd))
		}
		return nil, refuse("Command", "there is no command "+name, absentHint(name))
	}
	if !listed {
		cmd = &command{name: name, open: true, words: freeWords, mute: true}
		if strings.HasSuffix(name, "-tui") {
			cmd.does = terminal
		}
	}
	switch named := p.allow.names(name); {
	case p.allow.only && !named && !p.allow.all:
		return nil, refuse("Command", name+" is not allowed in this pool", `the agent's key "allow" lists what is`)
	case cmd.does == terminal && !named:
		return nil, refuse("Command", name+" needs a terminal", "run it in a shell on the host")
	case cmd.does == runs && !named && !slices.ContainsFunc(job.Args, cmd.onlyReads):
		return nil, refuse("Command", name+" runs other programs", fmt.Sprintf(`name %q in the agent's key "allow" to permit it`, name))
	}
	return cmd, nil
}

// absentHint names what may have been meant. Some verbs CBSD has for bhyve
// guests only.
func absentHint(name string) string {
	family := map[byte]string{'q': "QEMU", 'x': "Xen", 'v': "VirtualBox"}[name[0]]
	if b := "b" + name[1:]; family != "" && catalogue()[b] != nil {
		return "CBSD has " + b + " for guests of bhyve, and nothing like it for those of " + family
	}
	return nearestHint(name, commandNames(), "cbsd help lists the commands of a host")
}

func missingHint(cmd *command) string {
	if cmd.module {
		return "it belongs to a module: cbsd module mode=install on the host"
	}
	return "it needs another version of CBSD, or another platform"
}

func refuse(field, what, hint string) error {
	e := cbsdmq.Errorf(cbsdmq.CodeRefused, field, "%w", errors.New(what))
	e.Hint = hint
	return e
}
