package cbsdsim

import (
	"errors"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// stopVMs is bstop and qstop. Without a terminal they lose their first word, as
// the real ones do, so a name is only heard as jname=NAME.
func (c *call) stopVMs(f family) error {
	what := map[family]string{bhyve: "No bhyve specified", qemu: "No qemu specified"}[f]
	if c.args.empty() {
		return c.pick("List of online VMs", f, "On", what)
	}
	raw := c.args.raw
	if c.getenv("NOINTER") != "" {
		raw = raw[1:]
	}
	jname := c.args.get("jname")
	names, err := c.matching(f, jname)
	if err != nil {
		return err
	}
	if names == nil {
		names = raw
	}
	known, err := c.existing(f, names)
	switch {
	case err != nil:
		return err
	case len(known) > 1:
		quiet := *c
		quiet.out = io.Discard
		slices.Reverse(known)
		for _, n := range known {
			if err := quiet.stopVM(f, n); err != nil && !isExit(err) {
				return err
			}
		}
		c.done("Multiple stop:", c.begun)
		return nil
	case jname != "":
		return c.stopVM(f, jname)
	case len(known) == 1:
		return c.stopVM(f, known[0])
	case len(raw) > 0:
		return c.stopVM(f, raw[0])
	}
	return c.fail("Give me domain name")
}

func (c *call) stopVM(f family, jname string) error {
	g, err := c.guest(jname)
	switch {
	case err != nil:
		return err
	case !g.exists():
		return c.fail("No such domain: %s", jname)
	case g.emulator != f.emulator:
		return c.fail("Not in %s mode", f.emulator)
	}
	begun := time.Now()
	// a stop that is killed leaves this behind
	if err := c.setStatus(jname, stateMaintenance, "Stopping_VM"); err != nil {
		return err
	}
	pid := g.pid()
	switch {
	case c.args.get("noacpi") == "1":
		if pid != 0 {
			killAndWait(pid)
		}
	case pid == 0:
		c.say("Warning: unable to determine %s pid for: %s", f.emulator, jname)
	default:
		c.askToStop(jname, pid)
	}
	for _, file := range []string{"vnc_port", "vnc_bind"} {
		if err := os.Remove(c.wd.path("jails-system", jname, file)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	if err := c.clearVMM(jname); f == bhyve && err != nil {
		return err
	}
	err = errors.Join(
		c.store.exec("UPDATE jails SET status = 0, maintenance = '0', jid = 0, state_time = strftime('%s','now') WHERE jname = ?", jname),
		with(c.wd.guestDB(jname), func(d *db) error { return d.exec("UPDATE settings SET state_time = strftime('%s','now')") }),
	)
	if err != nil {
		return err
	}
	c.done(f.letter+"stop", begun)
	return nil
}

// clearVMM waits for the keeper to clear up, and does it where there is none.
func (c *call) clearVMM(jname string) error {
	for deadline := time.Now().Add(2 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if _, err := os.Stat(c.wd.vmm(jname)); errors.Is(err, os.ErrNotExist) {
			return nil
		}
	}
	if err := os.Remove(c.wd.vmm(jname)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// askToStop sends SIGTERM and counts the seconds down. A guest that ends early
// ends the waiting, not the counting; one that does not end is killed.
func (c *call) askToStop(jname string, pid int) {
	timeout, err := strconv.Atoi(c.args.get("hard_timeout"))
	if err != nil || timeout < 1 {
		timeout = 30
	}
	_ = syscall.Kill(pid, syscall.SIGTERM) // whether it worked is seen below
	for i := 1; i <= timeout; i++ {
		_, _ = io.WriteString(c.out, "Send SIGTERM to "+jname+". Soft timeout is "+strconv.Itoa(timeout)+" sec. "+
			strconv.Itoa(timeout-i)+" seconds left ["+strings.Repeat(".", i))
		waitForEnd(pid, time.Second)
	}
	c.say("]")
	if processAlive(pid) {
		killAndWait(pid)
	}
}

func killAndWait(pid int) {
	_ = syscall.Kill(pid, syscall.SIGKILL)
	waitForEnd(pid, 10*time.Second)
}

// waitForEnd returns when the process is gone, at the latest after limit.
func waitForEnd(pid int, limit time.Duration) {
	for deadline, pause := time.Now().Add(limit), time.Millisecond; processAlive(pid) && time.Now().Before(deadline); {
		time.Sleep(pause)
		pause = min(2*pause, 20*time.Millisecond)
	}
}
