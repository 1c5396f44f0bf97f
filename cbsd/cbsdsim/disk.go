package cbsdsim

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// disk is bhyve-dsk.
func (c *call) disk() error {
	jname, mode := c.args.get("jname"), c.args.get("mode")
	if jname != "" {
		g, err := c.guest(jname)
		switch {
		case err != nil:
			return err
		case !g.exists():
			return c.fail("bhyve-dsk: no such domain here: %s", jname)
		case g.emulator != "bhyve":
			return c.fail("bhyve-dsk: not in bhyve mode: %s", jname)
		}
	}
	switch mode {
	case "list":
		return c.listDisks()
	case "attach", "detach", "delete", "remove", "modify", "get", "get_next_free_dsk":
	default:
		return c.fail("Unknown mode: %s", mode)
	}
	if jname == "" {
		return c.fail("jname= is mandatory")
	}
	return with(c.wd.guestDB(jname), func(d *db) error {
		switch mode {
		case "attach":
			return c.attachDisk(d, jname)
		case "detach":
			return c.detachDisk(d, jname)
		case "modify":
			return c.modifyDisk(d, jname)
		case "get":
			return c.getDisk(d)
		case "get_next_free_dsk":
			name, err := nextFreeDisk(d)
			fmt.Fprint(c.out, name)
			return err
		}
		return c.deleteDisk(d, jname)
	})
}

func nextFreeDisk(d *db) (string, error) {
	rows, err := d.query("SELECT dsk_path FROM bhyvedsk")
	if err != nil {
		return "", err
	}
	for i := 1; ; i++ {
		name := "dsk" + strconv.Itoa(i) + ".vhd"
		if !slices.ContainsFunc(rows, func(r row) bool { return r.get("dsk_path") == name }) {
			return name, nil
		}
	}
}

func (c *call) attachDisk(d *db, jname string) error {
	a := &c.args
	file := a.get("dsk_path")
	if file == "" {
		var err error
		if file, err = nextFreeDisk(d); err != nil {
			return err
		}
	}
	name := strings.TrimSuffix(file, ".vhd")
	switch controller := a.get("dsk_controller"); controller {
	case "":
		return c.fail("bhyve-dsk error: dsk_controller= is mandatory")
	case "virtio-blk", "ahci-hd":
	default:
		return c.fail("bhyve-dsk error: bhyve-dsk: unknown dsk_controller %s, valid: virtio-blk ahci-hd ", controller)
	}
	if a.get("dsk_size") == "" {
		return c.fail("bhyve-dsk error: dsk_size= is mandatory")
	}
	size, ok := parseSize(a.get("dsk_size"))
	if !ok || name != filepath.Base(name) {
		return c.fail("%s attach failed", name)
	}
	path := c.wd.path("jails-data", jname+"-data", name+".vhd")
	if err := sparse(path, size); err != nil {
		return fmt.Errorf("making disk: %w", err)
	}
	// the size stays 0 until somebody lists it
	values := [][2]string{
		{"jname", jname}, {"dsk_controller", a.get("dsk_controller")}, {"dsk_path", name + ".vhd"}, {"dsk_type", "vhd"},
		{"dsk_sectorsize", a.or("dsk_sectorsize", "512/4096")}, {"dsk_serial", a.or("dsk_serial", "0")},
	}
	if c.conf.ZFS {
		values = append(values, [2]string{"dsk_zfs_guid", newGUID()})
	}
	if err := d.insert("bhyvedsk", values); err != nil {
		return err
	}
	if err := c.registerMedium("hdd-"+name+".vhd", path, "hdd", jname, size); err != nil {
		return err
	}
	c.say("%s attached", name)
	return nil
}

