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

// A planner makes the Plan of one job.
type planner struct {
	pool   *Pool
	cmd    *command
	job    cbsdmq.Job
	plan   Plan
	guests map[string]string // by argument; words are ""
	words  []string          // guests that are named by words
	wild   bool              // a wildcard was allowed
}

func (b *planner) arg(a cbsdmq.Arg) error {
	field := "CommandArgs." + a.Name
	switch {
	case !argName.MatchString(a.Name):
		return refuse(fmt.Sprintf("CommandArgs.%q", a.Name), "is not the name of an argument", "letters, digits, _ and -, at most 64, the first a letter or _")
	case slices.ContainsFunc(b.plan.Argv[1:], func(s string) bool { return strings.HasPrefix(s, a.Name+"=") }):
		return refuse(field, "comes twice", "keep one of them")
	case strings.HasPrefix(strings.ToUpper(a.Name), "H_CBSD_"):
		return refuse(field, "presets another argument", "write the argument itself")
	}
	if err := b.value(field, a); err != nil {
		return err
	}
	if err := b.known(field, a.Name); err != nil {
		return err
	}
	if a.Name == "inter" && a.Value != "0" && a.Value != "" {
		b.warn("inter=" + a.Value + " has no effect: commands have no terminal here")
	}
	b.plan.Argv = append(b.plan.Argv, a.Name+"="+a.Value)
	return nil
}

// value checks the value of an argument by what it is for.
func (b *planner) value(field string, a cbsdmq.Arg) error {
	if a.Name == b.cmd.path && a.Name != "" {
		return b.image(field, a)
	}
	if b.cmd.namesGuest(a.Name) {
		return b.guest(field, a.Name, a.Value)
	}
	if f, bad := badValue(b.cmd, a.Name, a.Value); bad {
		return refuse(field, f.what, f.hint)
	}
	if kindOf(b.cmd, a.Name) == file && !harmless(a.Name, a.Value) && !b.pool.allow.argument(b.cmd.name, a.Name) {
		return refuse(field, "names a file that CBSD would run as root, or write to",
			fmt.Sprintf(`name "%s:%s" in the agent's key "allow" to permit it`, b.cmd.name, a.Name))
	}
	return nil
}

// image checks the path of an image: CBSD reads the head of an image as shell.
func (b *planner) image(field string, a cbsdmq.Arg) error {
	if f, bad := badImage(a.Value); bad {
		return refuse(field, f.what, f.hint)
	}
	exports, imports := b.pool.path("export")+"/", b.pool.path("import")+"/"
	if _, renamed := b.job.Arg("new_jname"); !renamed && b.cmd.verb == Import && guestName.MatchString(a.Value) {
		// import/NAME.img has the guest NAME in it
		if f, bad := badGuest(a.Value, false); bad {
			return refuse(field, f.what, "give the guest another name with new_jname")
		}
		if b.guests == nil {
			b.guests = make(map[string]string, 1)
		}
		b.guests["new_jname"] = a.Value
	}
	switch {
	case !strings.Contains(a.Value, "/"), strings.HasPrefix(a.Value, exports), strings.HasPrefix(a.Value, imports):
	case b.pool.allow.argument(b.cmd.name, a.Name):
	default:
		return refuse(field, "names an image whose head CBSD would run as root",
			fmt.Sprintf(`move it to %s, or name "%s:%s" in the agent's key "allow" to permit any path`, imports, b.cmd.name, a.Name))
	}
	return nil
}

// guest checks a name of a guest and takes its lane.
func (b *planner) guest(field, arg, name string) error {
	fresh := arg != "" && b.cmd.fresh(arg)
	if strings.Contains(name, "*") && !fresh && (arg == "" || arg == "jname") {
		switch {
		case !b.pool.cfg.AllowWildcard:
			return refuse(field, "contains the character *", `it would mean every guest that matches; name one guest, or permit it with the agent's key "allow_wildcard"`)
		case !wildcard.MatchString(name):
			return refuse(field, "is not a pattern of guests", "letters, digits and _ . @ : - and *")
		}
		b.wild = true
		return nil
	}
	if f, bad := badGuest(name, fresh); bad {
		return refuse(field, f.what, f.hint)
	}
	if arg == "old" && strings.Contains(name, ":") {
		return refuse(field, "contains the character :", "CBSD renames by sed, where what follows would be commands of sed; rename it on the host first")
	}
	if arg == "" {
		b.words = append(b.words, name)
		return nil
	}
	if b.guests == nil {
		b.guests = make(map[string]string, 2)
	}
	b.guests[arg] = name
	return nil
}

