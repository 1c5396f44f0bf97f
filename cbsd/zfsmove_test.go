package cbsd

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/cbsd/cbsdmq/cbsd/cbsdsim"
	"github.com/cbsd/cbsdmq/internal/zfssim"
)

// A zfsMove is a VM with a disk in a pool on ZFS, as CBSD lays it out, and the
// job that moves it to another one.
type zfsMove struct {
	t              *testing.T
	from, to       *Pool
	source, target string // datasets of the two environments
	run            func(ctx context.Context) (string, error)
	disk           []byte // what is on it
}

func moveZFS(t *testing.T) *zfsMove {
	t.Helper()
	m := &zfsMove{t: t}
	m.from, m.to, m.run = move(t)
	id := strconv.FormatUint(rand.Uint64(), 36)
	m.source, m.target = "tank/"+id+"/pool1", "zroot/"+id+"/pool2"
	for p, name := range map[*Pool]string{m.from: m.source, m.to: m.target} {
		behave(t, p, cbsdsim.Config{ZFS: true})
		if err := zfssim.Adopt(os.Getenv(zfssim.Variable), name, p.cfg.Workdir); err != nil {
			t.Fatal(err)
		}
	}
	at := m.from.path("vm", "vm1")
	m.zfs("create", "-o", "mountpoint="+at, "-o", "compression=lz4", m.source+"/vm1")
	m.zfs("create", "-V", "1m", m.source+"/vm1/dsk1.vhd")
	m.disk, _ = os.ReadFile(m.from.path("jails-data", "vm1-data", "dsk1.vhd"))
	m.write(m.source+"/vm1/dsk1.vhd", m.disk)
	for _, part := range []string{m.from.path("jails-data", "vm1-data"), m.from.path("jails-system", "vm1")} {
		entries, err := os.ReadDir(part)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if err := os.Rename(filepath.Join(part, e.Name()), filepath.Join(at, e.Name())); err != nil {
				t.Fatal(err)
			}
		}
		if err := errors.Join(os.Remove(part), os.Symlink(at, part)); err != nil {
			t.Fatal(err)
		}
	}
	link := filepath.Join(at, "dsk1.vhd")
	if err := errors.Join(os.Remove(link), os.Symlink("/dev/zvol/"+m.source+"/vm1/dsk1.vhd", link)); err != nil {
		t.Fatal(err)
	}
	execSQL(t, m.from.localDB(), "UPDATE jails SET data = '"+at+"' WHERE jname = 'vm1'")
	return m
}

func (m *zfsMove) zfs(args ...string) string {
	m.t.Helper()
	out, err := zfs(m.t.Context(), args...)
	if err != nil {
		m.t.Fatal(err)
	}
	return out
}

// write puts bytes on a volume.
func (m *zfsMove) write(name string, text []byte) {
	m.t.Helper()
	file, err := zfssim.Volume(os.Getenv(zfssim.Variable), name)
	if err == nil {
		err = os.WriteFile(file, text, 0o600)
	}
	if err != nil {
		m.t.Fatal(err)
	}
}

// isIn checks that the VM is whole in one environment, whose datasets are below
// root, and that nothing of it is in the other.
func (m *zfsMove) isIn(has *Pool, root string, hasNot *Pool, gone string) {
	m.t.Helper()
	at := has.path("vm", "vm1")
	if s, err := has.state(m.t.Context(), "vm1", Clone, nil); err != nil || !s.Exists || len(s.Disks) != 1 || s.Data != at {
		m.t.Errorf("it is not in %s: %+v, %v", has.cfg.Workdir, s, err)
	}
	for _, part := range []string{has.path("jails-data", "vm1-data"), has.path("jails-system", "vm1")} {
		if to, err := os.Readlink(part); to != at {
			m.t.Errorf("%s leads to %q, %v", part, to, err)
		}
	}
	if to, err := os.Readlink(filepath.Join(at, "dsk1.vhd")); to != "/dev/zvol/"+root+"/vm1/dsk1.vhd" {
		m.t.Errorf("its disk leads to %q, %v", to, err)
	}
	file, err := zfssim.Volume(os.Getenv(zfssim.Variable), root+"/vm1/dsk1.vhd")
	if err != nil {
		m.t.Fatal(err)
	}
	if text, err := os.ReadFile(file); err != nil || !bytes.Equal(text, m.disk) {
		m.t.Errorf("its disk: %d bytes, %v", len(text), err)
	}
	if got := m.zfs("get", "-H", "-o", "value", "compression,mounted", root+"/vm1"); got != "lz4\nyes" {
		m.t.Errorf("its file system: %q", got)
	}
	if list := m.zfs("list", "-H", "-t", "snapshot", "-o", "name", "-r", root+"/vm1"); strings.Contains(list, moveSnapshot) {
		m.t.Errorf("snapshots are left: %s", list)
	}
	if s, err := hasNot.state(m.t.Context(), "vm1", Other, nil); err != nil || s.Exists || s.Unregistered {
		m.t.Errorf("it is in %s: %+v, %v", hasNot.cfg.Workdir, s, err)
	}
	if has, err := hasDataset(m.t.Context(), gone+"/vm1"); has || err != nil {
		m.t.Errorf("%s/vm1 is left: %v", gone, err)
	}
	for _, part := range []string{"vm/vm1", "jails-data/vm1-data", "jails-data/.cbsdmq-vm1", "jails-system/vm1", "jails-rcconf/rc.conf_vm1"} {
		if lexists(hasNot.path(part)) {
			m.t.Errorf("%s is left", hasNot.path(part))
		}
	}
	if exists(m.from.transferFile("vm1", "json")) {
		m.t.Error("the file of the transfer is left")
	}
}

func (m *zfsMove) moved() { m.t.Helper(); m.isIn(m.to, m.target, m.from, m.source) }

func (m *zfsMove) back() { m.t.Helper(); m.isIn(m.from, m.source, m.to, m.target) }
