package cbsd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/cbsd/cbsdmq/internal/proc"
)

// Values of jails.status. On and off are found out, not stored.
const (
	statusSlave       = "2"
	statusMaintenance = "3"
)

// A GuestState is one guest at one moment.
type GuestState struct {
	Exists       bool       `json:"exists,omitempty"`       // it has a row in the table jails
	Emulator     string     `json:"emulator,omitempty"`     // jail, bhyve, qemu, ...
	Status       string     `json:"status,omitempty"`       // jails.status: 2 slave, 3 maintenance
	Running      bool       `json:"running,omitempty"`      // there is a live process, or a jail
	PID          int        `json:"pid,omitempty"`          // of the hypervisor, or the jid; 0 if it is not known
	Started      proc.Start `json:"started,omitempty"`      // of the hypervisor
	Paused       bool       `json:"paused,omitempty"`       // its process is stopped; read only for Pause
	Protected    bool       `json:"protected,omitempty"`    // CBSD does not remove it
	Unregistered bool       `json:"unregistered,omitempty"` // its description lies in jails-rcconf
	Data         string     `json:"data,omitempty"`         // directory of its disks

	Snapshots []string `json:"snapshots,omitempty"` // that CBSD made, the oldest first; read only for Snapshots

	Settings map[string]string            `json:"settings,omitempty"` // those that the command names
	Disks    map[string]map[string]string `json:"disks,omitempty"`    // by path, with the columns that the command names; read only for Disk, Clone, Import and Export
}

var (
	jailsByName = &query{table: "jails", rest: "WHERE jname = ?", columns: []string{
		"emulator", "status", "jid", "protected", "data",
	}}
	jailByName  = &query{table: "jails", rest: "WHERE jname = ?"}
	jailNames   = &query{table: "jails", rest: "ORDER BY jname", columns: []string{"jname", "emulator"}}
	allSettings = &query{table: "settings", rest: "ORDER BY created DESC LIMIT 1"}
	isProtected = &query{table: "settings", rest: "ORDER BY created DESC LIMIT 1", columns: []string{"protected"}}
	bhyveDisks  = &query{table: "bhyvedsk"}
	qemuDisks   = &query{table: "qemudsk"}
)

func (p *Pool) localDB() string { return p.path("var", "db", "local.sqlite") }

func (p *Pool) guestDB(name string) string { return p.path("jails-system", name, "local.sqlite") }

// state reads one guest; of its details what verb needs, and the settings of
// the given names.
func (p *Pool) state(ctx context.Context, name string, verb Verb, settings []string) (GuestState, error) {
	var g GuestState
	row, ok, err := p.store.first(ctx, p.localDB(), jailsByName, name)
	if err != nil {
		return g, err
	}
	if !ok {
		g.Unregistered = guestName.MatchString(name) && exists(p.path("jails-rcconf", "rc.conf_"+name))
		return g, nil
	}
	g = GuestState{Exists: true, Emulator: row[0], Status: row[1], Protected: row[3] == "1", Data: row[4]}
	jid, _ := strconv.Atoi(row[2])
	if err := p.readRunning(ctx, name, jid, &g); err != nil {
		return g, err
	}
	switch verb {
	case Pause:
		g.Paused = g.Running && isStopped(ctx, g.PID)
	case Remove:
		if isVM(g.Emulator) && !g.Protected {
			row, ok, err := p.store.first(ctx, p.guestDB(name), isProtected)
			g.Protected = err == nil && ok && row[0] == "1"
		}
	case Set:
		return g, p.readSettings(ctx, name, settings, &g)
	case Disk, Clone, Import, Export:
		return g, p.readDisks(ctx, name, settings, &g)
	case Snapshots:
		g.Snapshots, err = p.snapshots(ctx, name)
		return g, err
	}
	return g, nil
}

func isVM(emulator string) bool { return emulator == bhyve || emulator == qemu }

// readSettings reads what the settings of the guest say: for a VM in its own
// database, for a jail, and for what a VM does not keep itself, in jails.
func (p *Pool) readSettings(ctx context.Context, name string, names []string, g *GuestState) error {
	g.Settings = make(map[string]string, len(names))
	jails, err := p.store.record(ctx, p.localDB(), jailByName, name)
	if err != nil {
		return err
	}
	var own map[string]string
	if isVM(g.Emulator) {
		own, err = p.store.record(ctx, p.guestDB(name), allSettings)
		if err != nil {
			return err
		}
	}
	for _, n := range names {
		if v, ok := own[n]; ok {
			g.Settings[n] = v
		} else if v, ok := jails[n]; ok {
			g.Settings[n] = v
		}
	}
	return nil
}

