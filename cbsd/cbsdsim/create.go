package cbsdsim

import (
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
)

// createVM is bcreate and qcreate.
func (c *call) createVM(f family) error {
	if err := c.readJconf(); err != nil {
		return err
	}
	a := &c.args
	jname := a.get("jname")
	if jname == "" {
		return c.fail("%s: please set: jname=", c.name)
	}
	g, err := c.guest(jname)
	if err != nil {
		return err
	}
	p, known := findProfile(a.get("vm_os_type"), a.get("vm_os_profile"))
	switch {
	case g.exists():
		return c.fail("VM already exist: %s", jname)
	case a.get("vm_os_profile") == "":
		return c.fail("No such vm_os_profile=")
	case a.get("vm_os_type") == "":
		return c.fail("No such vm_os_type=")
	case !known:
		return c.fail("%s error: no such profile: vm-%s-%s.conf", c.name, a.get("vm_os_type"), a.get("vm_os_profile"))
	}
	ram, imgsize, err := c.checkSizes(f, p)
	if err != nil {
		return err
	}
	if strings.ContainsAny(jname, "/\x00") {
		return c.fail("create_fs failed") // never outside of the workdir
	}
	if err := c.makeVM(f, p, jname, ram, imgsize); err != nil {
		return err
	}
	if f == qemu || c.getenv("NOINTER") == "" {
		c.say("")
		c.manual(f, jname, "destroy")
	} else {
		c.say("")
	}
	if p.cloud() {
		fmt.Fprintf(c.errw, "auto-generate cloud-init settings: %s\n", c.wd.path("jails-system", jname, "cloud-init"))
	}
	if a.get("runasap") == "1" {
		return c.sub(f.letter+"start", "jname="+jname).startVMs(f)
	}
	return nil
}

// manual is what a create command says about the other commands.
func (c *call) manual(f family, jname, remove string) {
	for _, line := range [][2]string{
		{"edit VM properties", f.letter + "config jname="}, {"start VM", f.letter + "start "},
		{"stop VM", f.letter + "stop "}, {"remove VM", f.letter + remove + " "},
	} {
		c.say("To %s use: cbsd %s%s", line[0], line[1], jname)
	}
	c.say("For attach VM console use: cbsd %slogin %s", f.letter, jname)
	c.say("")
	c.say("Creating %s complete: Enjoy!", jname)
}

// readJconf takes the lines of the file jconf as arguments where none are given.
func (c *call) readJconf() error {
	file := c.args.get("jconf")
	if file == "" {
		return nil
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return c.fail("no such jconf file")
	}
	vars := readShellVariables(string(data))
	for _, name := range slices.Sorted(maps.Keys(vars)) {
		if c.args.get(name) == "" {
			c.args.set(name, vars[name])
		}
	}
	return nil
}

// checkSizes refuses too little memory, and for QEMU too small a disk; bcreate
// only complains about the latter.
func (c *call) checkSizes(f family, p profile) (ram, imgsize int64, err error) {
	imgsize = p.imgsize
	if n, ok := parseSize(c.args.get("imgsize")); ok {
		imgsize = n
	}
	if least := c.wd.limit(f.emulator, "imgsize_min", p.imgsizeMin); imgsize < least {
		c.say("imgsize too small: %d ( %dmb ) < %d ( %dmb )", imgsize, imgsize/mb, least, least/mb)
		if f == qemu {
			return 0, 0, exitCode(1)
		}
	}
	ram = 512 * mb
	if n, ok := parseSize(c.args.get("vm_ram")); ok {
		ram = n
	}
	if least := c.wd.limit(f.emulator, "vm_ram_min", p.vmRAMMin); ram < least {
		return 0, 0, c.fail("vm_ram too small: %d ( %dmb ) < %d ( %dmb )", ram, ram/mb, least, least/mb)
	}
	return ram, imgsize, nil
}

func (c *call) makeVM(f family, p profile, jname string, ram, imgsize int64) error {
	if err := errors.Join(os.MkdirAll(c.wd.system(jname), 0o755), os.MkdirAll(c.wd.data(jname), 0o755)); err != nil {
		return fmt.Errorf("making directories: %w", err)
	}
	settings := c.vmSettings(f, p, ram)
	if err := c.writeGuestDB(f, jname, settings, imgsize); err != nil {
		return err
	}
	if !p.cloud() { // the disk of a cloud profile is made from its image at the first start
		if err := sparse(c.wd.path("jails-data", jname+"-data", "dsk1.vhd"), imgsize); err != nil {
			return fmt.Errorf("making disk: %w", err)
		}
		if err := c.addMedia(jname, p, imgsize); err != nil {
			return err
		}
	}
	jailRow := c.jailRow(f, jname, settings["ip4_addr"])
	kept := maps.Clone(settings)
	for _, k := range c.args.keys { // every argument is kept, known or not
		kept[k] = c.args.get(k)
	}
	kept["jname"], kept["emulator"] = jname, f.emulator
	if err := writeShellVariables(c.wd.rcConf(jname, true), kept); err != nil {
		return err
	}
	return c.insertGuest(f, jname, jailRow, settings)
}

