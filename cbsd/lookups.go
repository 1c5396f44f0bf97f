package cbsd

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/cbsd/cbsdmq"
)

// askWait bounds the questions to cbsd about one job.
const askWait = 5 * time.Second

var (
	vmColumnsAsked = []string{"vm_zfs_guid", "vnc_port", "bhyve_vnc_tcp_bind", "qemu_vnc_tcp_bind"}

	qemuFacts  = &query{table: "settings", rest: "LIMIT 1", columns: vmColumnsAsked}
	bhyveFacts = &query{table: "settings", rest: "LIMIT 1", columns: vmColumnsAsked,
		extra: "(SELECT dsk_zfs_guid FROM bhyvedsk WHERE dsk_path = 'dsk1.vhd')"}
)

// Lookups returns the three fields of a reply that describe the guest: its zfs
// guid, that of its first disk and, after a start, the address of its VNC
// server. They are what these commands print, newline included:
//
//	cbsd bget jname=J mode=quiet vm_zfs_guid
//	cbsd bhyve-dsk mode=get jname=J dsk_path=dsk1 dsk_zfs_guid
//	cbsd bget jname=J mode=quiet vnc
//
// The guids are "0" for a job without a guest and where the command would
// print nothing, the address "". The values are read from CBSD's files; the
// commands are run only where those cannot be read. now is the state as far as
// it was read since the command ended.
func (p *Pool) Lookups(ctx context.Context, plan Plan, job cbsdmq.Job, now Snapshot) (guid, disk, vnc string) {
	guid, disk = "0", "0"
	name := plan.Guest
	if _, ok := job.Arg("jname"); name == "" || !ok && len(plan.Lanes) != 1 {
		return guid, disk, ""
	}
	started := plan.Class == Change && (plan.Verb == Start || plan.Verb == Restart)
	family := lookupFamily(plan, job)
	g, known := now.Guests[name]
	if known && !g.Running {
		started = false // what its files say about VNC is of the last start
	}
	if !known {
		row, ok, err := p.store.first(ctx, p.localDB(), jailsByName, name)
		if known = err == nil; ok {
			g.Exists, g.Emulator = true, row[0]
		}
	}
	if known {
		if !isVM(g.Emulator) {
			return guid, disk, "" // it has none of them
		}
		var err error
		if guid, disk, vnc, err = p.readLookups(ctx, name, g.Emulator); err == nil {
			if !started {
				vnc = ""
			}
			return guid, disk, vnc
		}
	}
	return p.askLookups(ctx, name, family, started)
}

// lookupFamily is the family whose get command tells about the guest.
func lookupFamily(plan Plan, job cbsdmq.Job) string {
	if e, ok := job.Arg("emulator"); ok {
		return e
	}
	return plan.Family
}

func (p *Pool) readLookups(ctx context.Context, name, emulator string) (guid, disk, vnc string, err error) {
	facts, bind := bhyveFacts, 2
	if emulator == qemu {
		facts, bind = qemuFacts, 3
	}
	row, ok, err := p.store.first(ctx, p.guestDB(name), facts)
	if err != nil {
		return "", "", "", err
	}
	guid, disk = "0\n", "0"
	if !ok {
		return guid, disk, "", nil
	}
	if unset(row[0]) != "" {
		guid = row[0] + "\n"
	}
	if facts.extra != "" && row[4] != "" {
		disk = row[4] + "\n"
	}
	return guid, disk, row[bind] + ":" + row[1] + "\n", nil
}

// askLookups asks cbsd itself. A guest that no family is known of is taken for
// one of bhyve, as the original programs do.
func (p *Pool) askLookups(ctx context.Context, name, family string, started bool) (guid, disk, vnc string) {
	ctx, cancel := context.WithTimeout(ctx, askWait)
	defer cancel()
	get := "bget"
	switch family {
	case jail, qemu, xen:
		get = family[:1] + "get"
	case virtualbox, "vbox":
		get = "vget"
	}
	guid = p.ask(ctx, "0", get, "jname="+name, "mode=quiet", "vm_zfs_guid")
	if guid == "0" && get == "jget" { // jget has no such column; a stand-in may answer bget only
		guid = p.ask(ctx, "0", "bget", "jname="+name, "mode=quiet", "vm_zfs_guid")
	}
	disk = p.ask(ctx, "0", "bhyve-dsk", "mode=get", "jname="+name, "dsk_path=dsk1", "dsk_zfs_guid")
	if started {
		vnc = p.ask(ctx, "", get, "jname="+name, "mode=quiet", "vnc")
	}
	return guid, disk, vnc
}

// ask returns the one line that a command prints, or otherwise.
func (p *Pool) ask(ctx context.Context, otherwise string, argv ...string) string {
	out, err := p.host.run(ctx, argv...)
	if err != nil || len(out) == 0 || strings.Count(strings.TrimSuffix(string(out), "\n"), "\n") > 0 {
		if err != nil {
			p.cfg.Log.DebugContext(ctx, "cbsd not asked", "command", fmt.Sprint(argv), "err", err)
		}
		return otherwise
	}
	return string(out)
}