func (p *Pool) readDisks(ctx context.Context, name string, names []string, g *GuestState) error {
	q := bhyveDisks
	switch g.Emulator {
	case bhyve:
	case qemu:
		q = qemuDisks
	default:
		return nil
	}
	columns, rows, err := p.store.rows(ctx, p.guestDB(name), q)
	if err != nil {
		return err
	}
	g.Disks = make(map[string]map[string]string, len(rows))
	for _, row := range rows {
		disk := make(map[string]string)
		path := ""
		for i, c := range columns {
			if c == "dsk_path" {
				path = row[i]
			}
			for _, n := range names {
				if n == c {
					disk[c] = row[i]
				}
			}
		}
		g.Disks[path] = disk
	}
	return nil
}

// readRunning finds out whether the guest runs. It is in no database: a bhyve
// guest has a device /dev/vmm/NAME, a QEMU guest a process, a jail is known to
// the kernel. A simulated pool has directories in place of the devices and the
// kernel, see cbsdsim.VMMDir.
func (p *Pool) readRunning(ctx context.Context, name string, jid int, g *GuestState) error {
	switch g.Emulator {
	case bhyve:
		if !exists(filepath.Join(p.vmmDir(), name)) {
			return nil
		}
		g.PID, g.Started, g.Running = p.bhyveProcess(name, jid)
	case qemu:
		g.PID, g.Started, g.Running = p.qemuProcess(name)
	case xen, virtualbox:
		return fmt.Errorf("whether a guest of %s runs is not known here", g.Emulator)
	default:
		jails, err := p.jails(ctx)
		if err != nil {
			return err
		}
		g.PID, g.Running = jails[name]
	}
	return nil
}

// vmmDir is where the devices of bhyve guests are.
func (p *Pool) vmmDir() string {
	if dir := p.path("var", "run", "vmm"); exists(dir) {
		return dir
	}
	return "/dev/vmm"
}

// bhyveProcess finds the process of a bhyve guest whose device is there. Its
// pid is jails.jid, but for some seconds after a reboot of the guest, when the
// process has another one and the title "bhyve: NAME" as ever.
func (p *Pool) bhyveProcess(name string, jid int) (int, proc.Start, bool) {
	if jid > 1 {
		if start, ok := live(jid); ok {
			return jid, start, true
		}
	}
	list, err := p.scan.list(0)
	if err != nil {
		return 0, 0, jid > 0
	}
	for _, pr := range list {
		if !pr.Zombie && len(pr.Args) > 0 && strings.TrimSpace(pr.Args[0]) == "bhyve: "+name && !p.elsewhere(pr.PID) {
			return pr.PID, pr.Start, true
		}
	}
	return 0, 0, false
}

// qemuProcess finds the process of a QEMU guest by its pid file. The pid may
// have gone to another process, so the command line must name the file too.
func (p *Pool) qemuProcess(name string) (int, proc.Start, bool) {
	file := p.path("jails-system", name, "qemu.pid")
	text, err := os.ReadFile(file)
	if err != nil {
		return 0, 0, false
	}
	pid, _ := strconv.Atoi(strings.TrimSpace(string(text)))
	start, ok := live(pid)
	if !ok {
		return 0, 0, false
	}
	file = "/" + name + "/qemu.pid"
	for _, age := range []time.Duration{scanCache, 0} {
		list, err := p.scan.list(age)
		if err != nil {
			return pid, start, true
		}
		for _, pr := range list {
			if pr.PID == pid && pr.Start == start {
				return pid, start, strings.Contains(strings.Join(pr.Args, " "), file)
			}
		}
	}
	return 0, 0, false
}

// live returns the start of a process that lives.
func live(pid int) (proc.Start, bool) {
	if pid <= 0 {
		return 0, false
	}
	start, err := proc.StartTime(pid)
	if err != nil {
		return 0, false
	}
	ok, err := proc.Alive(pid, start)
	return start, ok || err != nil
}

// jails lists the running jails with their jid.
func (p *Pool) jails(ctx context.Context) (map[string]int, error) {
	dir := p.path("var", "run", "jails")
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return kernelJails(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("listing jails: %w", err)
	}
	m := make(map[string]int, len(entries))
	for _, e := range entries {
		text, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			continue // stopped in the meantime
		}
		if jid, err := strconv.Atoi(strings.TrimSpace(string(text))); err == nil {
			m[e.Name()] = jid
		}
	}
	return m, nil
}
