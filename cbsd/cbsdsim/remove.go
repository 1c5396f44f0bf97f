package cbsdsim

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// remove is bremove, qremove and jremove: they take guests of any family, do
// what they can, and end with status 0.
func (c *call) remove(f family) error {
	script := f.letter + "destroy"
	if c.args.empty() {
		subject := "List of local VMs:"
		if f == jail {
			subject = "List of local jails:"
		}
		return c.pick(subject, f, "", "No such domains")
	}
	names := c.args.raw
	if f == jail && c.getenv("NOINTER") != "" { // loses its first word, as jstop does
		names = names[1:]
	}
	if jname := c.args.get("jname"); jname != "" {
		matches, err := c.matching(f, jname)
		if err != nil {
			return err
		}
		names = []string{jname}
		if len(matches) > 0 {
			names = matches
		}
	}
	if len(names) == 0 {
		return c.fail("Give me jname")
	}
	for _, jname := range names {
		if err := c.removeGuest(f, jname); err != nil {
			return err
		}
	}
	c.done(script, c.begun)
	return nil
}

func (c *call) removeGuest(f family, jname string) error {
	g, err := c.guest(jname)
	if err != nil {
		return err
	}
	if !g.exists() {
		return c.removeUnregistered(f, jname)
	}
	protected, err := c.protected(g)
	if err != nil {
		return err
	}
	if protected {
		what := "jail"
		if f == qemu {
			what = "env"
		}
		c.say("Protected/locked %s. Skip for remove: %s", what, jname)
		return nil
	}
	if g.running() {
		if g.emulator == "jail" {
			err = c.sub("jstop").stopJail(jname)
		} else {
			err = c.sub(g.letter+"stop", "noacpi=1").stopVM(g.family, jname)
		}
		if err != nil && !isExit(err) {
			return err
		}
	}
	if err := c.forget(g); err != nil {
		return err
	}
	return c.removeFiles(jname)
}

// removeUnregistered removes what junregister left of a guest, if it did.
func (c *call) removeUnregistered(f family, jname string) error {
	file := c.wd.rcConf(jname, false)
	if _, err := os.Stat(file); err != nil || jname != filepath.Base(jname) {
		if f == jail {
			c.say("no such jail: %s", jname)
		} else {
			c.say("No such domain: %s", jname)
		}
		return nil
	}
	if f == jail {
		c.say("jdestroy: found legacy/unregister config: %s", c.wd.rcConf(jname, true))
	} else {
		c.say("no such jail: %s", jname)
	}
	return c.removeFiles(jname)
}

func (c *call) protected(g guest) (bool, error) {
	if g.emulator == "jail" || g.row.get("protected") == "1" {
		return g.row.get("protected") == "1", nil
	}
	s, err := c.settings(g.jname)
	return s.get("protected") == "1", err
}

// forget takes a guest out of the inventory and of the list of media.
func (c *call) forget(g guest) error {
	err := c.store.exec("DELETE FROM jails WHERE jname = ?", g.jname)
	if g.emulator != "jail" {
		err = errors.Join(err, c.store.exec("DELETE FROM "+g.emulator+" WHERE jname = ?", g.jname), c.dropMedia(g.jname))
	}
	if err != nil {
		return fmt.Errorf("forgetting %s: %w", g.jname, err)
	}
	return nil
}

func (c *call) removeFiles(jname string) error {
	err := errors.Join(
		os.RemoveAll(c.wd.data(jname)), os.RemoveAll(c.wd.system(jname)),
		os.RemoveAll(c.wd.root(jname)), os.RemoveAll(c.wd.rcConf(jname, false)),
		os.RemoveAll(c.wd.snapshots(jname)),
	)
	if err != nil {
		return fmt.Errorf("removing %s: %w", jname, err)
	}
	return nil
}
