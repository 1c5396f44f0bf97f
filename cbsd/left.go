package cbsd

import (
	"fmt"
	"maps"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"github.com/cbsd/cbsdmq"
)

// Remains says what a command has left that was told to end before its end.
type Remains struct {
	Kind Kind
	What string // of Left and TooLate: in plain words; of Untold: why
	Hint string // the command that removes it, or puts it right
}

// A Kind is how much a command has left.
type Kind string

// The kinds.
const (
	Clean   Kind = "clean"    // all is as it was before
	Left    Kind = "left"     // something is half made
	TooLate Kind = "too late" // what was asked for is there
	Untold  Kind = ""         // CBSD's state does not show it
)

// remains compares what is there with what was. f is the judgement on the same,
// code the exit status.
func (p *Pool) remains(plan Plan, before, now Snapshot, f finding, code int) Remains {
	old, _ := plan.Arg("old")
	makes := plan.Verb == Create || plan.Verb == Import || plan.Verb == Clone
	switch {
	case plan.Class == Read:
		return Remains{Kind: Clean, What: "it only reads"}
	case !checked(plan), before.Guests == nil && before.Files == nil:
		return Remains{What: "CBSD's state does not show it"}
	case plan.Verb == Transfer && !f.met && now.Guests[plan.Guest].Exists && f.hint == "":
		return Remains{Kind: Clean, What: plan.Guest + " is here, as it was"}
	case (plan.Verb == Migrate || plan.Verb == Transfer) && !f.met, plan.Verb == Rename && !f.met && !now.Guests[old].Exists:
		return Remains{Kind: Left, What: f.why, Hint: f.hint}
	}
	what, hint := left(plan, before, now, makes)
	late := f.met && !f.none && !f.had && plan.Verb != Export
	switch {
	case late && plan.Verb == Remove, late && (plan.Verb == Stop || plan.Verb == Restart) && inMaintenance(before, now):
		if what != "" {
			return Remains{Kind: Left, What: what, Hint: hint}
		}
		fallthrough
	case late && (code == 0 || !makes && plan.Verb != Disk && plan.Verb != Fetch && plan.Verb != Image): // else it did not come to its end
		return Remains{Kind: TooLate, What: "what was asked for is there"}
	case what != "":
		return Remains{Kind: Left, What: what, Hint: hint}
	}
	return Remains{Kind: Clean, What: "all is as it was"}
}

// inMaintenance reports whether a guest is in maintenance that was not before: a
// stop puts it there for its time.
func inMaintenance(before, now Snapshot) bool {
	for name, g := range now.Guests {
		if g.Status == statusMaintenance && before.Guests[name].Status != statusMaintenance {
			return true
		}
	}
	return false
}

