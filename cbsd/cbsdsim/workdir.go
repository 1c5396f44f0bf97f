package cbsdsim

import (
	"crypto/md5"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

const (
	// VMMDir, below the workdir, stands for /dev/vmm: it has a file named after
	// each bhyve guest that runs. The guest's process id is jails.jid.
	VMMDir = "var/run/vmm"
	// ZFSDir, below the workdir, stands for ZFS: it has a directory named after each
	// guest with snapshots, and in it a file named after each snapshot.
	ZFSDir = "var/run/zfs"
	// JailDir, below the workdir, stands for the jails of the kernel: it has a
	// file named after each jail that runs, holding its jid.
	JailDir = "var/run/jails"
)

// A workdir is the absolute path of a CBSD working environment.
type workdir string

func (w workdir) path(elem ...string) string {
	return filepath.Join(append([]string{string(w)}, elem...)...)
}

func (w workdir) configFile() string          { return w.path("etc", "cbsdsim.json") }
func (w workdir) localDB() string             { return w.path("var", "db", "local.sqlite") }
func (w workdir) mediaDB() string             { return w.path("var", "db", "storage_media.sqlite") }
func (w workdir) taskDB() string              { return w.path("var", "db", "cbsdtaskd.sqlite") }
func (w workdir) system(jname string) string  { return w.path("jails-system", jname) }
func (w workdir) guestDB(jname string) string { return w.path("jails-system", jname, "local.sqlite") }
func (w workdir) data(jname string) string    { return w.path("jails-data", jname+"-data") }
func (w workdir) root(jname string) string    { return w.path("jails", jname) }
func (w workdir) vmm(jname string) string     { return w.path(VMMDir, jname) }
func (w workdir) jail(jname string) string    { return w.path(JailDir, jname) }
func (w workdir) qemuPID(jname string) string { return w.path("jails-system", jname, "qemu.pid") }

// rcConf is the description of a guest as text: in jails-rcconf while it is
// unregistered, else with its other system files.
func (w workdir) rcConf(jname string, registered bool) string {
	if registered {
		return w.path("jails-system", jname, "rc.conf_"+jname)
	}
	return w.path("jails-rcconf", "rc.conf_"+jname)
}

// setZFS says in nc.inventory whether the workdir is on ZFS. A workdir that was
// once has its snapshots still.
func (w workdir) setZFS(on bool) error {
	text, err := os.ReadFile(w.path("nc.inventory"))
	if err != nil {
		return err
	}
	fs, feat := `fs="ufs"`, `zfsfeat="0"`
	if on {
		fs, feat = `fs="zfs"`, `zfsfeat="1"`
		if err := os.MkdirAll(w.path(ZFSDir), 0o755); err != nil {
			return err
		}
	}
	lines := strings.Split(string(text), "\n")
	for i, line := range lines {
		switch name, _, _ := strings.Cut(line, "="); name {
		case "fs":
			lines[i] = fs
		case "zfsfeat":
			lines[i] = feat
		}
	}
	return os.WriteFile(w.path("nc.inventory"), []byte(strings.Join(lines, "\n")), 0o644)
}

func (w workdir) alive() bool {
	_, err := os.Stat(w.path("nc.inventory"))
	return err == nil
}

// Init makes dir a fresh workdir of the node nodename, without guests. dir may
// exist; it must not be a workdir yet.
func Init(dir, nodename string) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return fmt.Errorf("making workdir: %w", err)
	}
	w := workdir(dir)
	if w.alive() {
		return fmt.Errorf("making workdir: %s is one already", dir)
	}
	for _, d := range []string{
		"basejail", "etc/defaults", "export", "ftmp", "import", "jails", "jails-data", "jails-fstab",
		"jails-rcconf", "jails-system", "modules", "share", "src/iso", "tmp", "var/db", "var/log",
		VMMDir, JailDir, ".ssh",
	} {
		if err := os.MkdirAll(w.path(d), 0o755); err != nil {
			return fmt.Errorf("making workdir: %w", err)
		}
	}
	if err := w.writeDatabases(nodename); err != nil {
		return fmt.Errorf("making workdir: %w", err)
	}
	if err := w.writeFiles(nodename); err != nil {
		return fmt.Errorf("making workdir: %w", err)
	}
	return nil
}