// findDisk checks the arguments that name a disk, and that it is one. complain
// about a missing medium is all that delete does.
func (c *call) findDisk(d *db, jname string, complain bool) (name, path string, err error) {
	a := &c.args
	controller := a.get("dsk_controller")
	switch controller {
	case "":
		return "", "", c.fail("bhyve-dsk error: dsk_controller= is mandatory")
	case "virtio-blk", "ahci-hd":
	default:
		return "", "", c.fail("bhyve-dsk error: bhyve-dsk: unknown dsk_controller %s, valid: virtio-blk, ahci-hd", controller)
	}
	if a.get("dsk_path") == "" {
		return "", "", c.fail("bhyve-dsk error: dsk_path= is mandatory")
	}
	name = strings.TrimSuffix(a.get("dsk_path"), ".vhd")
	err = with(c.wd.mediaDB(), func(m *db) error {
		r, err := m.first("SELECT path FROM media WHERE jname = ? AND type = 'hdd' AND name = ?", jname, "hdd-"+name+".vhd")
		path = r.get("path")
		return err
	})
	if err != nil {
		return "", "", err
	}
	if path == "" {
		c.say(`Unable to find in media DB: SELECT path FROM media WHERE jname="%s" AND type="hdd" AND name="hdd-%s.vhd"`, jname, name)
		if !complain {
			return "", "", exitCode(1)
		}
	}
	r, err := d.first("SELECT dsk_path FROM bhyvedsk WHERE dsk_controller = ? AND dsk_path = ?", controller, name+".vhd")
	if err != nil {
		return "", "", err
	}
	if r.get("dsk_path") == "" {
		return "", "", c.fail(`Unable to find in bhyvedsk: SELECT dsk_path FROM bhyvedsk WHERE dsk_controller="%s" AND dsk_path="%s.vhd" AND dsk_type="vhd"`, controller, name)
	}
	return name, path, nil
}

func (c *call) detachDisk(d *db, jname string) error {
	name, path, err := c.findDisk(d, jname, false)
	if err != nil {
		return err
	}
	c.say("UPDATE media SET jname='-' WHERE jname='%s' AND name='hdd-%s.vhd' AND path='%s'", jname, name, path)
	c.say("Detach to: %s", jname)
	err = errors.Join(
		with(c.wd.mediaDB(), func(m *db) error {
			return m.exec("UPDATE media SET jname = '-' WHERE jname = ? AND path = ?", jname, path)
		}),
		d.exec("DELETE FROM bhyvedsk WHERE dsk_path = ?", name+".vhd"),
	)
	if err != nil {
		return err
	}
	c.say("%s dettached (but not removed!)", name)
	return nil
}

func (c *call) deleteDisk(d *db, jname string) error {
	name, path, err := c.findDisk(d, jname, true)
	if err != nil {
		return err
	}
	err = errors.Join(
		with(c.wd.mediaDB(), func(m *db) error {
			return m.exec("DELETE FROM media WHERE jname = ? AND path = ?", jname, path)
		}),
		d.exec("DELETE FROM bhyvedsk WHERE dsk_path = ?", name+".vhd"),
		os.Remove(c.wd.path("jails-data", jname+"-data", name+".vhd")),
	)
	if err != nil {
		return err
	}
	c.say("Deleted")
	return nil
}

func (c *call) modifyDisk(d *db, jname string) error {
	a := &c.args
	file := strings.TrimSuffix(a.get("dsk_path"), ".vhd") + ".vhd"
	where := " WHERE dsk_controller = ? AND dsk_path = ?"
	done := false
	for _, name := range []string{"bootable", "dsk_sectorsize", "dsk_zfs_guid", "dsk_serial", "dsk_size"} {
		value := a.get(name)
		if value == "" {
			continue
		}
		done = true
		if (name == "dsk_zfs_guid" || name == "dsk_size") && !c.conf.ZFS {
			return c.fail("zfsfeat disabled")
		}
		for _, needed := range []string{"dsk_controller", "dsk_path"} {
			if a.get(needed) == "" {
				return c.fail("bhyve-dsk error: %s= is mandatory", needed)
			}
		}
		switch name {
		case "bootable":
			value = map[bool]string{true: "1", false: "0"}[slices.Contains([]string{"1", "yes", "true"}, strings.ToLower(value))]
			if value == "1" { // there is one
				if err := d.exec("UPDATE bhyvedsk SET bootable = 0"); err != nil {
					return err
				}
			}
			c.say("Update bootable flag for %s:%s:%s -> %t", jname, a.get("dsk_controller"), strings.TrimSuffix(file, ".vhd"), value == "1")
		case "dsk_zfs_guid":
			value = newGUID()
		case "dsk_size":
			size, err := c.growDisk(jname, file, value)
			if err != nil {
				return err
			}
			value = strconv.FormatInt(size, 10)
		}
		if err := d.exec("UPDATE bhyvedsk SET "+name+" = ?"+where, value, a.get("dsk_controller"), file); err != nil {
			return err
		}
		if name != "bootable" {
			c.say("%s: changed", name)
		}
	}
	if !done {
		c.say("available properties: bootable dsk_sectorsize dsk_zfs_guid dsk_serial dsk_size")
	}
	return nil
}

