package cbsd

import (
	"slices"
	"strings"

	"github.com/cbsd/cbsdmq"
)

// Known reports whether the catalogue has a command of that name. A host may
// have more, by modules.
func Known(name string) bool { return catalogue()[name] != nil }

// Resembling is the name of the command that name resembles, "" where it
// resembles none.
func Resembling(name string) string {
	if near, close := nearest(name, commandNames()); close {
		return near
	}
	return ""
}

// Commands are the names of the catalogue's commands that may run without a
// terminal, sorted.
func Commands() []string {
	var names []string
	for name, c := range catalogue() {
		if c.does == reads || c.does == changes {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// Named returns the guests that a job names and that are there before it runs,
// and whether it makes a guest. Of a command that the catalogue does not have,
// it knows jname.
func Named(job cbsdmq.Job) (guests []string, makes bool) {
	cmd := catalogue()[job.Command]
	if cmd == nil {
		cmd = &command{}
	}
	add := func(name string) {
		if name != "" && !slices.Contains(guests, name) {
			guests = append(guests, name)
		}
	}
	for _, a := range job.Args {
		switch {
		case !cmd.namesGuest(a.Name):
		case cmd.fresh(a.Name):
			makes = true
		default:
			add(a.Value)
		}
	}
	if cmd.words == guestWords {
		for _, w := range job.Words() {
			add(w)
		}
	}
	return guests, makes || cmd.verb == Create
}

// GuestOf is the guest that a job is about, also where it is refused: "" where it
// names none, or not properly.
func GuestOf(job cbsdmq.Job) string {
	for _, a := range job.Args {
		if _, bad := badGuest(a.Value, false); !bad && (a.Name == "jname" || a.Name == "old") {
			return a.Value
		}
	}
	return ""
}

// Takes reports whether a command is for guests of that engine, as in
// cbsdmq.Guest.Emulator: jstart takes jails. One that belongs to no engine takes
// all.
func Takes(command, engine string) bool {
	cmd := catalogue()[command]
	return cmd == nil || cmd.family == "" || cmd.family == engine || engine == ""
}

// Engine is the engine whose guests a command is for, "" where that is any.
func Engine(command string) string {
	if cmd := catalogue()[command]; cmd != nil {
		return cmd.family
	}
	return ""
}

// Pattern reports whether the name of a guest is a pattern of some.
func Pattern(name string) bool { return strings.ContainsAny(name, "*?[") }
