package cbsd

import (
	"fmt"
	"slices"
	"strings"

	"github.com/cbsd/cbsdmq"
)

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
