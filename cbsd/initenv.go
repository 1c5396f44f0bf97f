package cbsd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/cbsd/cbsdmq"
)

// DefaultInitenv is where CBSD installs the script that makes an environment.
const DefaultInitenv = distDir + "/sudoexec/initenv"

// An Environment is one that is to be made.
type Environment struct {
	Dir      string        // absolute; its parent is there
	Nodename string        // the environment's own, not the host's: it goes with the pool
	Initenv  string        // the script, "" = DefaultInitenv
	Set      []string      // further lines NAME=VALUE of the script's configuration
	Limit    time.Duration // for the script
	Out      io.Writer     // gets what it prints, nil = nobody
	Root     string        // where the host's files are looked at, "" = /
}

// Made says what came of an Environment.
type Made struct {
	Already bool     // it was whole before, and nothing was done
	ZFS     bool     // its snapshots and volumes are ZFS's
	Node    string   // its nodename
	Changed []string // files of the host that the script changed, with what: nothing is to
}

const (
	// unfinished lies in a directory from before the script is run until the
	// environment is whole.
	unfinished = ".cbsdmq-init"
	initGrace  = 5 * time.Second
	initKept   = 16 << 10 // of what the script prints
)

// switches keep the script from changing the host.
var switches = []string{
	"initenv_modify_sudoers", "initenv_modify_rcconf_hostname", "initenv_modify_rcconf_cbsd_workdir",
	"initenv_modify_rcconf_cbsd_enable", "initenv_modify_rcconf_rcshutdown_timeout", "initenv_modify_syctl_rcshutdown_timeout",
	"initenv_modify_rcconf_cbsdrsyncd_enable", "initenv_modify_rcconf_cbsdrsyncd_flags", "initenv_modify_cbsd_homedir",
}

// initPath is where the script looks for programs.
const initPath = "/sbin:/bin:/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin"

// which stands before the one of the host for the script, which asks it for
// every program. There is no switch for what it does with these two on Linux:
// with systemctl it makes cbsdd.service and enables it, though rc.conf says
// cbsdd_enable=NO; with usermod it moves the home of the user cbsd.
const which = `#!/bin/sh
case "$1" in
systemctl) exit 1 ;;
usermod) exec /usr/bin/which true ;;
esac
exec /usr/bin/which "$@"
`

