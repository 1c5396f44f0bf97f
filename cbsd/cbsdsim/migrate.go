package cbsdsim

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// migrate is bmigrate.
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
	other, ok := c.conf.Nodes[node]
	if !ok {
		return c.fail("bmigrate: failed: rexe node=%s", node)
	}
	for _, dir := range []string{"jails-data", "jails-rcconf", "jails-system"} {
		if !sameFile(c.wd.path(dir, "dir.id"), workdir(other).path(dir, "dir.id")) {
			return c.fail("directory id do not match, dir not shared: %s ?", dir)
		}
	}
	if c.getenv("ALWAYS_YES") == "" {
		return c.fail("Exiting.")
	}
	return c.moveLive(g, node, workdir(other))
}

// moveLive moves the process of a VM to a node that shares its files. In the end
// the real one calls two commands that 14.1.3a does not have.
func (c *call) moveLive(g guest, node string, to workdir) error {
	jname := g.jname
	c.say("   * Phase3: migration, please wait...")
	there, err := c.on(to)
	if err != nil {
		return err
	}
	defer there.close()
	if pid := g.pid(); pid != 0 {
		killAndWait(pid)
	}
	if err := c.clearVMM(jname); err != nil {
		return err
	}
	if c.behaviour.Half {
		return c.fail("bmigrate: migration failed: task complete (id:1) but bhyve process is absent, check log")
	}
	s, err := c.settings(jname)
	if err != nil {
		return err
	}
	if err := there.launch(g, s); err != nil {
		return err
	}
	c.say("   * Phase6: unregister %s on %s", jname, c.nodename())
	if c.conf.Registers {
		vm, err := c.store.first("SELECT * FROM bhyve WHERE jname = ?", jname)
		if err != nil {
			return err
		}
		if err := there.insertGuest(bhyve, jname, g.row.values, vm.values); err != nil {
			return err
		}
		err = errors.Join(
			c.store.exec("DELETE FROM jails WHERE jname = ?", jname),
			c.store.exec("DELETE FROM bhyve WHERE jname = ?", jname),
		)
		if err != nil {
			return err
		}
	} else {
		c.complain("exec: /usr/local/cbsd/sudoexec/bunregister: not found")
		c.say("Warning: Unregister error: %s", jname)
	}
	c.say("   * Phase7: register %s on %s", jname, node)
	c.say("   * Phase8: update inventory")
	c.done(c.name, c.begun)
	return nil
}

// on is c in the workdir of another node, where nobody sees what it says.
func (c *call) on(to workdir) (*call, error) {
	there := *c
	there.wd, there.out, there.errw = to, io.Discard, io.Discard
	var err error
	there.store, err = openExisting(to.localDB())
	return &there, err
}

func (c *call) complain(text string) { _, _ = io.WriteString(c.errw, text+"\n") }

func sameFile(a, b string) bool {
	x, err1 := os.ReadFile(a)
	y, err2 := os.ReadFile(b)
	return err1 == nil && err2 == nil && string(x) == string(y)
}

// rexe runs a command on another node.
func (c *call) rexe() error {
	to, ok := c.conf.Nodes[c.args.get("node")]
	if !ok {
		return c.fail("No such node: %s", c.args.get("node"))
	}
	argv := c.argv
	for len(argv) > 0 && strings.Contains(argv[0], "=") {
		argv = argv[1:]
	}
	if len(argv) < 2 || filepath.Base(argv[0]) != "cbsd" {
		return c.fail("rexe: only cbsd is simulated")
	}
	if code := run(argv[1:], append(slices.Clone(c.env), "workdir="+to), nil, false, c.out, c.errw); code != 0 {
		return exitCode(code)
	}
	return nil
}

// bhyveExist is bhyve-exist, whose status is 1 when the VM runs.
func (c *call) bhyveExist() error {
	jname := c.args.get("jname")
	if _, err := os.Stat(c.wd.vmm(jname)); err != nil {
		return nil
	}
	c.say("4711")
	return exitCode(1)
}

// coldMigrate is jcoldmigrate: the jail goes to another node and stays as a
// slave. What a step of it has to say goes to a file, shown where it fails.
func (c *call) coldMigrate() error {
	jname, node := c.args.get("jname"), c.args.get("node")
	g, err := c.guest(jname)
	switch {
	case err != nil:
		return err
	case !g.exists():
		return c.fail("No such jail: %s", jname)
	case g.emulator == "bhyve":
		return c.fail("bhyve mode unsupported yet")
	}
	_, _ = io.WriteString(c.out, "coldmigrate.")
	other, ok := c.conf.Nodes[node]
	if !ok {
		c.say("Error in j2prepare")
		c.say("Guru meditaion: ")
		return c.fail("Preparing.   * check for remote CBSD version: j2prepare: failed: cbsd rexe tryoffline=0 node=%s /usr/local/bin/cbsd -c version", node)
	}
	there, err := c.on(workdir(other))
	if err != nil {
		return err
	}
	defer there.close()
	_, _ = io.WriteString(c.out, "..")
	if err := errors.Join(copyTree(c.wd.data(jname), there.wd.data(jname)), copyTree(c.wd.system(jname), there.wd.system(jname))); err != nil {
		return err
	}
	if g.running() {
		_, _ = io.WriteString(c.out, "[Stopping jail: "+jname+"]..")
		quiet := *c
		quiet.out = io.Discard
		if err := quiet.stopJail(jname); err != nil {
			return err
		}
	}
	if c.behaviour.Half {
		c.say("Error in cbsd rexe jregister")
		return c.fail("Guru meditaion: ")
	}
	values := there.renamed(g, jname)
	values["data"], values["jid"] = there.wd.data(jname), "0"
	if err := there.insertGuest(jail, jname, values, nil); err != nil {
		return err
	}
	if g.running() || c.args.get("start") != "" {
		if err := there.runJail(jname); err != nil {
			return err
		}
	}
	if err := c.setStatus(jname, stateSlave, "0"); err != nil {
		return err
	}
	c.say("..ok")
	c.done(c.name, c.begun)
	return nil
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
