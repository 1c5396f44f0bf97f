package cbsdsim

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
)

// migrate is bmigrate as far as it gets without another node.
func (c *call) migrate() error {
	jname, node := c.args.get("jname"), c.args.get("node")
	g, err := c.guest(jname)
	switch {
	case err != nil:
		return err
	case !g.exists():
		return c.fail("No such domains: %s", jname)
	case g.emulator != "bhyve":
		return c.fail("Not in bhyve mode")
	case !g.running():
		return c.fail("Not running")
	}
	var known bool
	err = with(c.wd.path("var", "db", "nodes.sqlite"), func(d *db) error {
		r, err := d.first("SELECT nodename FROM nodelist WHERE nodename = ?", node)
		known = r.columns != nil
		return err
	})
	if err != nil {
		return err
	}
	if !known {
		return c.fail("bmigrate: no such node %s. Please add node via: cbsd add node=%s", node, node)
	}
	c.say("  Data gathering for live migration")
	return c.fail("bmigrate: failed: rexe node=%s", node)
}

// coldMigrate is jcoldmigrate, which finds no node to go to.
func (c *call) coldMigrate() error {
	g, err := c.guest(c.args.get("jname"))
	switch {
	case err != nil:
		return err
	case !g.exists():
		return c.fail("No such jail: %s", c.args.get("jname"))
	case g.emulator == "bhyve":
		return c.fail("bhyve mode unsupported yet")
	}
	c.say("coldmigrate.Error in j2prepare")
	c.say("Guru meditaion: ")
	return c.fail("Preparing.   * check for remote CBSD version: j2prepare: failed: cbsd rexe tryoffline=0 node=%s /usr/local/bin/cbsd -c version",
		c.args.get("node"))
}

// checkpoint is bcheckpoint; a checkpoint is an empty file.
func (c *call) checkpoint() error {
	jname := c.args.get("jname")
	g, err := c.guest(jname)
	switch {
	case err != nil:
		return err
	case !g.exists():
		return c.fail("No such domains: %s", jname)
	case g.emulator != "bhyve":
		return c.fail("Not in bhyve mode")
	}
	dir := c.wd.path("jails-system", jname, "checkpoints")
	switch mode := c.args.get("mode"); mode {
	case "create":
		if !g.running() {
			return c.fail("Not running")
		}
		file := filepath.Join(dir, filepath.Base(c.args.or("name", "checkpoint"))+".ckp")
		if err := errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(file, nil, 0o600)); err != nil {
			return err
		}
		c.say("checkpoint was created: %s", file)
	case "list":
		files, err := filepath.Glob(filepath.Join(dir, "*.ckp"))
		if err != nil {
			return err
		}
		c.say("Created checkpoint for %s:", jname)
		for _, f := range files {
			c.say("%s", strings.TrimSuffix(filepath.Base(f), ".ckp"))
		}
	case "destroyall":
		return os.RemoveAll(dir)
	default:
		return c.fail("Unknown mode: %s", mode)
	}
	return nil
}
