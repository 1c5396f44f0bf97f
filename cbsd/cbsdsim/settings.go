package cbsdsim

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
)

// getVM is bget and qget: the settings named, or all of them if none that is
// named is known.
func (c *call) getVM(f family) error {
	jname := c.args.get("jname")
	g, err := c.guest(jname)
	switch {
	case err != nil:
		return err
	case g.exists() && g.emulator != f.emulator:
		return c.fail("not %s engine, emulator: %s", f.emulator, g.emulator)
	case !g.exists() && strings.Contains(jname, "'"): // goes into a statement as it is
		return c.fail("not %s engine, emulator: ", f.emulator)
	case !g.exists():
		return c.fail("No such %s: %s", f.emulator, jname)
	}
	s, err := c.settings(jname)
	if err != nil {
		return err
	}
	all := append(slices.Clone(s.columns), "gid")
	c.printSettings(all, func(name string) string {
		if name == "gid" {
			return g.row.get(name)
		}
		if v := s.get(name); v != "" {
			return v
		}
		return "0"
	})
	return nil
}

// getJail is jget.
func (c *call) getJail() error {
	jname := c.args.get("jname")
	g, err := c.guest(jname)
	switch {
	case err != nil:
		return err
	case !g.exists():
		return c.fail("No such jail: %s", jname)
	case g.emulator != "jail":
		return c.fail("not jail engine, emulator: %s", g.emulator)
	}
	var all []string
	for _, name := range append(slices.Clone(c.optional()), "nic_address") {
		if name != "jname" && name != "mode" && !slices.Contains(all, name) {
			all = append(all, name)
		}
	}
	c.printSettings(all, func(name string) string {
		switch name {
		case "path":
			return c.jailPath(g.row)
		case "nic_address":
			return "0"
		}
		return g.row.get(name)
	})
	return nil
}

func (c *call) printSettings(all []string, value func(string) string) {
	names := slices.DeleteFunc(slices.Clone(c.args.words), func(w string) bool { return !slices.Contains(all, w) })
	if len(names) == 0 {
		names = all
	}
	for _, name := range names {
		if c.args.get("mode") == "quiet" {
			c.say("%s", value(name))
		} else {
			c.say("%s: %s", name, value(name))
		}
	}
}

// optional are the arguments that the command being carried out may have.
func (c *call) optional() []string {
	cmd, _ := findCommand(c.name)
	return cmd.optional
}

// setVM is bset and qset: it writes what it is given, whatever it is.
func (c *call) setVM(f family) error {
	jname := c.args.get("jname")
	names, err := c.matching(f, jname)
	if err != nil {
		return err
	}
	if len(names) == 0 {
		names = []string{jname}
	}
	for _, n := range names {
		if err := c.setOneVM(f, n); err != nil {
			return err
		}
	}
	return nil
}

func (c *call) setOneVM(f family, jname string) error {
	g, err := c.guest(jname)
	if err != nil {
		return err
	}
	if !g.exists() {
		return c.fail("No such %s: %s", f.emulator, jname)
	}
	names := slices.DeleteFunc(slices.Clone(c.args.keys), func(name string) bool {
		return name == "jname" || name == "jconf" || name == "quiet" || !slices.Contains(c.optional(), name)
	})
	file := c.wd.guestDB(jname)
	if _, err := os.Stat(file); errors.Is(err, fs.ErrNotExist) { // it goes on, and says that all is well
		for _, name := range names {
			c.say("cbsdsql: Can't open database file: %s", file)
			c.chat("%s: changed", name)
		}
		return nil
	}
	return with(file, func(own *db) error {
		for _, name := range names {
			value := strings.ReplaceAll(c.args.get(name), "%", " ")
			if name == "vm_ram" {
				value = ramValue(value)
			}
			if err := c.setVMColumn(f, own, jname, name, value); err != nil {
				return fmt.Errorf("setting %s of %s: %w", name, jname, err)
			}
			c.chat("%s: changed", name)
		}
		return nil
	})
}

// ramValue is vm_ram in bytes: a bare number is megabytes, nonsense stays.
func ramValue(v string) string {
	if n, err := strconv.ParseInt(v, 10, 64); err == nil {
		return strconv.FormatInt(n*mb, 10)
	}
	if n, ok := parseSize(v); ok {
		return strconv.FormatInt(n, 10)
	}
	return v
}

