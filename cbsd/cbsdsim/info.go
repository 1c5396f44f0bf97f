package cbsdsim

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"
)

func (c *call) version() error {
	c.say("%s", Version)
	return nil
}

// help lists the commands; with a word it is that command's --help.
func (c *call) help() error {
	if len(c.args.words) > 0 {
		name := c.args.words[0]
		cmd, ok := findCommand(name)
		if !ok {
			fmt.Fprintf(c.errw, "/usr/local/cbsd/tools/help: %s: not found\n", name)
			return nil
		}
		c.describe(cmd, "--help")
		return nil
	}
	fmt.Fprintf(c.errw, "CBSD version:                  %s\n", Version)
	fmt.Fprintf(c.errw, "CBSD documentation:            https://bsdstore.ru/en/docs.html\n")
	fmt.Fprintf(c.errw, "CBSD Telegram user group chat: https://t.me/cbsdofficial\n\nAvailable commands:\n")
	module := c.args.get("module")
	if module == "" {
		fmt.Fprintf(c.errw, "\\n Hint: use 'cbsd help module=<module>' to filter list.\n")
	}
	fmt.Fprintln(c.errw)
	for _, name := range Commands() {
		cmd, ok := findCommand(name)
		if !ok || module != "" && !strings.Contains(","+cmd.module+",", ","+module+",") {
			continue
		}
		if c.args.get("nodesc") == "1" {
			c.say("%s", name)
		} else {
			c.say("%-21s  --  [%s] %s", name, cmd.module, cmd.desc)
		}
	}
	return nil
}

// freeName is freejname.
func (c *call) freeName() error {
	for i := 1; i <= 10000; i++ {
		name := c.args.or("default_jailname", "jail") + strconv.Itoa(i)
		g, err := c.guest(name)
		if err != nil {
			return err
		}
		if _, err := os.Stat(c.wd.rcConf(name, false)); !g.exists() && errors.Is(err, os.ErrNotExist) {
			c.say("%s", name)
			return nil
		}
	}
	return exitCode(1)
}

// node is node mode=list, of a cluster without other nodes.
func (c *call) node() error {
	if mode := c.args.get("mode"); mode != "list" {
		return c.fail("Unknown mode: %s", mode)
	}
	display := strings.Split(c.args.or("display", "nodename,ip,port,keyfile,status,idle"), ",")
	var rows []row
	err := with(c.wd.path("var", "db", "nodes.sqlite"), func(d *db) (err error) {
		rows, err = d.query("SELECT * FROM nodelist")
		return err
	})
	if err != nil {
		return err
	}
	lines := header(display, c.args.get("header"))
	for _, r := range rows {
		lines = append(lines, cells(display, func(col string) string { return orDash(r.get(col)) }))
	}
	c.table(lines)
	return nil
}

func (c *call) summary() error {
	count := map[string]int{}
	rows, err := c.store.query("SELECT emulator, count(*) AS n FROM jails GROUP BY emulator")
	if err != nil {
		return err
	}
	for _, r := range rows {
		n, err := strconv.Atoi(r.get("n"))
		if err != nil {
			return err
		}
		count[r.get("emulator")] = n
	}
	platform := map[string]string{"freebsd": "FreeBSD", "linux": "Linux"}[runtime.GOOS]
	title := func(s string) { c.say("  %s  \n  ====================================  \n", s) }
	line := func(name, value string) { c.say("  %-26s %-15s ", name+":", value) }
	title("Summary statistics for the CBSD farm")
	c.say("  %-26s %s", "CBSD version:", Version)
	line("current platform", platform)
	c.say("  %-26s %s  ", "total nodes:", "1")
	line("total jail environments", strconv.Itoa(count["jail"]+count["qemu"])) // the real one's idea of a jail
	line("total virtual machines", strconv.Itoa(count["bhyve"]))
	line("total CPU core's", strconv.Itoa(runtime.NumCPU()))
	line("total RAM", "24g")
	line("total free RAM", "23g")
	line("total storage, Gb", "unknown")
	c.say("")
	title("General node info")
	for _, f := range [][2]string{
		{"bhyve", "bhyve_quickstart"}, {"jail", "jail_platform"}, {"qemu", "qemu_quickstart"},
		{"nvmm", "nvmm_platform"}, {"vmm", "vmm_platform"}, {"xen", "xen_platform"},
	} {
		state := "unavailable"
		if f[0] == "bhyve" || f[0] == "qemu" || f[0] == "jail" && platform == "FreeBSD" {
			state = "available"
		}
		c.say("  %-15s: %-16s ( %-53s )", f[0], state, "https://www.bsdstore.ru/en/cbsd_"+f[1]+".html")
	}
	c.say("")
	return nil
}

