package cbsdsim

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// clone is bclone and jclone: a copy of a stopped guest, its VNC port and, for
// a VM without ip4_addr=, its address included.
func (c *call) clone(f family) error {
	from, to := c.args.get("old"), c.args.get("new")
	old, err := c.guest(from)
	if err != nil {
		return err
	}
	taken, err := c.guest(to)
	if err != nil {
		return err
	}
	switch {
	case f == bhyve && !old.exists():
		return c.fail("no such bhyve: %s", from)
	case !old.exists():
		return c.fail("No such jail: %s", from)
	case f == bhyve && old.emulator != "bhyve":
		return c.fail("Not in bhyve mode")
	case f == bhyve && old.running() && c.args.get("checkstate") != "0":
		return c.fail("bhyve is online, please stop them: %s (or use checkstate=0)", from)
	case old.running() && c.args.get("checkstate") != "0":
		return c.fail("jail is online, please stop them: %s (or use checkstate=0)", from)
	case f == bhyve && taken.exists():
		return c.fail("Bhyve already exist: %s", to)
	case taken.exists():
		return c.fail("Jail already exist: %s", to)
	case strings.ContainsAny(to, "/\x00"):
		return c.fail("No jail data: %s", c.wd.data(to))
	}
	fmt.Fprint(c.out, map[family]string{bhyve: "Cloning...", jail: "Cloning...."}[f])
	if err := c.copyGuest(old, to); err != nil {
		return fmt.Errorf("cloning %s: %w", from, err)
	}
	c.say("ok")
	c.done(c.name, c.begun)
	return nil
}

func (c *call) copyGuest(old guest, to string) error {
	from := old.jname
	if err := errors.Join(copyTree(c.wd.data(from), c.wd.data(to)), copyTree(c.wd.system(from), c.wd.system(to))); err != nil {
		return err
	}
	values := c.renamed(old, to)
	values["jid"], values["status"], values["protected"] = "0", stateOff, "0"
	if old.emulator == "jail" {
		return c.insertGuest(old.family, to, values, nil)
	}
	vm, err := c.store.first("SELECT * FROM "+old.emulator+" WHERE jname = ?", from)
	if err != nil {
		return err
	}
	if err := c.adoptDB(old.family, to, true); err != nil {
		return err
	}
	return errors.Join(c.insertGuest(old.family, to, values, vm.values), c.copyMedia(from, to))
}

// renamed is the row of a guest in jails under another name, with what the
// arguments say about it.
func (c *call) renamed(old guest, to string) map[string]string {
	values := map[string]string{}
	for k, v := range old.row.values {
		values[k] = strings.ReplaceAll(v, "/"+old.jname+"-data", "/"+to+"-data")
	}
	values["jname"], values["path"] = to, c.wd.root(to)
	values["rcconf"], values["mount_fstab"] = c.wd.rcConf(to, false), c.wd.path("jails-fstab", to, "fstab")
	for _, k := range []string{"host_hostname", "ip4_addr"} {
		if v := c.args.get(k); v != "" {
			values[k] = v
		}
	}
	return values
}

// adoptDB makes a VM's own database, copied from elsewhere, that of jname.
func (c *call) adoptDB(f family, jname string, newAddresses bool) error {
	return with(c.wd.guestDB(jname), func(d *db) error {
		errs := []error{
			d.exec("UPDATE "+f.disks+" SET jname = ?", jname),
			d.exec("UPDATE "+f.nics+" SET jname = ?", jname),
		}
		if ip := c.args.get("ip4_addr"); ip != "" {
			errs = append(errs, d.exec("UPDATE settings SET ip4_addr = ?", ip))
		}
		if newAddresses && c.args.get("mac_reinit") != "0" {
			rows, err := d.query("SELECT id FROM " + f.nics)
			errs = append(errs, err)
			for _, r := range rows {
				errs = append(errs, d.exec("UPDATE "+f.nics+" SET nic_hwaddr = ? WHERE id = ?", newMAC(), r.get("id")))
			}
		}
		if newAddresses && c.conf.ZFS {
			errs = append(errs, d.exec("UPDATE settings SET vm_zfs_guid = ?", newGUID()))
		}
		return errors.Join(errs...)
	})
}