// setVMColumn writes to all places that have the column: the VM's own settings,
// the copy in the inventory, and for some its row in jails.
func (c *call) setVMColumn(f family, own *db, jname, name, value string) error {
	switch name {
	case "vm_pid":
		if value == "auto" {
			g, err := c.guest(jname)
			if err != nil {
				return err
			}
			value = strconv.Itoa(g.pid())
		}
		return c.store.exec("UPDATE jails SET jid = ? WHERE jname = ?", value, jname)
	case "gid":
		return c.store.exec("UPDATE jails SET gid = ? WHERE jname = ?", value, jname)
	case "soundhw_play", "soundhw_rec":
		return own.exec("UPDATE bhyve_soundhw SET "+name+" = ?", value)
	case "nic_ratelimit":
		return own.exec("UPDATE "+f.nics+" SET nic_ratelimit = ? WHERE id = 1", value)
	case "dsk_iops_limit", "dsk_mbps_limit":
		return own.exec("UPDATE "+f.disks+" SET "+name+" = ? WHERE dsk_path = 'dsk1.vhd'", value)
	}
	targets := []struct {
		db           *db
		table, where string
	}{{own, "settings", ""}, {c.store, f.emulator, jname}}
	if name == "ip4_addr" {
		targets = append(targets, struct {
			db           *db
			table, where string
		}{c.store, "jails", jname})
	}
	var errs []error
	for _, t := range targets {
		ok, err := t.db.hasColumn(t.table, name)
		if !ok || err != nil {
			errs = append(errs, err)
			continue
		}
		if t.where == "" {
			errs = append(errs, t.db.exec("UPDATE "+t.table+" SET "+name+" = ?", value))
		} else {
			errs = append(errs, t.db.exec("UPDATE "+t.table+" SET "+name+" = ? WHERE jname = ?", value, t.where))
		}
	}
	return errors.Join(errs...)
}

// setJail is jset; it is silent about what stays the same.
func (c *call) setJail() error {
	jname := c.args.get("jname")
	names, err := c.matching(jail, jname)
	if err != nil {
		return err
	}
	if len(names) == 0 {
		names = []string{jname}
	}
	for _, n := range names {
		g, err := c.guest(n)
		if err != nil {
			return err
		}
		if !g.exists() {
			return c.fail("No such jail: %s", n)
		}
		if err := c.setOneJail(g); err != nil {
			return fmt.Errorf("setting %s: %w", n, err)
		}
	}
	return nil
}

func (c *call) setOneJail(g guest) error {
	restart := c.args.get("autorestart") == "1"
	changed := false
	for _, name := range c.args.keys {
		if name == "jname" || !slices.Contains(c.optional(), name) {
			continue
		}
		ok, err := c.store.hasColumn("jails", name)
		if err != nil {
			return err
		}
		value := c.args.get(name)
		if !ok || g.row.get(name) == value {
			continue
		}
		if g.running() && !restart && !changedWhileRunning(name) {
			c.say("%s: on-the-fly currently unimplemented", name)
			continue
		}
		if err := c.store.exec("UPDATE jails SET "+name+" = ? WHERE jname = ?", value, g.jname); err != nil {
			return err
		}
		changed = true
		c.say("%s: %s", name, value)
	}
	if changed && restart && g.running() {
		return c.sub("jrestart", "jname="+g.jname).restartJails()
	}
	return nil
}

// changedWhileRunning are the settings of a jail that apply at once.
func changedWhileRunning(name string) bool {
	return slices.Contains([]string{
		"allow_mount", "allow_raw_sockets", "allow_read_msgbuf", "allow_vmm", "allow_mlock", "allow_nfsd", "allow_nullfs",
		"allow_fusefs", "allow_linprocfs", "allow_linsysfs", "allow_tmpfs", "allow_procfs", "allow_fdescfs",
		"applytpl", "astart", "boot_delay", "cpuset", "devfs_ruleset", "exec_consolelog", "floatresolv", "hidden", "host_hostname",
		"ip4_addr", "mount_fdescfs", "mount_kernel", "mount_linprocfs", "mount_linsysfs", "mount_ports", "mount_procfs", "mount_src", "protected",
	}, name)
}
