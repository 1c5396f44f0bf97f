package cbsd

import (
	"slices"
	"strings"
	"sync"

	"github.com/cbsd/cbsdmq"
)

// Families of guests, as in the column emulator of the table jails.
const (
	jail       = "jail"
	bhyve      = "bhyve"
	qemu       = "qemu"
	xen        = "xen"
	virtualbox = "virtualbox"
)

// access says what a command does to the pool and what it needs.
type access uint8

const (
	changes  access = iota
	reads           // changes nothing
	terminal        // needs a person at a terminal: refused unless named in Allow
	runs            // runs programs that its arguments name: refused unless named in Allow
)

// words says what a command takes its positional words for.
type words uint8

const (
	noWords     words = iota
	guestWords        // names of guests
	columnWords       // names of columns
	freeWords         // anything
	pathWords         // anything but options, of which those of scp name programs to run
)

// A command is one line of the catalogue.
type command struct {
	name    string
	family  string
	does    access
	reads   string // values of the argument mode with which a command that changes, or runs, only reads
	verb    Verb
	guests  string // arguments that name guests, the main one first
	path    string // the argument that names an image file where others name a guest
	words   words
	args    string // names of arguments
	sets    string // more of them, shared with other commands
	files   string // arguments that name files which it writes or runs: refused unless named in Allow
	open    bool   // takes arguments of any name
	module  bool   // exists only where a module of CBSD is installed
	builtin bool   // has no file of its own
	own     bool   // is carried out by this program, not by cbsd
	resplit bool   // a wrapper that splits its arguments at white space again
	drops   bool   // loses its first word where it has no terminal
	mute    bool   // does not answer --args, --help and --desc
	yes     bool   // asks a question that must be answered with yes
	host    bool   // without a guest it acts on the host itself: refused unless named in Allow
}

// catalogue is every command of CBSD 14.1 and its other names. Commands that it
// lacks (third-party modules) are looked for on the host.
var catalogue = sync.OnceValue(func() map[string]*command {
	m := make(map[string]*command)
	for _, list := range [][]command{jailCommands(), vmCommands(), nodeCommands(), systemCommands(), ownCommands()} {
		for i := range list {
			m[list[i].name] = &list[i]
		}
	}
	return m
})

// knows reports whether the command takes an argument of that name.
func (c *command) knows(name string) bool {
	return hasField(c.args, name) || hasField(c.sets, name)
}

// known lists the names of the command's arguments, sorted.
func (c *command) known() []string {
	all := append(strings.Fields(c.args), strings.Fields(c.sets)...)
	slices.Sort(all)
	return slices.Compact(all)
}

// onlyReads reports whether the argument makes the command one that reads.
func (c *command) onlyReads(a cbsdmq.Arg) bool { return a.Name == "mode" && hasField(c.reads, a.Value) }

// fresh reports whether the argument name holds the name of a guest that the
// command makes.
func (c *command) fresh(name string) bool {
	switch c.verb {
	case Create, Import:
		return hasField(c.guests, name)
	case Clone, Rename:
		return name == "new"
	}
	return false
}

// namesGuest reports whether the argument name holds the name of a guest. jname
// does in every command, known or not.
func (c *command) namesGuest(name string) bool {
	return name != c.path && (name == "jname" || hasField(c.guests, name))
}

// keeps reports whether the command keeps arguments of any name: a create verb
// writes them into the guest's configuration, which CBSD reads as shell.
func (c *command) keeps() bool { return c.verb == Create && c.path == "" || c.name == "xcreate" }

// hasField reports whether list, separated by single spaces, has the word f.
func hasField(list, f string) bool {
	for w := range strings.SplitSeq(list, " ") {
		if w == f && f != "" {
			return true
		}
	}
	return false
}
