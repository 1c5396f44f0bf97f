package cbsdsim

import (
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// startVMs is bstart and qstart. Several names start one after the other, the
// last first; a pattern is no name here, as it is none in the real ones.
func (c *call) startVMs(f family) error {
	if c.args.empty() {
		return c.pick("List of offline VMs", f, "", map[family]string{bhyve: "No vm specified", qemu: "no qemu specified"}[f])
	}
	names := c.args.words
	if n := c.args.get("jname"); n != "" {
		names = []string{n}
	}
	known, err := c.existing(f, names)
	if err != nil {
		return err
	}
	if len(known) <= 1 {
		jname := c.args.raw[0]
		if len(known) == 1 {
			jname = known[0]
		} else if f == qemu && len(names) > 0 {
			jname = names[0]
		}
		return c.startVM(f, jname, c.begun)
	}
	slices.Reverse(known)
	for _, jname := range known {
		if err := c.startVM(f, jname, time.Now()); err != nil && !isExit(err) {
			return err
		}
	}
	c.done(c.name, c.begun)
	c.say("Multiple %s: done", c.name)
	return nil
}

func isExit(err error) bool {
	var code exitCode
	return errors.As(err, &code)
}

func (c *call) startVM(f family, jname string, begun time.Time) error {
	g, err := c.guest(jname)
	if err != nil {
		return err
	}
	switch {
	case f == bhyve && g.emulator != f.emulator:
		return c.fail("No such bhyve domain: %s", jname)
	case !g.exists():
		return c.fail("No such domain: %s", jname)
	case g.emulator != f.emulator:
		return c.fail("Not %s mode", f.emulator)
	case g.running():
		return c.fail("Jail %s already running, jid: %d", jname, g.jid)
	case g.status == stateSlave:
		who := map[family]string{bhyve: "Jail", qemu: "Domain"}[f]
		return c.fail("%s in slave mode. Please cbsd jswmode mode=master first", who)
	case g.status == stateMaintenance:
		// the statement that the real one prints instead of the reason
		who := map[family]string{bhyve: "Bhyve", qemu: "Xen"}[f]
		c.say(`%s in maintenance: cbsdsqlro local SELECT maintenance FROM jails WHERE jname="%s"`, who, jname)
		return c.fail("Please finish maintenance and switch mode via: jswmode jname=%s mode=master comment='0'", jname)
	}
	if n, err := strconv.Atoi(c.args.get("delay")); err == nil && n > 0 {
		time.Sleep(time.Duration(n) * time.Second)
	}
	s, err := c.settings(jname)
	if err != nil {
		return err
	}
	if err := c.bootMedium(s, g); err != nil {
		return err
	}
	if err := c.launch(g, s); err != nil {
		return err
	}
	if f == bhyve && !c.quiet() {
		if c.behaviour.Die {
			c.say("bstart done in 11 seconds")
		} else {
			c.done("bstart", begun)
		}
	}
	return nil
}

func (c *call) quiet() bool { return c.args.get("quiet") == "1" }

func (c *call) chat(format string, args ...any) {
	if !c.quiet() {
		c.say(format, args...)
	}
}

// bootMedium has the VM start from its CD, or makes its disk from a cloud image;
// either is downloaded first if it is missing.
func (c *call) bootMedium(s row, g guest) error {
	p, ok := findProfile(s.get("vm_os_type"), s.get("vm_os_profile"))
	if !ok {
		return c.fail("No such profile: vm-%s-%s.conf", s.get("vm_os_type"), s.get("vm_os_profile"))
	}
	disk := c.wd.path("jails-data", g.jname+"-data", "dsk1.vhd")
	_, err := os.Stat(disk)
	switch {
	case err == nil && p.cloud():
		return nil
	case !p.cloud():
		c.say("Looks like %s is empty.", disk)
		c.say("Temporary boot device: cd")
	}
	c.chat("vm_iso_path: %s", p.medium)
	if p.missing(c.wd) {
		c.say("No such media: %s in %s", p.iso(c.wd), c.wd.path("src", "iso"))
		if err := c.download(p); err != nil {
			return err
		}
	}
	c.chat("media found: %s --> %s", p.medium, p.iso(c.wd))
	if !p.cloud() {
		return nil
	}
	c.chat("cloud init image initialization..")
	c.chat("Clone cloud image into first/system vm disk (dd method)")
	imgsize, _ := parseSize(readRC(c.wd.rcConf(g.jname, true))["imgsize"])
	if err := sparse(disk, max(imgsize, p.isoSize)); err != nil {
		return fmt.Errorf("making disk: %w", err)
	}
	c.say("Eject cloud source: media mode=detach name=%s path=%s type=iso jname=%s", p.medium, p.iso(c.wd), g.jname)
	return c.addMedia(g.jname, profile{}, max(imgsize, p.isoSize))
}

// launch starts the process of a VM and records it.
func (c *call) launch(g guest, s row) error {
	vnc, port, busy, err := c.vncListener(g, s)
	if err != nil {
		return err
	}
	if vnc != nil {
		defer vnc.Close()
		address := s.get(g.bind) + ":" + strconv.Itoa(port)
		if err := c.recordVNC(g, s, port); err != nil {
			return err
		}
		if g.emulator == "qemu" || s.get("vm_efi") != "none" {
			server := map[string]string{"qemu": "VNC", "bhyve": "VRDP"}[g.emulator]
			if g.emulator == "qemu" {
				c.chat("machine_accel auto: KVM found!")
			}
			c.chat("%s is enabled. VNC bind/port: %s", server, address)
			c.chat("For attach VM console, use: vncviewer %s", address)
			c.chat("Resolution: %s.", s.get(g.emulator+"_vnc_resolution"))
			c.chat("VNC pass: %s", s.get("vnc_password"))
		}
	}
	argv := []string{"bhyve: " + g.jname}
	if g.emulator == "qemu" {
		argv = c.qemuCommand(g, s, port)
		c.chat("[debug]: %s", strings.Join(argv, " "))
		c.chat("Boot device: ")
	} else {
		c.chat("bhyve renice: 1")
	}
	pid := 0
	if !busy && !c.behaviour.Die {
		if pid, err = c.spawnGuest(g, argv, vnc); err != nil {
			return fmt.Errorf("starting %s: %w", g.jname, err)
		}
	}
	switch {
	case c.quiet():
		c.say("")
	case pid == 0:
		c.say("Waiting for PID..........")
	default:
		c.say("Waiting for PID.")
	}
	c.chat("PID: %d", pid)
	if pid == 0 && g.emulator == "bhyve" {
		c.chat("Please use for debug: /usr/local/cbsd/share/bhyverun.sh -c %s", c.wd.path("jails-system", g.jname, "bhyve.conf"))
	}
	if g.emulator == "bhyve" && s.get("vm_efi") == "none" {
		c.chat("Use cbsd blogin %s for attach to console", g.jname)
	}
	return errors.Join(
		c.store.exec("UPDATE jails SET jid = ?, state_time = strftime('%s','now') WHERE jname = ?", pid, g.jname),
		with(c.wd.guestDB(g.jname), func(d *db) error {
			return d.exec("UPDATE settings SET state_time = strftime('%s','now')")
		}),
	)
}

// vncListener opens the VM's VNC port on 127.0.0.1, whatever address it is to
// be bound to: port 0 is the first free one from 5900, 1 is none. busy means
// that a port which is demanded is taken, of which bhyve and QEMU die.
func (c *call) vncListener(g guest, s row) (l net.Listener, port int, busy bool, err error) {
	wanted, err := strconv.Atoi(s.get("vm_vnc_port"))
	if err != nil {
		return nil, 0, true, nil
	}
	switch wanted {
	case 1:
		return nil, 0, false, nil
	case 0:
		taken, err := c.portsOfOthers(g)
		if err != nil {
			return nil, 0, false, err
		}
		for port = 5900; port <= 6900; port++ {
			if taken[strconv.Itoa(port)] {
				continue
			}
			if l, err := net.Listen("tcp4", "127.0.0.1:"+strconv.Itoa(port)); err == nil {
				return l, port, false, nil
			}
		}
		return nil, 0, false, c.fail("no free available port in 5900-6900 range for %s", s.get(g.bind))
	}
	l, err = net.Listen("tcp4", "127.0.0.1:"+strconv.Itoa(wanted))
	return l, wanted, err != nil, nil
}

// portsOfOthers are the ports that the other bhyve VMs had last.
func (c *call) portsOfOthers(g guest) (map[string]bool, error) {
	taken := map[string]bool{}
	others, err := c.guestsOf(bhyve, "")
	if err != nil {
		return nil, err
	}
	for _, o := range others {
		if o.jname == g.jname {
			continue
		}
		if data, err := os.ReadFile(c.wd.path("jails-system", o.jname, "vnc_port")); err == nil {
			taken[strings.TrimSpace(string(data))] = true
		}
	}
	return taken, nil
}

func (c *call) recordVNC(g guest, s row, port int) error {
	return errors.Join(
		with(c.wd.guestDB(g.jname), func(d *db) error { return d.exec("UPDATE settings SET vnc_port = ?", port) }),
		os.WriteFile(c.wd.path("jails-system", g.jname, "vnc_port"), []byte(strconv.Itoa(port)+"\n"), 0o644),
		os.WriteFile(c.wd.path("jails-system", g.jname, "vnc_bind"), []byte(s.get(g.bind)+"\n"), 0o644),
	)
}

// qemuCommand is the command line of the real QEMU; the simulated one bears it.
func (c *call) qemuCommand(g guest, s row, port int) []string {
	sys := func(name string) string { return c.wd.path("jails-system", g.jname, name) }
	ram, _ := strconv.ParseInt(s.get("vm_ram"), 10, 64)
	p, _ := findProfile(s.get("vm_os_type"), s.get("vm_os_profile"))
	return strings.Split(fmt.Sprintf("/bin/qemu-system-x86_64 -machine type=%s,accel=kvm  -smp cpus=%s -m %d"+
		" -drive if=pflash,format=raw,unit=0,readonly=on,file=/usr/share/ovmf/OVMF.fd"+
		" -drive if=pflash,format=raw,unit=1,file=%s  -bios seabios  -drive file=%s,media=cdrom,readonly=on,format=raw -boot d "+
		" -drive format=raw,file=%s,index=4,if=none,id=disk0 -device virtio-blk-pci,drive=disk0 "+
		" -device virtio-net-pci,netdev=net0,addr=0x5,host_mtu=1500,mac=%s -netdev tap,id=net0,ifname=tap1,script=no,downscript=no"+
		" -vnc %s:%d  -vga std -name %s -pidfile %s -monitor unix:%s,server,nowait",
		s.get("machine"), s.get("vm_cpus"), ram/mb, sys("BHYVE_UEFI_VARS.fd"), p.iso(c.wd),
		c.wd.path("jails-data", g.jname+"-data", "dsk1.vhd"), c.macOf(g), s.get(g.bind), port-5900,
		g.jname, c.wd.qemuPID(g.jname), sys("qemu-monitor.sock")), " ")
}

func (c *call) macOf(g guest) string {
	var mac string
	_ = with(c.wd.guestDB(g.jname), func(d *db) error { // of no consequence if it cannot be read
		r, err := d.first("SELECT nic_hwaddr FROM " + g.nics + " LIMIT 1")
		mac = r.get("nic_hwaddr")
		return err
	})
	return mac
}

// restartVMs is brestart.
func (c *call) restartVMs() error {
	if c.args.empty() {
		return c.pick("List of online jail", bhyve, "On", "")
	}
	names := c.args.words
	if n := c.args.get("jname"); n != "" {
		names = []string{n}
	}
	var last error
	for _, jname := range names {
		g, err := c.guest(jname)
		if err != nil {
			return err
		}
		if !g.exists() {
			c.say("No such jail: %s", jname)
			continue
		}
		if err := c.sub("bstop", "jname="+jname).stopVM(bhyve, jname); err != nil && !isExit(err) {
			return err
		}
		if last = c.sub("bstart").startVM(bhyve, jname, time.Now()); last != nil && !isExit(last) {
			return last
		}
	}
	return last
}

// pauseVM is bpause: it stops the process and lets it go on. Nothing but the
// state of the process shows it.
func (c *call) pauseVM() error {
	jname := c.args.get("jname")
	g, err := c.guest(jname)
	switch {
	case err != nil:
		return err
	case !g.exists():
		return c.fail("No such vm: %s", jname)
	case g.emulator != "bhyve":
		return c.fail("Not in bhyve emulator: %s{NORMAL}", g.emulator) // the real one's slip
	case g.pid() == 0:
		return c.fail("Unable to determine pid for: %s", jname)
	}
	signal := syscall.SIGSTOP
	switch c.args.or("mode", "auto") {
	case "on":
	case "off":
		signal = syscall.SIGCONT
	case "auto":
		if processStopped(g.pid()) {
			c.say("bhyve domain is sleeping, triggering to continue")
			signal = syscall.SIGCONT
		} else {
			c.say("bhyve domain is active, triggering to sleep")
		}
	default:
		return exitCode(2)
	}
	if err := syscall.Kill(g.pid(), signal); err != nil {
		return exitCode(1)
	}
	// a process with threads takes a moment to stop
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if processStopped(g.pid()) == (signal == syscall.SIGSTOP) {
			break
		}
	}
	return nil
}