// A server is a guest as cluster prints it, its VNC password included.
type server struct {
	ID          string `json:"id"`
	Type        string `json:"type"`
	Emulator    string `json:"emulator"`
	PowerOn     bool   `json:"is_power_on"`
	Created     string `json:"created"`
	CPUs        int64  `json:"cpus"`
	RAM         string `json:"ram"`
	RAMBytes    int64  `json:"ram_bytes"`
	RAMHuman    string `json:"ram_human"`
	ImgBytes    int64  `json:"imgsize_bytes"`
	Imgsize     string `json:"imgsize"`
	OSType      string `json:"vm_os_type"`
	OSProfile   string `json:"vm_os_profile"`
	Image       string `json:"image"`
	SSHHost     string `json:"ssh_host"`
	VNCPort     int64  `json:"vnc_port"`
	VNCPassword string `json:"vnc_password"`
	VNCHost     string `json:"vnc_host"`
	SSHPort     int    `json:"ssh_port"`
	SSH         string `json:"ssh_string"`
	SSH4        string `json:"ssh4_string"`
	SSH6        string `json:"ssh6_string"`
}

// cluster prints VMs as JSON; jails are counted. The totals are constants in the real one too.
func (c *call) cluster() error {
	rows, err := c.store.query("SELECT * FROM jails ORDER BY emulator, rowid")
	if err != nil {
		return err
	}
	servers, total := []server{}, 0
	for _, r := range rows {
		if only := c.args.get("emulator"); only != "" && only != r.get("emulator") {
			continue
		}
		total++
		if r.get("emulator") == "jail" {
			continue
		}
		s, err := c.server(c.observe(r))
		if err != nil {
			return err
		}
		servers = append(servers, s)
	}
	out := struct {
		Servers  any `json:"servers"`
		Clusters any `json:"clusters"`
	}{servers, struct {
		Total    int    `json:"total_environment"`
		CPUs     int    `json:"total_cpus"`
		RAMBytes int64  `json:"total_ram_bytes"`
		RAM      string `json:"total_ram"`
		ImgBytes int64  `json:"total_imgsize_bytes"`
		Imgsize  string `json:"total_imgsize"`
	}{total, 6, 3 * gb, "3 Gb", 30 * gb, "30 Gb"}}
	if total == 0 {
		out.Servers = struct{}{}
	}
	data, err := json.MarshalIndent(out, "", "  ")
	if err != nil {
		return err
	}
	c.say("%s", data)
	return nil
}

func (c *call) server(g guest) (server, error) {
	s, err := c.settings(g.jname)
	if err != nil {
		return server{}, err
	}
	number := func(name string) int64 {
		n, err := strconv.ParseInt(s.get(name), 10, 64)
		if err != nil {
			return 0 // the real one prints 0 for what it cannot read
		}
		return n
	}
	ip, ram := s.get("ip4_addr"), number("vm_ram")
	if n, ok := parseSize(readRC(c.wd.rcConf(g.jname, true))["vm_ram"]); ok {
		ram = n // as created, whatever was set since
	}
	v := server{
		ID: g.jname, Type: "vm", Emulator: g.emulator, PowerOn: g.running(),
		Created: time.Unix(number("created"), 0).Format("2006-01-02T15:04:05"),
		CPUs:    number("vm_cpus"), RAM: humanSize(ram), RAMBytes: ram, RAMHuman: humanSize(ram),
		OSType: s.get("vm_os_type"), OSProfile: s.get("vm_os_profile"),
		SSHHost: ip, VNCPassword: s.get("vnc_password"), VNCHost: s.get(g.bind),
		SSHPort: 22, SSH: "ssh @" + ip + " -p22", SSH4: "ssh @" + ip + " -p22", SSH6: "ssh @ -p22",
	}
	if fi, err := os.Stat(c.wd.path("jails-data", g.jname+"-data", "dsk1.vhd")); err == nil {
		v.ImgBytes = fi.Size()
	}
	v.Imgsize = humanSize(v.ImgBytes)
	if g.running() {
		v.VNCPort = number("vnc_port")
	}
	return v, nil
}

// getProfiles is get-profiles, over the profiles that the simulator has.
func (c *call) getProfiles() error {
	src := c.args.get("src")
	if src != "cloud" && src != "iso" && src != "jail" {
		return c.fail("get-profiles: unknown filter: %s, valid: 'cloud', 'iso', 'jail'", src)
	}
	var items []string
	lines := [][]string{{"VM_PROFILE", "VM_OS_TYPE", "NAME"}}
	for _, p := range profiles() {
		if src == "jail" || p.cloud() != (src == "cloud") {
			continue
		}
		if only := c.args.get("vm_os_type"); only != "" && only != p.os {
			continue
		}
		lines = append(lines, []string{p.name, p.os, p.title})
		items = append(items, fmt.Sprintf(`{"name": %q, "profile": %q, "type": %q, "default_jname": %q, "imgsize": %q, "imgsize_bytes": %d, `+
			`"imgsize_min": %q, "imgsize_min_bytes": %d, "vm_cpus_max": %d, "vm_ram_max": "24g", "vm_ram_max_bytes": %d, "imgsize_max": "252g", "imgsize_max_bytes": %d }`,
			p.title, p.name, p.os, p.os, humanSize(p.imgsize), p.imgsize, humanSize(p.imgsizeMin), p.imgsizeMin,
			runtime.NumCPU(), int64(24*gb), int64(252*gb)))
	}
	if c.args.get("json") == "1" {
		c.say("[ %s\n]", strings.Join(items, ", \n "))
		return nil
	}
	c.table(lines)
	return nil
}
