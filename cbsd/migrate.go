package cbsd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// remoteWait bounds the question to the node that a guest goes to.
const remoteWait = 30 * time.Second

// remote reads a guest on the node that plan moves it to, by the ssh of CBSD's
// cluster: there is no other way to it.
func (p *Pool) remote(ctx context.Context, plan Plan) (GuestState, error) {
	node, _ := plan.Arg("node")
	ctx, cancel := context.WithTimeout(ctx, remoteWait)
	defer cancel()
	out, err := p.host.run(ctx, "rexe", "tryoffline=1", "node="+node,
		"/usr/local/bin/cbsd", plan.Family[:1]+"ls", "header=0", "alljails=0", "display=jname,status,jid")
	if err != nil {
		if line := lastLine(out, anything); line != "" {
			err = errors.New(line)
		}
		return GuestState{}, fmt.Errorf("asking node %s for its guests: %w", node, err)
	}
	g, err := parseRemote(out, plan.Guest, plan.Family)
	if err != nil || plan.Family != bhyve {
		return g, err
	}
	// One that runs and is in no table is not in the list. The status of this
	// command is inverted: with a process it is 1.
	out, err = p.host.run(ctx, "rexe", "tryoffline=1", "node="+node, "/usr/local/bin/cbsd", "bhyve-exist", "jname="+plan.Guest)
	pid, notPID := strconv.Atoi(lastLine(out, anything))
	switch {
	case notPID == nil && pid > 0:
		g.Running, g.PID = true, pid
	case err != nil:
		return GuestState{}, fmt.Errorf("asking node %s for the process of %s: %w", node, plan.Guest, err)
	default:
		g.Running = false
	}
	return g, nil
}

// parseRemote finds a guest in a list of names, states and process ids. A list
// that is none is an error: it must not be taken for one without the guest.
func parseRemote(out []byte, name, family string) (GuestState, error) {
	for line := range bytes.Lines(out) {
		f := strings.Fields(strings.ReplaceAll(clean(line), "\r", ""))
		if len(f) == 0 {
			continue
		}
		if len(f) < 3 {
			return GuestState{}, fmt.Errorf("the other node's list is not understood: %s", clean(line))
		}
		if f[0] == name {
			return GuestState{Exists: true, Emulator: family, Running: f[1] == "On", Status: f[1]}, nil
		}
	}
	return GuestState{}, nil
}

// judgeMigrate judges bmigrate and jcoldmigrate by both sides. A guest that
// both have, or none, is never done: it is said who has what, with the commands
// that put it right.
func judgeMigrate(plan Plan, before, now Snapshot, code int) finding {
	name := plan.Guest
	node, _ := plan.Arg("node")
	was, here := before.Guests[name], now.Guests[name]
	if !was.Exists && !here.Exists {
		return finding{why: missing(name, here)}
	}
	if f, ok := wrongFamily(plan, name, here); ok && here.Exists {
		return f
	}
	there, read := now.Remote[name]
	if !read {
		look := "look at both: cbsd " + plan.Family[:1] + "ls here, and cbsd rexe node=" + node + " /usr/local/bin/cbsd " + plan.Family[:1] + "ls"
		if code != 0 && here.Exists && here.Running == was.Running && here.Status == was.Status { // it was refused, as a rule
			f := finding{why: name + " was not moved"}
			if here.Running {
				f.hint = "it runs here; " + node + " does not say whether it has it, too: " + look
			}
			return f
		}
		return finding{why: "what became of it on " + node + " is not known: " + now.RemoteError, hint: look + ". Start it nowhere before you know"}
	}
	if plan.Command == "jcoldmigrate" {
		return judgeCold(name, node, was, here, there)
	}
	register := "cbsd rexe node=" + node + " /usr/local/bin/cbsd jregister jname=" + name
	switch {
	case here.Running && there.Running:
		return finding{why: fmt.Sprintf("%s runs here and on %s: both write to its disks", name, node),
			hint: "stop one of them at once: cbsd rexe node=" + node + " /usr/local/bin/cbsd bstop jname=" + name + " noacpi=1"}
	case here.Running:
		return finding{why: fmt.Sprintf("%s still runs here, not on %s", name, node)}
	case !there.Running && !there.Exists:
		f := finding{why: fmt.Sprintf("%s runs neither here nor on %s", name, node), hint: "start it here: cbsd bstart jname=" + name}
		if !here.Exists {
			f.hint = "register it here: cbsd jregister jname=" + name + ", then start it"
		}
		return f
	case !there.Running:
		return finding{why: fmt.Sprintf("%s does not run on %s, nor here", name, node), hint: "see why it ended there; its log is in jails-system/" + name}
	case here.Exists && there.Exists:
		return finding{why: fmt.Sprintf("%s runs on %s, but is still registered here", name, node),
			hint: "take it out of the tables here, or a start here would run it twice: cbsd junregister jname=" + name}
	case here.Exists:
		return finding{why: fmt.Sprintf("%s runs on %s, but is registered here and not there", name, node),
			hint: "cbsd junregister jname=" + name + " here, then " + register}
	case !there.Exists:
		return finding{why: fmt.Sprintf("%s runs on %s, but is registered nowhere", name, node), hint: register}
	}
	return finding{met: true}
}

// judgeCold judges jcoldmigrate: the jail is a slave here, and a guest there
// that runs if it ran here.
func judgeCold(name, node string, was, here, there GuestState) finding {
	slave := here.Status == statusSlave
	back := "cbsd jswmode jname=" + name + " mode=master"
	switch {
	case here.Running && there.Running:
		return finding{why: fmt.Sprintf("%s runs here and on %s", name, node), hint: "stop one of them at once: cbsd jstop jname=" + name}
	case !there.Exists && slave:
		return finding{why: fmt.Sprintf("%s is a slave here and not on %s", name, node), hint: "make it start here again: " + back}
	case !there.Exists:
		f := finding{why: fmt.Sprintf("%s was not moved: %s does not have it", name, node)}
		if was.Running && !here.Running {
			f.hint = "it was stopped on the way: cbsd jstart jname=" + name
		}
		return f
	case !slave:
		return finding{why: fmt.Sprintf("%s is on %s, but master here too", name, node),
			hint: "cbsd jswmode jname=" + name + " mode=slave here, or a start here would run it twice"}
	case was.Running && !there.Running:
		return finding{why: fmt.Sprintf("%s is on %s, but does not run there", name, node),
			hint: "cbsd rexe node=" + node + " /usr/local/bin/cbsd jstart jname=" + name}
	}
	return finding{met: true}
}