// vmSettings are the columns of settings that a create command fills.
func (c *call) vmSettings(f family, p profile, ram int64) map[string]string {
	a := &c.args
	s := map[string]string{
		"astart": "1", "vm_cpus": "1", "vm_os_type": p.os, "vm_os_profile": p.name, "vm_iso_path": p.medium,
		"cd_vnc_wait": "1", "vnc_password": "cbsd", "ip4_addr": "DHCP", "vm_cpu_topology": "default",
	}
	if f == bhyve {
		maps.Copy(s, map[string]string{
			"virtio_type": "virtio-blk", "vm_efi": p.efi, "double_acpi": "1", "virtio_rnd": "0",
			"hdd_boot_firmware": "bhyve", "media_auto_eject": "1", "uuid": newUUID(),
		})
	} else {
		s["arch"] = "native"
	}
	for k, v := range a.values {
		if v != "" && k != "jname" {
			s[k] = v
		}
	}
	s["vm_ram"] = strconv.FormatInt(ram, 10)
	if ip := a.get("ci_ip4_addr"); ip != "" {
		s["ip4_addr"], _, _ = strings.Cut(ip, "/")
	}
	if c.conf.ZFS {
		s["vm_zfs_guid"] = newGUID()
	}
	return s
}

func (c *call) writeGuestDB(f family, jname string, settings map[string]string, imgsize int64) error {
	d, err := createDB(c.wd.guestDB(jname), f.schema())
	if err != nil {
		return err
	}
	disk := [][2]string{
		{"jname", jname}, {"dsk_controller", "virtio-blk"}, {"dsk_path", "dsk1.vhd"}, {"dsk_type", "vhd"},
		{"dsk_size", strconv.FormatInt(imgsize, 10)}, {"dsk_sectorsize", "512/4096"}, {"bootable", "true"},
	}
	if c.conf.ZFS {
		disk = append(disk, [2]string{"dsk_zfs_guid", newGUID()})
	}
	err = errors.Join(d.insertKnown("settings", settings), d.insert(f.disks, disk))
	for i, key := range []string{"interface", "interface2"} {
		parent := c.args.get(key)
		if parent == "" && i == 0 {
			parent = "auto"
		}
		if parent != "" {
			err = errors.Join(err, d.insert(f.nics, [][2]string{
				{"jname", jname}, {"nic_order", strconv.Itoa(i)}, {"nic_driver", c.args.or("nic_driver", "vtnet")},
				{"nic_parent", parent}, {"nic_hwaddr", newMAC()},
			}))
		}
	}
	if f == bhyve {
		err = errors.Join(err, d.exec("INSERT INTO bhyve_soundhw DEFAULT VALUES"))
	}
	return errors.Join(err, d.close())
}

// jailRow is what the table jails has about a guest of any family.
func (c *call) jailRow(f family, jname, ip string) map[string]string {
	r := map[string]string{
		"jname": jname, "emulator": f.emulator, "path": c.wd.root(jname), "data": c.wd.data(jname),
		"host_hostname": jname + ".my.domain", "ip4_addr": ip, "astart": "1", "interface": "auto",
		"rcconf": c.wd.rcConf(jname, false), "mount_fstab": c.wd.path("jails-fstab", jname, "fstab"),
		"arch": "native", "ver": "native", "b_order": "10", "applytpl": "1", "floatresolv": "1", "mkhostsfile": "1",
		"allow_devfs": "1", "allow_mount": "1", "allow_nullfs": "1", "allow_fdescfs": "1", "allow_tmpfs": "1",
		"allow_sysvipc": "0", "allow_zfs": "0", "devfs_ruleset": "4", "mount_devfs": "1", "mount_ports": "1",
		"exec_start": "/bin/sh /etc/rc", "exec_stop": "/bin/sh /etc/rc.shutdown", "exec_timeout": "180", "stop_timeout": "900",
	}
	for k, v := range c.args.values {
		if v != "" && k != "jname" && k != "emulator" && k != "ip4_addr" {
			r[k] = v
		}
	}
	return r
}

// insertGuest puts a guest into the inventory, its VM table included.
func (c *call) insertGuest(f family, jname string, jailRow, settings map[string]string) error {
	err := c.store.insertKnown("jails", jailRow)
	if f != jail && err == nil {
		s := maps.Clone(settings)
		s["jname"] = jname
		err = c.store.insertKnown(f.emulator, s)
	}
	if err != nil {
		return fmt.Errorf("registering %s: %w", jname, err)
	}
	return nil
}

// insertKnown inserts those values that the table has columns for.
func (d *db) insertKnown(table string, values map[string]string) error {
	columns, err := d.query("SELECT name FROM pragma_table_info(?)", table)
	if err != nil {
		return err
	}
	var kv [][2]string
	for _, r := range columns {
		if v, ok := values[r.get("name")]; ok {
			kv = append(kv, [2]string{r.get("name"), v})
		}
	}
	return d.insert(table, kv)
}

func writeShellVariables(file string, vars map[string]string) error {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(vars)) {
		fmt.Fprintf(&b, "%s=\"%s\"\n", name, vars[name])
	}
	if err := os.WriteFile(file, []byte(b.String()), 0o600); err != nil {
		return fmt.Errorf("writing description: %w", err)
	}
	return nil
}

func newUUID() string {
	var b [16]byte
	rand.Read(b[:])
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

func newMAC() string {
	var b [3]byte
	rand.Read(b[:])
	return fmt.Sprintf("00:a0:98:%02x:%02x:%02x", b[0], b[1], b[2])
}

func newGUID() string {
	var b [8]byte
	rand.Read(b[:])
	n := uint64(1) << 63
	for _, x := range b[1:] {
		n = n<<8 | uint64(x)
	}
	return strconv.FormatUint(n|1<<62, 10)
}