func (c *call) copyMedia(from, to string) error {
	return with(c.wd.mediaDB(), func(d *db) error {
		return d.exec(`INSERT INTO media (name, path, type, jname, size)
			SELECT name, replace(path, '/' || ?1 || '-data', '/' || ?2 || '-data'), type, ?2, size FROM media WHERE jname = ?1`, from, to)
	})
}

// rename is brename and jrename.
func (c *call) rename(f family) error {
	from, to := c.args.get("old"), c.args.get("new")
	old, err := c.guest(from)
	if err != nil {
		return err
	}
	taken, err := c.guest(to)
	if err != nil {
		return err
	}
	restart := old.running() && c.args.get("restart") == "1"
	switch {
	case f == jail && !old.exists():
		return c.fail("No such jail: %s", from)
	case f == bhyve && old.emulator != "bhyve":
		return c.fail("Not bhyve mode")
	case f == jail && old.emulator == "bhyve":
		return c.fail("Jail in bhyve mode. Use cbsd brename instead")
	case taken.exists():
		return c.fail("Jail already exist: %s", to)
	case f == bhyve && old.status != stateOff && !restart:
		return c.fail("VM is online. Please stop them: %s or add restart=1 to auto stop and start VM during rename", from)
	case old.running() && !restart:
		return c.fail("Jail is online. Please stop them: %s or add restart=1 to auto stop and start jail during rename", from)
	case strings.ContainsAny(to, "/\x00"):
		return c.fail("No VM data: %s", c.wd.data(to))
	}
	if restart {
		if err := c.stopAny(old); err != nil {
			return err
		}
	}
	fmt.Fprint(c.out, map[family]string{bhyve: "Rename. ", jail: "Rename."}[f])
	if err := c.moveGuest(old, to); err != nil {
		return fmt.Errorf("renaming %s: %w", from, err)
	}
	c.say("ok")
	if restart {
		if f == jail {
			err = c.sub("jstart").startJail(to)
		} else {
			err = c.sub("bstart").startVM(f, to, c.begun)
		}
		if err != nil && !isExit(err) {
			return err
		}
	}
	c.done(c.name, c.begun)
	return nil
}

func (c *call) stopAny(g guest) error {
	var err error
	if g.emulator == "jail" {
		err = c.sub("jstop").stopJail(g.jname)
	} else {
		err = c.sub(g.letter+"stop").stopVM(g.family, g.jname)
	}
	if isExit(err) {
		return nil
	}
	return err
}

func (c *call) moveGuest(old guest, to string) error {
	from := old.jname
	for _, move := range [][2]string{{c.wd.data(from), c.wd.data(to)}, {c.wd.system(from), c.wd.system(to)}} {
		if err := os.Rename(move[0], move[1]); err != nil {
			return err
		}
	}
	if err := os.Rename(c.wd.path("jails-system", to, "rc.conf_"+from), c.wd.rcConf(to, true)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := os.Rename(c.wd.snapshots(from), c.wd.snapshots(to)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	values := c.renamed(old, to)
	errs := []error{c.store.exec("DELETE FROM jails WHERE jname = ?", from), c.store.insertKnown("jails", values)}
	if old.emulator != "jail" {
		errs = append(errs,
			c.store.exec("UPDATE "+old.emulator+" SET jname = ? WHERE jname = ?", to, from),
			c.adoptDB(old.family, to, false),
			with(c.wd.mediaDB(), func(d *db) error {
				return d.exec("UPDATE media SET jname = ?2, path = replace(path, '/' || ?1 || '-data', '/' || ?2 || '-data') WHERE jname = ?1", from, to)
			}))
	}
	return errors.Join(errs...)
}

// copyTree copies files and directories; holes of disks stay holes.
func copyTree(from, to string) error {
	return filepath.WalkDir(from, func(path string, e os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		target := filepath.Join(to, rel)
		fi, err := e.Info()
		switch {
		case err != nil:
			return err
		case e.IsDir():
			return os.MkdirAll(target, 0o755)
		case !fi.Mode().IsRegular(), strings.HasPrefix(e.Name(), "qemu.pid"), strings.HasPrefix(e.Name(), "vnc_"):
			return nil // of a running guest
		case strings.HasSuffix(e.Name(), ".vhd"):
			return sparse(target, fi.Size()) // nothing ever writes to a simulated disk
		}
		return copyFile(path, target, fi.Mode())
	})
}

func copyFile(from, to string, mode os.FileMode) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, mode.Perm())
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}
