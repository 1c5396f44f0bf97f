package cbsd

import (
	"cmp"
	"context"
	"slices"
	"strconv"

	"github.com/cbsd/cbsdmq"
)

// A BootGuest is a guest with its place in the order of a boot or a shutdown.
type BootGuest struct {
	Name    string
	Group   int    // those of one group do not wait for each other; lower ones start first, and stop last
	Start   string // the command that starts it
	Stop    string
	AStart  bool
	Running bool
	// Stuck: a command of CBSD that the crash of the host cut short has left it
	// in maintenance, where it cannot be started.
	Stuck bool
	// Kept: why it is not to be started: it is a slave, or a person put it into
	// maintenance. "" else.
	Kept string
}

var bootOrder = &query{table: "jails", rest: "ORDER BY jname", columns: []string{
	"jname", "emulator", "status", "maintenance", "b_order", "astart", "jid",
}}

// bootCommands start and stop a guest; jails come up before VMs, as with cbsdd.
var bootCommands = map[string]struct {
	rank        int
	start, stop string
}{
	jail:  {0, "jstart", "jstop"},
	bhyve: {1, "bstart", "bstop"},
	qemu:  {1, "qstart", "qstop"},
}

// stuckReasons are what CBSD calls the maintenance that its own commands need
// while they work.
var stuckReasons = []string{"Stopping_VM", "Fetching_ISO"}

// BootOrder reads the guests that can be started, in the order of their groups.
func (p *Pool) BootOrder(ctx context.Context) ([]BootGuest, error) {
	_, rows, err := p.store.rows(ctx, p.localDB(), bootOrder)
	if err != nil {
		return nil, cbsdmq.Errorf(cbsdmq.CodeUnavailable, "", "reading the inventory: %w", err)
	}
	type key struct{ rank, order int }
	keys := make(map[string]key)
	var guests []BootGuest
	for _, row := range rows {
		commands, known := bootCommands[row[1]]
		if !known {
			continue
		}
		g := BootGuest{Name: row[0], Start: commands.start, Stop: commands.stop, AStart: row[5] == "1"}
		if isVM(row[1]) {
			if own, ok, err := p.store.first(ctx, p.guestDB(g.Name), vmOwn); err == nil && ok {
				g.AStart = own[len(vmColumns)-1] == "1"
			}
		}
		jid, _ := strconv.Atoi(row[6])
		state := GuestState{Emulator: row[1]}
		if err := p.readRunning(ctx, g.Name, jid, &state); err != nil {
			return nil, cbsdmq.Errorf(cbsdmq.CodeUnavailable, "", "does %s run: %w", g.Name, err)
		}
		g.Running = state.Running
		switch {
		case row[2] == statusSlave:
			g.Kept = "it is a slave here"
		case row[2] == statusMaintenance && slices.Contains(stuckReasons, row[3]):
			g.Stuck = !g.Running
		case row[2] == statusMaintenance:
			g.Kept = "it is in maintenance: " + cmp.Or(unset(row[3]), "no reason is given")
		}
		order, _ := strconv.Atoi(row[4])
		keys[g.Name] = key{commands.rank, order}
		guests = append(guests, g)
	}
	slices.SortStableFunc(guests, func(a, b BootGuest) int {
		return cmp.Or(cmp.Compare(keys[a.Name].rank, keys[b.Name].rank), cmp.Compare(keys[a.Name].order, keys[b.Name].order))
	})
	for i := range guests {
		if i > 0 {
			guests[i].Group = guests[i-1].Group
			if keys[guests[i].Name] != keys[guests[i-1].Name] {
				guests[i].Group++
			}
		}
	}
	return guests, nil
}
