package cbsdsim

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// A family is one kind of guest: its emulator, and the letter of its commands.
type family struct {
	emulator, letter string
	disks, nics      string // tables of a guest's own database
	bind             string // the setting with the address of the VNC server
}

var (
	jail  = family{emulator: "jail", letter: "j"}
	bhyve = family{emulator: "bhyve", letter: "b", disks: "bhyvedsk", nics: "bhyvenic", bind: "bhyve_vnc_tcp_bind"}
	qemu  = family{emulator: "qemu", letter: "q", disks: "qemudsk", nics: "qemunic", bind: "qemu_vnc_tcp_bind"}
)

func (f family) schema() string {
	if f == bhyve {
		return bhyveSchema
	}
	return qemuSchema
}

func familyOf(emulator string) family {
	switch emulator {
	case "bhyve":
		return bhyve
	case "qemu":
		return qemu
	}
	return jail
}

// States of jails.status. Off and on are found out, not stored.
const (
	stateOff         = "0"
	stateOn          = "1"
	stateSlave       = "2"
	stateMaintenance = "3"
)

// A guest is a row of the table jails with what is found out about it: jid and
// status are as things are now, not as they are stored.
type guest struct {
	family
	jname  string
	row    row
	jid    int // of the jail, or the process; 0 if it does not run
	status string
}

func (g guest) exists() bool  { return g.jname != "" }
func (g guest) running() bool { return g.jid != 0 }

// guest reads one guest of any family; it may not exist.
func (c *call) guest(jname string) (guest, error) {
	r, err := c.store.first("SELECT * FROM jails WHERE jname = ?", jname)
	if err != nil || r.columns == nil {
		return guest{}, err
	}
	return c.observe(r), nil
}

func (c *call) guestsOf(f family, order string) ([]guest, error) {
	direction := "ASC"
	if strings.EqualFold(order, "desc") {
		direction = "DESC"
	}
	rows, err := c.store.query("SELECT * FROM jails WHERE emulator = ? ORDER BY jname "+direction, f.emulator)
	if err != nil {
		return nil, err
	}
	guests := make([]guest, len(rows))
	for i, r := range rows {
		guests[i] = c.observe(r)
	}
	return guests, nil
}

func (c *call) observe(r row) guest {
	g := guest{family: familyOf(r.get("emulator")), jname: r.get("jname"), row: r, status: r.get("status")}
	switch g.emulator {
	case "bhyve":
		if _, err := os.Stat(c.wd.vmm(g.jname)); err == nil {
			g.jid, _ = strconv.Atoi(r.get("jid"))
			g.jid = max(g.jid, 1) // as the real one does for a guest without a known pid
			if g.status != stateMaintenance {
				g.status = stateOn
			}
		}
	case "qemu":
		if pid := readPID(c.wd.qemuPID(g.jname)); processAlive(pid) {
			g.jid, g.status = pid, stateOn
		}
	default:
		if g.jid = readPID(c.wd.jail(g.jname)); g.jid != 0 && g.status != stateMaintenance {
			g.status = stateOn
		}
	}
	return g
}

// pid is the process of a running VM, 0 if it is not known.
func (g guest) pid() int {
	if g.jid == 1 {
		return 0
	}
	return g.jid
}

// matching is the list of guests of a family that a name with * stands for, nil
// for a name without. As in CBSD the match is LIKE: _ is any letter, case is none.
func (c *call) matching(f family, jname string) ([]string, error) {
	if !strings.Contains(jname, "*") {
		return nil, nil
	}
	rows, err := c.store.query("SELECT jname FROM jails WHERE emulator = ? AND jname LIKE ? ORDER BY rowid",
		f.emulator, strings.ReplaceAll(jname, "*", "%"))
	if err != nil {
		return nil, err
	}
	var names []string
	for _, r := range rows {
		names = append(names, r.get("jname"))
	}
	return names, nil
}

// existing is the part of names that are guests of a family.
func (c *call) existing(f family, names []string) ([]string, error) {
	var known []string
	for _, n := range names {
		g, err := c.guest(n)
		if err != nil {
			return nil, err
		}
		if g.exists() && g.emulator == f.emulator {
			known = append(known, n)
		}
	}
	return known, nil
}

// settings is the row of a VM's own database that counts.
func (c *call) settings(jname string) (row, error) {
	var r row
	err := with(c.wd.guestDB(jname), func(d *db) (err error) {
		r, err = d.first("SELECT * FROM settings ORDER BY created DESC LIMIT 1")
		return err
	})
	if err != nil {
		return row{}, fmt.Errorf("reading settings of %s: %w", jname, err)
	}
	return r, nil
}

func (c *call) setStatus(jname, status, reason string) error {
	return c.store.exec("UPDATE jails SET status = ?, maintenance = ? WHERE jname = ?", status, reason, jname)
}

func readPID(file string) int {
	data, err := os.ReadFile(file)
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil {
		return 0
	}
	return pid
}

func processAlive(pid int) bool {
	if pid <= 0 || errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
		return false
	}
	// dead but not waited for is dead; where /proc does not tell, it lives
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return true
	}
	_, rest, _ := strings.Cut(string(stat[max(0, bytes.LastIndexByte(stat, ')')):]), " ")
	return !strings.HasPrefix(rest, "Z")
}