func (w workdir) writeDatabases(nodename string) error {
	inventory := "inv." + nodename + ".sqlite"
	for file, ddl := range map[string]string{
		inventory:              localSchema,
		"nodes.sqlite":         nodesSchema,
		"cbsdtaskd.sqlite":     taskSchema,
		"storage_media.sqlite": mediaSchema,
		"images.sqlite":        imagesSchema,
	} {
		d, err := createDB(w.path("var", "db", file), ddl)
		if err != nil {
			return err
		}
		if file == inventory {
			err = errors.Join(
				d.insert("local", w.inventory(nodename)),
				d.insert("storage_pools", [][2]string{{"name", "default"}, {"driver", "dir"}, {"poolpath", w.path("jails-data")}}),
			)
		}
		if err := errors.Join(err, d.close()); err != nil {
			return err
		}
	}
	return os.Symlink(inventory, w.localDB())
}

// inventory is what the node knows of itself: the row of local and the lines of nc.inventory.
func (w workdir) inventory(nodename string) [][2]string {
	platform := map[string]string{"freebsd": "FreeBSD", "linux": "Linux"}[runtime.GOOS]
	return [][2]string{
		{"nodename", nodename}, {"hostname", nodename}, {"nodeip", "127.0.0.1"}, {"nodedescr", "simulated"},
		{"jnameserver", "127.0.0.1"}, {"nodeippool", "10.201.0.0/24"}, {"nat_enable", "0"}, {"fbsdrepo", "1"},
		{"workdir", string(w)}, {"fs", "ufs"}, {"zfsfeat", "0"}, {"jail_interface", "auto"},
		{"ncpu", fmt.Sprint(runtime.NumCPU())}, {"parallel", "5"}, {"stable", "0"}, {"hostarch", "amd64"},
		{"vimage_feature", "1"}, {"racct", "0"}, {"sqlreplica", "0"}, {"domain", "cbsd.local"},
		{"platform", platform}, {"cbsdver", Version},
	}
}

func (w workdir) writeFiles(nodename string) error {
	sum := md5.Sum([]byte(nodename)) // the real key file is named so
	var inventory strings.Builder
	for _, kv := range w.inventory(nodename) {
		fmt.Fprintf(&inventory, "%s=\"%s\"\n", kv[0], kv[1])
	}
	files := map[string]string{
		"ver":      Version,
		"nodename": nodename + "\n",
		"cmd.subr": "RM_CMD=\"/bin/rm\"\nSED_CMD=\"/usr/bin/sed\"\nZFS_CMD=\"/sbin/zfs\"\n",
		"rc.conf":  "nodename=\"" + nodename + "\"\n",
		".ssh/" + hex.EncodeToString(sum[:]) + ".id_rsa": "not a key\n",
	}
	for _, p := range profiles() {
		files["etc/defaults/vm-"+p.os+"-"+p.name+".conf"] = p.file()
	}
	for i, d := range []string{"jails-data", "jails-system", "jails-rcconf", "var/db"} {
		id := fmt.Sprintf("%x%d\n", time.Now().UnixNano(), i)
		files[d+"/dir.id"] = id
	}
	for name, content := range files {
		if err := os.WriteFile(w.path(name), []byte(content), 0o644); err != nil {
			return err
		}
	}
	iso, _ := findProfile("linux", "lab-tiny")
	if err := sparse(iso.iso(w), iso.isoSize); err != nil {
		return err
	}
	// last: this file is what makes a workdir
	return os.WriteFile(w.path("nc.inventory"), []byte(inventory.String()), 0o644)
}

// sparse makes a file of that size that takes no space.
func sparse(file string, size int64) error {
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	return errors.Join(f.Truncate(size), f.Close())
}