var (
	plainPath  = regexp.MustCompile(`^(/[A-Za-z0-9_.-]+)+$`) // CBSD's scripts break on more
	nodeName   = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9.-]{0,252}$`)
	plainValue = regexp.MustCompile(`^[A-Za-z0-9_.,:/@%+ -]*$`)
)

// Init makes a CBSD environment without asking anybody, and looks at its files
// and at the host's: the script's exit status says neither whether it is whole
// nor what else was changed. Done again, it changes nothing; after a crash it
// goes on.
func Init(ctx context.Context, e Environment) (Made, error) {
	if e.Initenv == "" {
		e.Initenv = DefaultInitenv
	}
	if err := e.check(); err != nil {
		return Made{}, err
	}
	m := Made{ZFS: onZFS(e.Dir)}
	resume := exists(filepath.Join(e.Dir, unfinished))
	if exists(filepath.Join(e.Dir, "nc.inventory")) && !resume {
		missing := e.missing(ctx)
		if len(missing) > 0 {
			return m, cbsdmq.Errorf(cbsdmq.CodeRefused, "DIR", "%s is an environment, but not a whole one: %s", e.Dir, strings.Join(missing, ", ")).
				WithHint("mend it with CBSD: env workdir=%s %s, or name an empty directory", e.Dir, e.Initenv)
		}
		m.Already, m.Node, m.ZFS = true, e.inventory()["nodename"], e.inventory()["zfsfeat"] == "1"
		return m, nil
	}
	if err := e.prepare(resume); err != nil {
		return m, err
	}
	before := readHost(e.Root)
	printed, status := e.run(ctx, m.ZFS)
	m.Changed = before.changes(readHost(e.Root))
	missing := e.missing(ctx)
	if len(missing) > 0 || errors.Is(status, context.DeadlineExceeded) {
		why := fmt.Errorf("%s is not whole: %s", e.Dir, strings.Join(missing, ", "))
		if status != nil {
			why = status
			if len(missing) > 0 {
				why = fmt.Errorf("%w; %s is not whole: %s", status, e.Dir, strings.Join(missing, ", "))
			}
		}
		return m, cbsdmq.Errorf(cbsdmq.CodeInternal, "", "%s did not make an environment: %w. It printed at last:\n%s", e.Initenv, why, printed).
			WithHint("mend what it says and do it again: it goes on; or remove %s", e.Dir)
	}
	inv := e.inventory()
	m.Node = inv["nodename"]
	if zfs := inv["zfsfeat"] == "1"; zfs != m.ZFS {
		return m, cbsdmq.Errorf(cbsdmq.CodeInternal, "", "%s: the environment has zfsfeat=%s, but its file system says otherwise", e.Dir, inv["zfsfeat"]).
			WithHint("is zfs loaded, and is %s a dataset of its own? Set it with: env workdir=%s cbsd initenv-tui", e.Dir, e.Dir)
	}
	if err := os.Remove(filepath.Join(e.Dir, unfinished)); err != nil {
		return m, fmt.Errorf("ending the making of %s: %w", e.Dir, err)
	}
	return m, nil
}

// check refuses what cannot be meant.
func (e *Environment) check() error {
	bad := func(field, format string, args ...any) *cbsdmq.Error {
		return cbsdmq.Errorf(cbsdmq.CodeRefused, field, format, args...)
	}
	switch {
	case !plainPath.MatchString(e.Dir) || filepath.Clean(e.Dir) != e.Dir:
		return bad("DIR", "%q is not a path that CBSD can work in", e.Dir).
			WithHint("an absolute path of letters, digits and _ . - such as /pool1")
	case !nodeName.MatchString(e.Nodename):
		return bad("nodename", "%q is not the name of a node", e.Nodename).WithHint("write a host name, such as pool1.example.org")
	}
	for _, line := range e.Set {
		name, value, ok := strings.Cut(line, "=")
		if !ok || !argName.MatchString(name) || !plainValue.MatchString(value) || slices.Contains(switches, name) {
			return bad("set", "%q is not NAME=VALUE of initenv", line).WithHint("the names are in /usr/local/cbsd/share/initenv.conf; CBSD reads values as shell, so only plain ones are taken")
		}
	}
	real, err := filepath.EvalSymlinks(e.Dir)
	if err == nil && real != e.Dir {
		return bad("DIR", "%s is a link", e.Dir).WithHint("CBSD would take the place it leads to: name that, %s", real)
	}
	if main, err := readShell(filepath.Join(e.Root, "/etc/rc.conf")); err == nil && main["cbsd_workdir"] != "" &&
		filepath.Clean(main["cbsd_workdir"]) == e.Dir {
		return bad("DIR", "%s is this host's main environment: cbsd_workdir of rc.conf", e.Dir).
			WithHint("a pool has an environment of its own: name another directory. To serve the main one, write its configuration by hand: cbsdmq check --example")
	}
	if info, err := os.Stat(e.Initenv); err != nil || !info.Mode().IsRegular() {
		return bad("initenv", "there is no %s", e.Initenv).WithHint("install CBSD first: pkg install cbsd")
	}
	if e.Initenv == DefaultInitenv {
		if _, err := user.Lookup("cbsd"); err != nil {
			return bad("", "this host has no user cbsd").WithHint("the package of CBSD makes it: pkg install cbsd")
		}
	}
	return nil
}

// prepare makes the directory, or looks that it is empty.
func (e *Environment) prepare(resume bool) error {
	if err := os.Mkdir(e.Dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return cbsdmq.Errorf(cbsdmq.CodeRefused, "DIR", "%w", err).WithHint("make the directory above it, or the dataset: zfs create -o mountpoint=%s tank/%s", e.Dir, filepath.Base(e.Dir))
	}
	entries, err := os.ReadDir(e.Dir)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		switch entry.Name() {
		case "lost+found", ".zfs", ".snap", ".sujournal", unfinished:
			continue
		}
		if !resume {
			return cbsdmq.Errorf(cbsdmq.CodeRefused, "DIR", "%s is not empty and not an environment: it has %s", e.Dir, entry.Name()).
				WithHint("name an empty directory, or one that is not there")
		}
	}
	if err := os.WriteFile(filepath.Join(e.Dir, unfinished), []byte("cbsdmq init makes an environment here\n"), 0o600); err != nil {
		return err
	}
	return e.noService()
}

// noService writes into the environment's rc.conf what the script would write
// there. It does not find it there, it writes it into that of the host, too.
func (e *Environment) noService() error {
	f, err := os.OpenFile(filepath.Join(e.Dir, "rc.conf"), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if errors.Is(err, os.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	_, err = io.WriteString(f, "cbsdd_enable=\"NO\"\n")
	return errors.Join(err, f.Close())
}

// settings is the configuration of the script.
func (e *Environment) settings(zfs bool) string {
	feat := "0"
	if zfs {
		feat = "1"
	}
	lines := []string{
		"nodename=" + e.Nodename, "workdir=" + e.Dir, "zfsfeat=" + feat, "hammerfeat=0",
		"nat_enable=0", "natip=auto", "ipfw_enable=0", "nodeip=auto", "nodeip6=auto", "nodeippool=auto",
		"nodeip6pool=fde4:8dba:82e1::/64", "jnameserver=" + nameservers(e.Root), "jail_interface=auto", "bridge=auto", "default_vs=0",
		"mdtmp=0", "fbsdrepo=1", "repo=http://bsdstore.ru", "parallel=5", "stable=0", "sqlreplica=0",
		"statsd_bhyve_enable=0", "statsd_jail_enable=0", "statsd_hoster_enable=0",
	}
	lines = append(lines, e.Set...) // what comes last counts
	// Else the script restarts the cbsdd of the host's main environment at its end,
	// where that has one, and without a systemctl runs itself again.
	lines = append(lines, "first_init=0")
	for _, name := range switches {
		lines = append(lines, name+"=0")
	}
	var b strings.Builder
	for _, line := range lines {
		name, value, _ := strings.Cut(line, "=")
		fmt.Fprintf(&b, "%s=\"%s\"\n", name, value)
	}
	return b.String()
}

var nameserver = regexp.MustCompile(`(?m)^nameserver[ \t]+([0-9A-Fa-f:.]+)[ \t]*$`)

// nameservers are those of the host.
func nameservers(root string) string {
	text, err := os.ReadFile(filepath.Join(root, "/etc/resolv.conf"))
	var list []string
	if err == nil {
		for _, m := range nameserver.FindAllSubmatch(text, -1) {
			list = append(list, string(m[1]))
		}
	}
	if len(list) == 0 {
		return "9.9.9.9"
	}
	return strings.Join(list, ",")
}

// run runs the script and returns the end of what it printed. Its exit status is
// only a claim: 0 is nil.
func (e *Environment) run(ctx context.Context, zfs bool) (printed string, status error) {
	dir, err := os.MkdirTemp("", "cbsdmq-init-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "initenv.conf")
	if err := os.WriteFile(file, []byte(e.settings(zfs)), 0o600); err != nil {
		return "", err
	}
	if err := os.WriteFile(filepath.Join(dir, "which"), []byte(which), 0o700); err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, e.Limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, e.Initenv, "inter=0", file)
	cmd.Dir = dir
	cmd.Env = []string{
		"PATH=" + dir + ":" + initPath, "HOME=/root", "LANG=C",
		"workdir=" + e.Dir, "NOINTER=1", "NOCOLOR=1",
		"cbsd_workdir=" + e.Dir, // else the script takes that of rc.conf, the host's main environment, in place of workdir
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	// A shell script has to be asked: it removes its lock when it ends by SIGTERM.
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = initGrace
	kept := &lastBytes{max: initKept, also: e.Out}
	cmd.Stdout, cmd.Stderr = kept, kept
	err = cmd.Run()
	if cmd.Process != nil {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // what it left running; nothing, as a rule
	}
	text := strings.TrimRight(escapes.ReplaceAllString(string(kept.data), ""), "\n")
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return text, fmt.Errorf("it had not ended after %s: %w", e.Limit, context.DeadlineExceeded)
	case ctx.Err() != nil:
		return text, ctx.Err()
	case err != nil:
		return text, fmt.Errorf("it ended with %w", err)
	}
	return text, nil
}

// inventory is the environment's nc.inventory.
func (e *Environment) inventory() map[string]string {
	vars, err := readShell(filepath.Join(e.Dir, "nc.inventory"))
	if err != nil {
		return nil
	}
	return vars
}

// missing lists what a whole environment has and this one has not.
func (e *Environment) missing(ctx context.Context) []string {
	var list []string
	need := func(names ...string) {
		for _, name := range names {
			if files, _ := filepath.Glob(filepath.Join(e.Dir, name)); len(files) == 0 { // DIR has no wildcards in it
				list = append(list, "there is no "+name)
			}
		}
	}
	need("nc.inventory", "nodename", "cmd.subr", "ver", "etc/defaults/*.conf", ".ssh/*.id_rsa",
		"jails-data/dir.id", "jails-system/dir.id", "jails-rcconf/dir.id", "var/db/dir.id")
	store := newStore()
	defer store.close()
	for file, table := range map[string]string{
		"local.sqlite": "jails", "nodes.sqlite": "nodelist", "storage_media.sqlite": "media", "cbsdtaskd.sqlite": "taskd",
	} {
		path := filepath.Join(e.Dir, "var", "db", file)
		if _, _, err := store.rows(ctx, path, &query{table: table, rest: "LIMIT 1"}); err != nil {
			list = append(list, fmt.Sprintf("var/db/%s has no table %s", file, table))
		}
	}
	if inv := e.inventory(); inv != nil && inv["workdir"] != e.Dir {
		list = append(list, fmt.Sprintf("nc.inventory is that of %q", inv["workdir"]))
	}
	slices.Sort(list)
	return list
}

// lastBytes keeps the end of what is written to it.
type lastBytes struct {
	data []byte
	max  int
	also io.Writer
}

func (l *lastBytes) Write(p []byte) (int, error) {
	if l.also != nil {
		_, _ = l.also.Write(p) // who cannot watch does not stop it
	}
	l.data = append(l.data, p...)
	if over := len(l.data) - l.max; over > l.max {
		l.data = bytes.Clone(l.data[over:])
	}
	return len(p), nil
}
