package cbsdsim

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// snapshots has an empty file per snapshot of a guest, in place of ZFS.
func (w workdir) snapshots(jname string) string { return w.path(ZFSDir, jname) }

// snapshot is bsnapshot and jsnapshot. Without zfs in the configuration it is
// not implemented, as on UFS.
func (c *call) snapshot() error {
	mode, jname := c.args.get("mode"), c.args.get("jname")
	switch mode {
	case "list":
		return c.listSnapshots(jname)
	case "create", "destroy", "destroyall", "destroyall_original", "rollback":
	default:
		return c.fail("Unknown mode: %s", mode)
	}
	if jname == "" {
		return c.fail("Please set jname=")
	}
	g, err := c.guest(jname)
	if err != nil {
		return err
	}
	if !g.exists() {
		return c.fail("No such jail: %s", jname)
	}
	if !c.conf.ZFS {
		return c.fail("jsnapshot: ufs not implemented")
	}
	snapname := c.args.get("snapname")
	if snapname == "gettimeofday" && mode == "create" {
		snapname = time.Now().Format("20060102150405")
	}
	if snapname != filepath.Base(snapname) && snapname != "" {
		return c.fail("zfs snapshot error: invalid character in name")
	}
	if g.emulator == "qemu" && (mode == "create" || mode == "rollback") { // its volume is not looked for
		return c.fail("zfs snapshot error: missing snapshot argument")
	}
	switch mode {
	case "create":
		return c.createSnapshot(jname, snapname)
	case "rollback":
		return c.rollback(jname, snapname)
	case "destroyall_original":
		if g.emulator != "bhyve" {
			c.say("jsnapshot: destroyed 0 snapshots in 0 seconds")
		}
		return nil
	}
	if mode == "destroy" && snapname == "" {
		return c.fail("Please set snapname= or use mode=destroyall to destroy all snapshots for this jail")
	}
	return c.destroySnapshots(jname, snapname, mode == "destroyall")
}

func (c *call) listSnapshots(jname string) error {
	if !c.conf.ZFS { // through column(1), like any list, and so with status 0
		c.table([][]string{strings.Fields("jsnapshot: ufs not implemented")})
		return nil
	}
	display := strings.Split(c.args.or("display", "jname,snapname,creation,refer"), ",")
	lines := header(display, c.args.get("header"))
	guests, err := filepath.Glob(c.wd.snapshots("*"))
	if err != nil {
		return err
	}
	for _, dir := range guests {
		owner := filepath.Base(dir)
		if jname != "" && jname != owner {
			continue
		}
		entries, err := os.ReadDir(dir)
		if err != nil {
			return err
		}
		for _, e := range entries {
			fi, err := e.Info()
			if err != nil {
				return err
			}
			values := map[string]string{
				"jname": owner, "snapname": e.Name(), "creation": fi.ModTime().Format("2006-01-02__15:04"), "refer": "24K",
			}
			lines = append(lines, cells(display, func(col string) string { return values[col] }))
		}
	}
	c.table(lines)
	return nil
}

func (c *call) createSnapshot(jname, snapname string) error {
	if snapname == "" {
		return c.fail("Empty snapname=")
	}
	dir := c.wd.snapshots(jname)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(filepath.Join(dir, snapname), os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, os.ErrExist) {
		return c.fail("zfs snapshot error: cannot create snapshot 'zroot/ROOT/%s@%s': dataset already exists", jname, snapname)
	}
	if err != nil {
		return err
	}
	entries, err := os.ReadDir(dir)
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	c.say("jsnapshot: created snapshot #%d for %s in %d seconds", len(entries), jname, int(time.Since(c.begun).Seconds()))
	return nil
}

func (c *call) rollback(jname, snapname string) error {
	if snapname == "" {
		return c.fail("empty snapname=")
	}
	fi, err := os.Stat(filepath.Join(c.wd.snapshots(jname), snapname))
	if err != nil {
		return c.fail("no such snapshot %s for %s", snapname, jname)
	}
	entries, err := os.ReadDir(c.wd.snapshots(jname))
	if err != nil {
		return err
	}
	for _, e := range entries { // -r: what is newer goes
		if newer, err := e.Info(); err == nil && newer.ModTime().After(fi.ModTime()) {
			if err := os.Remove(filepath.Join(c.wd.snapshots(jname), e.Name())); err != nil {
				return err
			}
		}
	}
	c.say("Restored state to %s snapshot created in %s", snapname, fi.ModTime().Format("Mon Jan _2 15:04 2006"))
	return nil
}

func (c *call) destroySnapshots(jname, snapname string, all bool) error {
	entries, err := os.ReadDir(c.wd.snapshots(jname))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	n := 0
	for _, e := range entries {
		if !all && e.Name() != snapname {
			continue
		}
		if err := os.Remove(filepath.Join(c.wd.snapshots(jname), e.Name())); err != nil {
			return fmt.Errorf("destroying snapshot: %w", err)
		}
		n++
		c.say("zfs snapshot for %s destroyed: %s", jname, e.Name())
	}
	c.say("jsnapshot: destroyed %d snapshots in %d seconds", n, int(time.Since(c.begun).Seconds()))
	return nil
}
