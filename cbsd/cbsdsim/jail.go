package cbsdsim

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"strconv"
	"strings"
	"time"
)

// createJail is jcreate.
func (c *call) createJail() error {
	if err := c.readJconf(); err != nil {
		return err
	}
	jname, ver := c.args.get("jname"), c.args.or("ver", "native")
	if jname == "" {
		return c.fail("No such jname variable")
	}
	g, err := c.guest(jname)
	if err != nil {
		return err
	}
	if g.exists() {
		return c.fail("jail %s already exist, use autorestart=1 for updating via jset", jname)
	}
	if strings.ContainsAny(jname, "/\x00") {
		return c.fail("create_fs failed")
	}
	c.chat("Please wait: this will take a while...")
	r := c.jailRow(jail, jname, c.args.or("ip4_addr", "DHCP"))
	r["arch"] = c.args.or("arch", "amd64")
	r["ver"] = ver
	for _, col := range []string{"basename", "exec_poststart", "exec_poststop", "exec_prestart", "exec_prestop", "masterhost", "slavenode"} {
		r[col] = c.args.get(col)
	}
	if err := errors.Join(os.MkdirAll(c.wd.system(jname), 0o755), os.MkdirAll(c.wd.data(jname), 0o755)); err != nil {
		return fmt.Errorf("making directories: %w", err)
	}
	kept := map[string]string{"path": r["path"], "data": r["data"], "rcconf": r["rcconf"], "mount_fstab": r["mount_fstab"]}
	maps.Copy(kept, c.args.values)
	if err := writeShellVariables(c.wd.rcConf(jname, true), kept); err != nil {
		return err
	}
	if err := c.insertGuest(jail, jname, r, nil); err != nil {
		return err
	}
	if !c.quiet() {
		c.say("")
		c.manual(jail, jname, "remove")
		c.say("etcupdate error: no such %s", c.wd.path("src", "src_"+ver, "etcupdate", "current"))
		c.say("etcupdate: please run for init: cbsd etcupdate mode=extract ver=%s", ver)
	}
	if c.args.get("runasap") == "1" {
		if err := c.sub("jstart").startJail(jname); err != nil && !isExit(err) {
			return err
		}
	}
	c.done("jcreate", c.begun)
	return nil
}

// jailTargets is what jstart and jstop act on: guests that exist, or one word that may be none.
func (c *call) jailTargets() (known []string, one string, err error) {
	names := c.args.words
	if n := c.args.get("jname"); n != "" {
		if names, err = c.matching(jail, n); err != nil {
			return nil, "", err
		}
		if names == nil {
			names = []string{n}
		}
	}
	known, err = c.existing(jail, names)
	return known, c.args.raw[0], err
}

func (c *call) startJails() error {
	return c.eachJail("List of offline jail", "", "Multiple start: done", (*call).startJail)
}

func (c *call) stopJails() error {
	return c.eachJail("List of online jail", "On", "Multiple stop: done", (*call).stopJail)
}

// eachJail acts on one jail, or on several in silence.
func (c *call) eachJail(subject, status, finally string, act func(*call, string) error) error {
	if c.args.empty() {
		return c.pick(subject, jail, status, "No jail specified")
	}
	known, word, err := c.jailTargets()
	switch {
	case err != nil:
		return err
	case len(known) == 0:
		return act(c, word)
	case len(known) == 1:
		return act(c, known[0])
	}
	quiet := *c
	quiet.out = io.Discard
	for _, n := range known {
		if err := act(&quiet, n); err != nil && !isExit(err) {
			return err
		}
	}
	c.done(c.name, c.begun)
	c.say("%s", finally)
	return nil
}