// growDisk makes a disk larger: by +SIZE, or to SIZE.
func (c *call) growDisk(jname, file, size string) (int64, error) {
	path := c.wd.path("jails-data", jname+"-data", filepath.Base(file))
	fi, err := os.Stat(path)
	if err != nil {
		return 0, c.fail("%s: unable to get current dsk_size values for: dsk_controller=%s AND dsk_path=%s", c.name, c.args.get("dsk_controller"), file)
	}
	n, ok := parseSize(strings.TrimPrefix(size, "+"))
	if !ok {
		return 0, c.fail("%s: unable convert values to bytes: %s", c.name, size)
	}
	if add, more := strings.CutPrefix(size, "+"); more {
		if _, err := strconv.ParseInt(add, 10, 64); err == nil {
			n = 0 // of a bare number the real one loses the value
		}
		n += fi.Size()
	}
	if n < fi.Size() {
		c.say("%s: disk reduction is not yet supported", c.name)
		return 0, c.fail("new dsk_size must be larger than the old values ( >%d bytes )", fi.Size())
	}
	return n, sparse(path, n)
}

// getDisk prints columns of the disks that match the other arguments.
func (c *call) getDisk(d *db) error {
	columns, err := d.query("SELECT name FROM pragma_table_info('bhyvedsk')")
	if err != nil {
		return err
	}
	var all []string
	for _, r := range columns {
		all = append(all, r.get("name"))
	}
	if len(c.args.words) == 0 {
		c.say("Empty value for get. Use: cbsd bhyve-dsk mode=get <filter> XXX, where XXX from:")
		return c.fail("   %s", strings.Join(all, " "))
	}
	file := strings.TrimSuffix(c.args.get("dsk_path"), ".vhd") + ".vhd"
	rows, err := d.query("SELECT * FROM bhyvedsk WHERE dsk_path = ?1 AND (dsk_serial = ?2 OR ?2 = '') AND (bootable = ?3 OR ?3 = '')",
		file, c.args.get("dsk_serial"), c.args.get("bootable"))
	if err != nil {
		return err
	}
	for _, w := range c.args.words {
		if !slices.Contains(all, w) {
			return nil // the statement of the real one fails, the command does not
		}
	}
	for _, r := range rows {
		var values []string
		for _, w := range c.args.words {
			values = append(values, r.get(w))
		}
		c.say("%s", strings.Join(values, "|"))
	}
	return nil
}

// listDisks is bhyve-dsk-list and bhyve-dsk mode=list; it fills in unknown sizes.
func (c *call) listDisks() error {
	return c.listParts("jname,dsk_controller,dsk_path,dsk_size,dsk_sectorsize,bootable", func(g guest, d *db) ([]row, error) {
		rows, err := d.query("SELECT * FROM bhyvedsk")
		for _, r := range rows {
			if r.get("dsk_size") != "0" {
				continue
			}
			fi, err := os.Stat(c.wd.path("jails-data", g.jname+"-data", r.get("dsk_path")))
			if err != nil {
				continue
			}
			r.values["dsk_size"] = strconv.FormatInt(fi.Size(), 10)
			if err := d.exec("UPDATE bhyvedsk SET dsk_size = ? WHERE dsk_path = ?", fi.Size(), r.get("dsk_path")); err != nil {
				return nil, err
			}
		}
		for _, r := range rows {
			if n, err := strconv.ParseInt(r.get("dsk_size"), 10, 64); err == nil {
				r.values["dsk_size"] = humanSize(n)
			}
		}
		return rows, err
	})
}

// listNICs is bhyve-nic-list.
func (c *call) listNICs() error {
	return c.listParts("jname,nic_driver,nic_parent,nic_hwaddr,nic_address,nic_mtu,nic_persistent,nic_ratelimit",
		func(_ guest, d *db) ([]row, error) { return d.query("SELECT * FROM bhyvenic") })
}

// nic is bhyve-nic, which changes nothing and, by a slip of the real one, lists disks.
func (c *call) nic() error {
	return c.listParts("jname,dsk_controller,dsk_path,dsk_size",
		func(_ guest, d *db) ([]row, error) { return d.query("SELECT * FROM bhyvedsk") })
}

func (c *call) listParts(display string, read func(guest, *db) ([]row, error)) error {
	columns := strings.Split(c.args.or("display", display), ",")
	guests, err := c.guestsOf(bhyve, "")
	if err != nil {
		return err
	}
	lines := header(columns, c.args.get("header"))
	for _, g := range guests {
		if only := c.args.get("jname"); only != "" && only != g.jname {
			continue
		}
		err := with(c.wd.guestDB(g.jname), func(d *db) error {
			rows, err := read(g, d)
			for _, r := range rows {
				lines = append(lines, cells(columns, func(col string) string { return orDash(r.get(col)) }))
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	c.table(lines)
	return nil
}