// left lists in what guests and files are not as they were.
func left(plan Plan, before, now Snapshot, makes bool) (text, hint string) {
	var what, hints []string
	add := func(text, hint string) {
		if text != "" {
			what = append(what, text)
		}
		if hint != "" && !slices.Contains(hints, hint) {
			hints = append(hints, hint)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(now.Guests)) {
		add(leftOfGuest(plan, name, before.Guests[name], now.Guests[name]))
	}
	if !makes || len(what) == 0 { // else its files go with the guest
		for _, path := range slices.Sorted(maps.Keys(now.Files)) {
			add(leftOfFile(plan, now, path, before.Files[path], now.Files[path]))
		}
	}
	return clip(strings.Join(what, "; "), reasonMax), strings.Join(hints, "; ")
}

// leftOfGuest says in what a guest differs from how it was, and what puts it
// right; "" where it does not.
func leftOfGuest(plan Plan, name string, was, is GuestState) (text, hint string) {
	letter := "j"
	switch is.Emulator {
	case bhyve, qemu:
		letter = is.Emulator[:1]
	}
	remove := "remove it: cbsd " + letter + "remove jname=" + name
	switch {
	case is.Exists && !was.Exists && plan.Verb == Register:
		return name + " is registered", ""
	case is.Exists && !was.Exists:
		return "a half-made guest " + name, remove
	case !is.Exists && was.Exists && is.Unregistered:
		return name + " is unregistered", "cbsd jregister jname=" + name
	case !is.Exists && was.Exists:
		return "", "" // what is left of it is files
	case plan.Verb == Remove && is.Exists && is.Data != "" && !exists(is.Data):
		return name + " is still there, without its data", remove
	case is.Status == statusMaintenance && was.Status != statusMaintenance:
		return name + " is in maintenance, where it cannot be started", "cbsd jswmode jname=" + name + " mode=master"
	}
	was.PID, was.Started, is.PID, is.Started = 0, 0, 0, 0
	if plan.Verb != Pause {
		was.Paused = is.Paused
	}
	if reflect.DeepEqual(normal(was), normal(is)) {
		return "", ""
	}
	if len(was.Snapshots) != len(is.Snapshots) {
		return fmt.Sprintf("%s has %d snapshots, of %d before", name, len(is.Snapshots), len(was.Snapshots)), ""
	}
	return describe(name, is) + ", with other settings than before or in another state", "look at it: cbsd " + letter + "ls"
}

// normal is g as it comes back from JSON: without empty maps.
func normal(g GuestState) GuestState {
	if len(g.Settings) == 0 {
		g.Settings = nil
	}
	if len(g.Disks) == 0 {
		g.Disks = nil
	}
	if len(g.Snapshots) == 0 {
		g.Snapshots = nil
	}
	for name, v := range g.Settings {
		if Redact(name) && len(v) != len(seal("")) {
			g.Settings = maps.Clone(g.Settings)
			g.Settings[name] = seal(v)
		}
	}
	for path, columns := range g.Disks {
		if len(columns) == 0 {
			g.Disks = maps.Clone(g.Disks)
			g.Disks[path] = nil
		}
	}
	return g
}

// leftOfFile says what of a file is left that was not there before.
func leftOfFile(plan Plan, now Snapshot, path string, was, is FileState) (text, hint string) {
	switch {
	case !is.Exists, was.Exists && was.Size == is.Size && was.Modified.Equal(is.Modified) && !removed(plan, now):
		return "", ""
	case plan.Verb == Export && was.Exists:
		return "a part of an image " + path + ", in place of the one that was there", "rm " + path
	case plan.Verb == Export:
		return "a part of an image " + path, "rm " + path
	case plan.Verb == Image:
		return "a part of a copy " + path, "rm " + path
	case plan.Verb == Fetch:
		return "a part of a download " + path, "rm " + path
	case was.Exists && !removed(plan, now):
		return "", "" // of a guest that is still there
	}
	return path, "rm -r " + path
}

// traces lists the paths that plan may leave something at.
func (p *Pool) traces(plan Plan) []string {
	name := plan.Guest
	switch plan.Verb {
	case Clone:
		name, _ = plan.Arg("new")
	case Create, Import, Remove:
	case Disk:
		files, _ := filepath.Glob(filepath.Join(p.path("jails-data"), name+"-data", "*.vhd")) // no pattern in the name
		return files
	default:
		return nil
	}
	if !guestName.MatchString(name) {
		return nil
	}
	return p.leftovers(plan, name)
}

// removed reports whether the guest that a remove was to remove is gone from the
// tables; then its files are left, and else they are its own.
func removed(plan Plan, now Snapshot) bool {
	return plan.Verb == Remove && len(now.Guests) > 0 &&
		!slices.ContainsFunc(slices.Collect(maps.Values(now.Guests)), func(g GuestState) bool { return g.Exists })
}

// Reason is how the reply of a job that was told to end begins; state is the end
// that it has, such as "cancelled".
func (r Remains) Reason(state cbsdmq.State) string {
	switch r.Kind {
	case Clean:
		return fmt.Sprintf("%s clean: %s", state, r.What)
	case Left:
		return fmt.Sprintf("%s, left: %s", state, r.What)
	case TooLate:
		return fmt.Sprintf("%s too late: %s", state, r.What)
	}
	return fmt.Sprintf("%s while it ran; what it left is not known: %s", state, r.What)
}
