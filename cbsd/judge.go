package cbsd

import (
	"bytes"
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/cbsd/cbsdmq"
)

func judgeCreate(plan Plan, name string, was, is GuestState, tail []byte) finding {
	f := finding{met: is.Exists, had: was.Exists, why: name + " was not created"}
	if wrong, ok := wrongFamily(plan, name, is); ok && is.Exists {
		return wrong
	}
	if v, _ := plan.Arg("runasap"); v == "1" && is.Exists && !is.Running {
		return finding{had: was.Exists, why: name + " exists but does not run", hint: startHint(plan, name, is, tail)}
	}
	return f
}

// Misfit says why a change must not begin: a guest that it names is of another
// engine. CBSD does not look at that: a bremove of a QEMU guest takes the disks of
// a running VM away, and leaves the VM.
func Misfit(plan Plan, before Snapshot) error {
	if plan.Family == "" { // it is for all
		return nil
	}
	names := targetsOf(plan)
	switch plan.Verb {
	case Register, Unregister, Import: // it need not be registered
		return nil
	case Clone, Rename:
		from, _ := plan.Arg("old")
		names = []string{from}
	}
	for _, name := range names {
		g := before.Guests[name]
		if f, wrong := wrongFamily(plan, name, g); wrong && g.Exists && g.Emulator != "" {
			return cbsdmq.Errorf(cbsdmq.CodeRefused, "Command", "%s", f.why).
				WithHint("%s", cmp.Or(f.hint, "CBSD has no such command for guests of "+g.Emulator))
		}
	}
	return nil
}

// wrongFamily finds a guest that the command is not for.
func wrongFamily(plan Plan, name string, g GuestState) (finding, bool) {
	family := g.Emulator
	switch family {
	case bhyve, qemu, xen, virtualbox:
	default: // qemu-arm-static and the like are jails
		family = jail
	}
	switch plan.Verb {
	case Mode, Snapshots, Export, Import: // wrappers: they are for all
		return finding{}, false
	}
	if plan.Family == family {
		return finding{}, false
	}
	f := finding{why: fmt.Sprintf("%s is a guest of %s", name, family)}
	if other := family[:1] + plan.Command[1:]; catalogue()[other] != nil {
		f.hint = "use " + other
	}
	return f, true
}

func judgeRemove(name string, was, is GuestState) finding {
	f := finding{met: !is.Exists && !is.Unregistered, had: !was.Exists && !was.Unregistered, why: name + " is still there"}
	switch {
	case is.Protected:
		f.hint = "it is protected: set protected=0 first"
	case is.Unregistered:
		f.why = name + " is unregistered and still there"
		f.hint = "register it first: cbsd jregister jname=" + name
	}
	return f
}

func judgeRegister(plan Plan, name string, was, is GuestState) finding {
	if plan.Verb == Register {
		return finding{met: is.Exists, had: was.Exists, why: name + " is not registered"}
	}
	f := finding{
		met: !is.Exists && is.Unregistered, had: !was.Exists && was.Unregistered,
		why: name + " is still registered",
	}
	if !is.Exists {
		f.why = missing(name, is)
	}
	if is.Running {
		f.hint = "it runs: stop it first"
	}
	return f
}

func judgeRestart(plan Plan, name string, was, is GuestState, tail []byte) finding {
	if !is.Running {
		return finding{why: name + " does not run", hint: startHint(plan, name, is, tail)}
	}
	// a jail has no start time, and may be given the same jid again
	same := was.Running && was.PID != 0 && was.PID == is.PID && was.Started == is.Started && is.Emulator != jail
	return finding{met: !same, why: name + " runs on as it was"}
}

func judgePause(plan Plan, name string, was, is GuestState) finding {
	if !is.Running {
		return finding{why: name + " does not run"}
	}
	switch mode, _ := plan.Arg("mode"); mode {
	case "on":
		return finding{met: is.Paused, had: was.Paused, why: name + " is not paused"}
	case "off":
		return finding{met: !is.Paused, had: was.Running && !was.Paused, why: name + " is still paused"}
	}
	return finding{met: is.Paused != was.Paused, why: name + " is as it was"}
}

func judgeMode(plan Plan, name string, was, is GuestState) finding {
	mode, _ := plan.Arg("mode")
	want := map[string]string{"slave": statusSlave, "maintenance": statusMaintenance}[mode]
	in := func(g GuestState) bool {
		if want == "" {
			return g.Status != statusSlave && g.Status != statusMaintenance
		}
		return g.Status == want
	}
	return finding{met: in(is), had: was.Exists && in(was), why: fmt.Sprintf("%s is not in mode %s", name, mode)}
}