func (c *call) startJail(jname string) error {
	begun := time.Now()
	g, err := c.guest(jname)
	switch {
	case err != nil:
		return err
	case !g.exists():
		return c.fail("No such jail: %s", jname)
	case g.emulator != "jail":
		return c.fail("Jail in %s mode", g.emulator)
	case g.status == stateSlave:
		return c.fail("Jail in slave mode. Please cbsd jswmode mode=master first")
	case g.status == stateMaintenance:
		return c.fail("Jail in maintenance mode")
	case g.running():
		return c.fail("Jail %s already running, jid: %d", jname, g.jid)
	}
	data := c.wd.data(jname)
	c.chat("Default NIC automatically selected: lo0")
	if _, err := os.Stat(data + "/etc/hosts"); err != nil {
		c.chat("mkjhosts: no %s/etc/hosts", data)
	}
	if _, err := os.Stat(data + "/dev"); err != nil {
		if err := os.MkdirAll(data+"/dev", 0o755); err != nil {
			return err
		}
		c.chat("makejconf: mount.devfs: %s/dev dir was created", data)
	}
	c.chat("set resource limit: [ ]")
	c.chat("jail renice: 1")
	c.chat("Starting jail: %s, parallel timeout=5", jname)
	if !c.behaviour.Die {
		if err := c.runJail(jname); err != nil {
			return err
		}
	}
	if !c.quiet() {
		c.done("jstart", begun)
	}
	return nil
}

// runJail gives a jail the lowest jid above those in use, and records it.
func (c *call) runJail(jname string) error {
	running, err := os.ReadDir(c.wd.path(JailDir))
	if err != nil {
		return err
	}
	jid := 1
	for _, e := range running {
		jid = max(jid, readPID(c.wd.jail(e.Name()))+1)
	}
	if err := os.WriteFile(c.wd.jail(jname), []byte(strconv.Itoa(jid)+"\n"), 0o644); err != nil {
		return err
	}
	return c.store.exec("UPDATE jails SET jid = ?, state_time = strftime('%s','now') WHERE jname = ?", jid, jname)
}

func (c *call) stopJail(jname string) error {
	begun := time.Now()
	g, err := c.guest(jname)
	switch {
	case err != nil:
		return err
	case !g.exists():
		return c.fail("No such jail: %s", jname)
	case !g.running():
		return c.fail("Not Running: %s", jname)
	case g.status == stateMaintenance:
		return c.fail("Jail in maintenance mode")
	case g.emulator == "bhyve":
		return c.fail("For bhyve jail use: cbsd bstop %s instead", jname)
	}
	c.say("Stopping jail: %s, parallel timeout=5", jname)
	if err := os.Remove(c.wd.jail(jname)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := c.store.exec("UPDATE jails SET jid = 0, state_time = strftime('%s','now') WHERE jname = ?", jname); err != nil {
		return err
	}
	c.done("jstop", begun)
	return nil
}

// restartJails is jrestart; it leaves jails that do not run alone.
func (c *call) restartJails() error {
	if c.args.empty() {
		return c.pick("List of online jail", jail, "On", "")
	}
	names := c.args.words
	if n := c.args.get("jname"); n != "" {
		matches, err := c.matching(jail, n)
		if err != nil {
			return err
		}
		names = []string{n}
		if matches != nil {
			names = matches
		}
	}
	for _, jname := range names {
		g, err := c.guest(jname)
		switch {
		case err != nil:
			return err
		case !g.exists():
			c.say("no such jail: %s", jname)
			continue
		case !g.running():
			continue
		}
		for _, act := range []func(*call, string) error{(*call).stopJail, (*call).startJail} {
			if err := act(c, jname); err != nil && !isExit(err) {
				return err
			}
		}
		c.done("jrestart", c.begun)
	}
	c.done("jrestart", c.begun)
	return nil
}

// pauseJail is jpause. The real one says so and then changes the priority only.
func (c *call) pauseJail() error {
	jname := c.args.get("jname")
	g, err := c.guest(jname)
	switch {
	case err != nil:
		return err
	case !g.exists():
		return c.fail("No such jail: %s", jname)
	case g.emulator == "bhyve":
		return c.fail("For bhyve jail use: cbsd bpause=%s instead", jname)
	case !g.running():
		return c.fail("Not running")
	}
	c.say("jail is active, triggering to sleep")
	return nil
}

// jailStatus is jstatus: the jid on standard output, and status 1 for a guest that exists.
func (c *call) jailStatus() error {
	jname := c.args.get("jname")
	if jname == "" && len(c.args.words) > 0 {
		jname = c.args.words[0]
	}
	g, err := c.guest(jname)
	if err != nil {
		return err
	}
	if g.exists() {
		c.say("%d", g.jid)
	}
	if g.exists() != (c.args.get("invert") != "") {
		return exitCode(1)
	}
	return nil
}
