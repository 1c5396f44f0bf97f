package cbsd

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/cbsd/cbsdmq"
)

var (
	inventoryColumns = []string{
		"jname", "emulator", "status", "jid", "maintenance", "host_hostname", "ip4_addr", "astart",
	}
	inventory      = &query{table: "jails", rest: "ORDER BY jname", columns: inventoryColumns}
	inventoryOfOne = &query{table: "jails", rest: "WHERE jname = ?", columns: inventoryColumns}

	vmColumns = []string{"vm_cpus", "vm_ram", "vm_os_type", "ip4_addr", "vnc_port", "bhyve_vnc_tcp_bind", "qemu_vnc_tcp_bind", "astart"}
	vmOwn     = &query{table: "settings", rest: "ORDER BY created DESC LIMIT 1", columns: vmColumns}
	// what the pool's database says about a VM is partly stale, and better than nothing
	vmCopies = map[string]*query{
		bhyve: {table: "bhyve", rest: "WHERE jname = ?", columns: vmColumns},
		qemu:  {table: "qemu", rest: "WHERE jname = ?", columns: vmColumns},
	}
)

// Guests reads the inventory, in order of name. A guest that is unregistered
// has nothing but its name, its emulator and its status.
func (p *Pool) Guests(ctx context.Context) ([]cbsdmq.Guest, error) {
	_, rows, err := p.store.rows(ctx, p.localDB(), inventory)
	if err != nil {
		return nil, cbsdmq.Errorf(cbsdmq.CodeUnavailable, "", "reading the inventory: %w", err)
	}
	guests := make([]cbsdmq.Guest, 0, len(rows))
	names := make(map[string]bool, len(rows))
	for _, row := range rows {
		names[row[0]] = true
		guests = append(guests, p.guest(ctx, row))
	}
	for _, g := range p.unregistered() {
		if !names[g.Name] {
			guests = append(guests, g)
		}
	}
	slices.SortFunc(guests, func(a, b cbsdmq.Guest) int { return strings.Compare(a.Name, b.Name) })
	return guests, nil
}

// Guest reads one guest; false where there is none of that name.
func (p *Pool) Guest(ctx context.Context, name string) (cbsdmq.Guest, bool, error) {
	row, ok, err := p.store.first(ctx, p.localDB(), inventoryOfOne, name)
	if err != nil {
		return cbsdmq.Guest{}, false, cbsdmq.Errorf(cbsdmq.CodeUnavailable, "", "reading the inventory: %w", err)
	}
	if ok {
		return p.guest(ctx, row), true, nil
	}
	if guestName.MatchString(name) {
		if g, ok := p.readUnregistered(name); ok {
			return g, true, nil
		}
	}
	return cbsdmq.Guest{}, false, nil
}

// guest makes a Guest of a row of inventoryColumns.
func (p *Pool) guest(ctx context.Context, row []string) cbsdmq.Guest {
	g := cbsdmq.Guest{
		Name: row[0], Emulator: row[1], Hostname: unset(row[5]), IP4: unset(row[6]), AStart: row[7] == "1",
	}
	if isVM(g.Emulator) {
		p.readVM(ctx, &g)
	}
	jid, _ := strconv.Atoi(row[3])
	state := GuestState{Emulator: g.Emulator}
	err := p.readRunning(ctx, g.Name, jid, &state)
	if state.Running {
		g.PID = state.PID
	}
	switch {
	case row[2] == statusMaintenance:
		g.Status = "Maintenance"
		if reason := unset(row[4]); reason != "" {
			g.Status += ":" + reason
		}
	case err != nil:
		g.Status = "Unknown"
	case state.Running:
		g.Status = "On"
	case row[2] == statusSlave:
		g.Status = "Slave"
	default:
		g.Status = "Off"
	}
	return g
}

// readVM reads the settings of a VM.
func (p *Pool) readVM(ctx context.Context, g *cbsdmq.Guest) {
	row, ok, err := p.store.first(ctx, p.guestDB(g.Name), vmOwn)
	if err != nil || !ok {
		if row, ok, err = p.store.first(ctx, p.localDB(), vmCopies[g.Emulator], g.Name); err != nil || !ok {
			return
		}
	}
	g.CPUs, _ = strconv.Atoi(row[0])
	g.RAM, _ = strconv.ParseInt(row[1], 10, 64)
	g.OSType = row[2]
	if ip := unset(row[3]); ip != "" {
		g.IP4 = ip
	}
	bind := row[5]
	if g.Emulator == qemu {
		bind = row[6]
	}
	if port := unset(row[4]); port != "" {
		g.VNC = bind + ":" + port
	}
	g.AStart = row[7] == "1"
}

// unregistered lists the guests that CBSD keeps as text only.
func (p *Pool) unregistered() []cbsdmq.Guest {
	entries, err := os.ReadDir(p.path("jails-rcconf"))
	if err != nil {
		return nil
	}
	var guests []cbsdmq.Guest
	for _, e := range entries {
		name, ok := strings.CutPrefix(e.Name(), "rc.conf_")
		if !ok || !guestName.MatchString(name) {
			continue
		}
		if g, ok := p.readUnregistered(name); ok {
			guests = append(guests, g)
		}
	}
	return guests
}

func (p *Pool) readUnregistered(name string) (cbsdmq.Guest, bool) {
	text, err := os.ReadFile(p.path("jails-rcconf", "rc.conf_"+name))
	if errors.Is(err, fs.ErrNotExist) {
		return cbsdmq.Guest{}, false
	}
	g := cbsdmq.Guest{Name: name, Status: "Unregister", Emulator: jail}
	for line := range strings.Lines(string(text)) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), "emulator="); ok {
			g.Emulator = strings.Trim(v, `";'`)
		}
	}
	return g, true
}

// unset is "" for what CBSD writes where there is no value.
func unset(v string) string {
	if isUnset(v) {
		return ""
	}
	return v
}