const keptHint = "create commands read their arguments as shell variables; leave it out"

// known looks at an argument whose name the catalogue does not have.
func (b *planner) known(field, name string) error {
	cmd := b.cmd
	if cmd.open || cmd.does == terminal || cmd.knows(name) || name == "emulator" {
		return nil
	}
	if cmd.verb == Create && isUserSetting(name) {
		return nil
	}
	if cmd.keeps() && isInternal(name) {
		return refuse(field, "is a variable of CBSD's own", nearestHint(name, cmd.known(), keptHint))
	}
	if b.pool.host.knows(cmd.name, cmd, name) {
		return nil
	}
	if cmd.keeps() && b.pool.host.uses(name) {
		return refuse(field, "is a variable of CBSD's own", nearestHint(name, cmd.known(), keptHint))
	}
	near, close := nearest(name, cmd.known())
	hint := "cbsd " + cmd.name + " --help lists its arguments"
	if near != "" {
		hint = "did you mean " + near + "?"
	}
	switch {
	case b.pool.cfg.StrictArgs, cmd.verb == Set, close && !cmd.keeps():
		return refuse(field, cmd.name+" has no such argument", hint)
	case near != "":
		b.warn(fmt.Sprintf("%s has no argument %s; %s", cmd.name, name, hint))
	default:
		b.warn(fmt.Sprintf("%s has no argument %s", cmd.name, name))
	}
	return nil
}

func (b *planner) word(i int, w string) error {
	field := fmt.Sprintf("words[%d]", i)
	name, _, isArg := strings.Cut(w, "=")
	switch {
	case w == "":
		return refuse(field, "is empty", "leave it out")
	case isArg && argName.MatchString(name):
		return refuse(field, "is an argument, not a word", "send "+name+" among the arguments")
	case isArg:
		return refuse(field, "contains the character =", "CBSD would take it for an argument")
	}
	switch b.cmd.words {
	case guestWords:
		if err := b.guest(field, "", w); err != nil {
			return err
		}
	case columnWords:
		if f, bad := badText(w); bad {
			return refuse(field, f.what, f.hint)
		}
		if !columns.MatchString(w) || strings.Contains(w, ",") {
			return refuse(field, "is not the name of a column", "letters, digits and _: CBSD would run a file of another name")
		}
	case freeWords, pathWords:
		f, bad := badText(w)
		if !bad {
			f, bad = badPlain(w, b.cmd.words == freeWords)
		}
		if !bad && strings.ContainsAny(w, " *?[") {
			f, bad = flaw{"contains a space or a wildcard", "CBSD would split or expand it; send one word for each"}, true
		}
		if bad {
			return refuse(field, f.what, f.hint)
		}
	case noWords:
		return refuse(field, b.cmd.name+" takes no words", "write name=value")
	}
	b.plan.Argv = append(b.plan.Argv, w)
	return nil
}

// finish decides class, guest and lanes.
func (b *planner) finish() Plan {
	pl := &b.plan
	if b.cmd.drops && len(b.words) > 0 && len(b.job.Args) == 0 {
		// the one argument that changes nothing, to be lost in place of a name
		pl.Argv = slices.Insert(pl.Argv, 1, "inter=0")
	}
	if b.readsOnly() {
		pl.Class = Read
	}
	seen := make(map[string]bool)
	lane := func(name string) {
		if name != "" && !seen[name] {
			seen[name] = true
			pl.Lanes = append(pl.Lanes, name)
		}
	}
	for arg := range strings.SplitSeq(b.cmd.guests, " ") {
		lane(b.guests[arg])
	}
	lane(b.guests["jname"])
	for _, w := range b.words {
		lane(w)
	}
	if len(pl.Lanes) > 0 {
		pl.Guest = pl.Lanes[0]
	}
	switch {
	case b.wild:
		pl.Guest, pl.Lanes = "", []string{WholePool}
	case len(pl.Lanes) == 0 && pl.Class == Change:
		pl.Lanes = []string{"!" + pl.Command}
	}
	return b.plan
}

func (b *planner) readsOnly() bool {
	if b.cmd.does == reads {
		return true
	}
	return slices.ContainsFunc(b.job.Args, b.cmd.onlyReads)
}

func (b *planner) warn(s string) { b.plan.Warnings = append(b.plan.Warnings, s) }

func refuse(field, what, hint string) error {
	e := cbsdmq.Errorf(cbsdmq.CodeRefused, field, "%w", errors.New(what))
	e.Hint = hint
	return e
}