// judgeCopy judges the verbs with an old and a new name.
func judgeCopy(plan Plan, before, now Snapshot) finding {
	from, _ := plan.Arg("old")
	to, _ := plan.Arg("new")
	if from == "" || to == "" {
		return finding{none: true}
	}
	source, copied := now.Guests[from], now.Guests[to]
	was := before.Guests[to]
	if f, ok := wrongFamily(plan, from, source); ok && source.Exists {
		return f
	}
	switch {
	case plan.Verb == Rename && copied.Exists && source.Exists:
		return finding{why: fmt.Sprintf("%s and %s are both there", from, to)}
	case plan.Verb == Rename:
		return finding{
			met: copied.Exists, had: was.Exists && !before.Guests[from].Exists,
			why: fmt.Sprintf("%s was not renamed", from), hint: sourceHint(from, source),
		}
	case !copied.Exists && !source.Exists:
		return finding{why: missing(from, source)}
	case !copied.Exists:
		return finding{why: fmt.Sprintf("there is no guest %s", to), hint: sourceHint(from, source)}
	case was.Exists:
		return finding{met: true, had: true}
	}
	// Where the copying of the disks fails, CBSD says ok.
	for disk := range source.Disks {
		if filepath.IsAbs(disk) || !isFile(source.Data, disk) || isFile(copied.Data, disk) {
			continue
		}
		return finding{
			why:  fmt.Sprintf("%s has no disk %s", to, disk),
			hint: "CBSD copies disks with rsync where there is no ZFS: is it installed? Remove " + to + " and clone again",
		}
	}
	return finding{met: true}
}

func sourceHint(name string, g GuestState) string {
	switch {
	case !g.Exists:
		return missing(name, g)
	case g.Running:
		return name + " runs: stop it first"
	}
	return ""
}

func isFile(dir, name string) bool {
	_, err := os.Lstat(filepath.Join(dir, name)) // on ZFS it is a link to the volume
	return dir != "" && err == nil
}

// judgeDisk judges bhyve-dsk.
func judgeDisk(plan Plan, name string, was, is GuestState) finding {
	mode, _ := plan.Arg("mode")
	disk := diskPath(plan)
	_, had := was.Disks[disk]
	_, has := is.Disks[disk]
	switch mode {
	case "attach":
		if disk == "" {
			return finding{met: len(is.Disks) > len(was.Disks), why: name + " has no more disks than before"}
		}
		return finding{met: has, had: had, why: fmt.Sprintf("%s has no disk %s", name, disk)}
	case "detach", "delete", "remove":
		return finding{met: disk != "" && !has, had: !had, why: fmt.Sprintf("disk %s is still attached to %s", disk, name)}
	case "modify":
		if !has {
			return finding{why: fmt.Sprintf("%s has no disk %s", name, disk)}
		}
		f := judgeValues(plan, name, was.Disks[disk], is.Disks[disk])
		if asked, ok := plan.Arg("dsk_size"); ok && f.met && !f.none {
			f = judgeSize(f, disk+" of "+name, asked, was.Disks[disk]["dsk_size"], is.Disks[disk]["dsk_size"])
		}
		return f
	}
	return finding{none: true}
}

// sizeSlack is by how much a disk may come out larger than it was asked for: ZFS
// rounds up to whole blocks.
const sizeSlack = 16 << 20

// judgeSize judges the new size of a disk: a size, or + and what to add. CBSD
// adds nothing where it is a bare number of bytes, and ends with status 0.
func judgeSize(f finding, disk, asked, was, is string) finding {
	add, more := strings.CutPrefix(asked, "+")
	want, ok := parseSize(add)
	now, known := parseSize(is)
	old, knownOld := parseSize(was)
	if !ok || !known || more && (!knownOld || old == 0) {
		return f
	}
	if more {
		want += old
	}
	if now < want || now >= want+sizeSlack {
		return finding{why: fmt.Sprintf("%s has %s bytes, not %d", disk, is, want)}
	}
	f.had = f.had && knownOld && old == now
	return f
}

// diskPath is the disk that plan names, as the table has it.
func diskPath(plan Plan) string {
	disk, _ := plan.Arg("dsk_path")
	if disk == "" || strings.HasPrefix(disk, "/") {
		return disk
	}
	return strings.ReplaceAll(disk, ".vhd", "") + ".vhd"
}

// startHint says why a guest may not have been started.
func startHint(plan Plan, name string, g GuestState, tail []byte) string {
	letter := plan.Command[:1]
	switch {
	case g.Status == statusMaintenance:
		return "it is in maintenance: cbsd jswmode jname=" + name + " mode=master"
	case g.Status == statusSlave:
		return "it is a slave here: cbsd jswmode jname=" + name + " mode=master, if it runs nowhere else"
	case bytes.Contains(tail, []byte("PID: 0")):
		return "its process ended at once: the output says why, and so does the console: cbsd " + letter + "start " + name + " in a shell on the host; " +
			"if another pool started a guest at that moment, both may have taken one VNC port: start it again"
	case bytes.Contains(tail, []byte("No such ISO image")):
		return "cbsd could not download it: can this host reach iso_site of its profile? `cbsdmq warm` lists what can be fetched beforehand"
	case g.Emulator == jail && !canRunJails:
		return "this host has no jails: only FreeBSD has"
	}
	return ""
}

// brokenHint names the way round commands that are broken in CBSD itself.
func brokenHint(plan Plan, exit Exit) string {
	if exit.Code != 127 {
		return ""
	}
	switch plan.Command {
	case "bregister", "xregister":
		return plan.Command + " is broken in CBSD: use jregister, it handles all guests"
	case "bunregister", "xunregister":
		return plan.Command + " is broken in CBSD: use junregister, it handles all guests"
	}
	return ""
}
