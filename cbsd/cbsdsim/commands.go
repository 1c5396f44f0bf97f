package cbsdsim

import (
	_ "embed"
	"fmt"
	"os"
	"slices"
	"strings"
)

// commandList has one command a line: name, modules, required arguments,
// optional arguments (the answer of --args), description. Separator is |.
//
//go:embed commands.txt
var commandList string

type command struct {
	name, module      string
	app               string // the script behind the name, which its messages carry
	require, optional []string
	desc              string
	run               func(*call) error
	reads             bool // changes nothing
}

// Commands lists the names that the simulator knows, sorted.
func Commands() []string {
	var names []string
	for line := range strings.Lines(commandList) {
		name, _, _ := strings.Cut(line, "|")
		names = append(names, name)
	}
	return names
}

func findCommand(name string) (command, bool) {
	run, reads := action(name)
	if run == nil {
		return command{}, false
	}
	for line := range strings.Lines(commandList) {
		f := strings.Split(strings.TrimSuffix(line, "\n"), "|")
		if f[0] != name {
			continue
		}
		return command{
			name: name, app: script(name), module: f[1], desc: f[4],
			require: strings.Fields(f[2]), optional: strings.Fields(f[3]),
			run: run, reads: reads,
		}, true
	}
	return command{}, false
}

// script is the real script behind a second name.
func script(name string) string {
	switch name {
	case "bremove", "jremove", "qremove":
		return name[:1] + "destroy"
	case "bexport", "bimport", "bsnapshot":
		return "j" + name[1:]
	}
	return name
}

// action says what carries out a command, and whether it only reads.
func action(name string) (run func(*call) error, reads bool) {
	switch name {
	case "bcreate":
		return func(c *call) error { return c.createVM(bhyve) }, false
	case "qcreate":
		return func(c *call) error { return c.createVM(qemu) }, false
	case "jcreate":
		return (*call).createJail, false
	case "bstart":
		return func(c *call) error { return c.startVMs(bhyve) }, false
	case "qstart":
		return func(c *call) error { return c.startVMs(qemu) }, false
	case "jstart":
		return (*call).startJails, false
	case "bstop":
		return func(c *call) error { return c.stopVMs(bhyve) }, false
	case "qstop":
		return func(c *call) error { return c.stopVMs(qemu) }, false
	case "jstop":
		return (*call).stopJails, false
	case "brestart":
		return (*call).restartVMs, false
	case "jrestart":
		return (*call).restartJails, false
	case "bpause":
		return (*call).pauseVM, false
	case "jpause":
		return (*call).pauseJail, false
	case "bremove", "bdestroy":
		return func(c *call) error { return c.remove(bhyve) }, false
	case "qremove", "qdestroy":
		return func(c *call) error { return c.remove(qemu) }, false
	case "jremove", "jdestroy":
		return func(c *call) error { return c.remove(jail) }, false
	case "bls":
		return func(c *call) error { return c.list(bhyve) }, true
	case "qls":
		return func(c *call) error { return c.list(qemu) }, true
	case "jls":
		return func(c *call) error { return c.list(jail) }, true
	case "bget":
		return func(c *call) error { return c.getVM(bhyve) }, true
	case "qget":
		return func(c *call) error { return c.getVM(qemu) }, true
	case "jget":
		return (*call).getJail, true
	case "bset":
		return func(c *call) error { return c.setVM(bhyve) }, false
	case "qset":
		return func(c *call) error { return c.setVM(qemu) }, false
	case "jset":
		return (*call).setJail, false
	case "bclone":
		return func(c *call) error { return c.clone(bhyve) }, false
	case "jclone":
		return func(c *call) error { return c.clone(jail) }, false
	case "brename":
		return func(c *call) error { return c.rename(bhyve) }, false
	case "jrename":
		return func(c *call) error { return c.rename(jail) }, false
	case "jregister":
		return (*call).register, false
	case "junregister":
		return (*call).unregister, false
	case "bswmode", "jswmode":
		return (*call).switchMode, false
	case "bsnapshot", "jsnapshot":
		return (*call).snapshot, false
	case "bexport", "jexport":
		return (*call).export, false
	case "bimport", "jimport":
		return (*call).importImage, false
	case "rexe":
		return (*call).rexe, true
	case "bhyve-exist":
		return (*call).bhyveExist, true
	case "bmigrate":
		return (*call).migrate, false
	case "jcoldmigrate":
		return (*call).coldMigrate, false
	case "bcheckpoint":
		return (*call).checkpoint, false
	case "bhyve-dsk":
		return (*call).disk, false
	case "bhyve-dsk-list":
		return (*call).listDisks, true
	case "bhyve-nic":
		return (*call).nic, true
	case "bhyve-nic-list":
		return (*call).listNICs, true
	case "jstatus":
		return (*call).jailStatus, true
	case "task":
		return (*call).task, false
	case "taskls":
		return (*call).listTasks, true
	case "media":
		return (*call).media, false
	case "images":
		return (*call).images, true
	case "get-profiles":
		return (*call).getProfiles, true
	case "fetch_iso":
		return (*call).fetchISO, false
	case "cluster":
		return (*call).cluster, true
	case "summary":
		return (*call).summary, true
	case "node":
		return (*call).node, true
	case "freejname":
		return (*call).freeName, true
	case "version":
		return (*call).version, true
	case "help":
		return (*call).help, true
	}
	return nil, false
}

// readMode tells that a command with modes was asked for one that only reads.
func (c *call) readMode() bool {
	switch c.name {
	case "bhyve-dsk", "media", "bsnapshot", "jsnapshot", "task":
		return slices.Contains([]string{"list", "get", "get_next_free_dsk", "dump"}, c.args.get("mode"))
	}
	return false
}

func (c *call) dispatch(args []string) error {
	switch c.name {
	case "bregister", "bunregister", "xregister", "xunregister":
		// wrappers around scripts that do not exist
		fmt.Fprintf(c.errw, "exec: /usr/local/cbsd/sudoexec/%s: not found\n", c.name)
		return exitCode(127)
	}
	cmd, ok := findCommand(c.name)
	if !ok {
		fmt.Fprintf(c.errw, "cbsd: %s: not found\n", c.name)
		return exitCode(127)
	}
	if len(args) > 0 && slices.Contains([]string{"--args", "--help", "--desc"}, args[0]) {
		c.describe(cmd, args[0])
		return nil
	}
	var err error
	if c.conf, err = readConfig(c.wd); err != nil {
		return err
	}
	c.argv = args
	if err := c.readArguments(cmd, args); err != nil {
		return err
	}
	c.noteCBSDfile()
	c.behaviour = c.conf.behaviour(c.name, c.guestArgument())
	return c.journaled(cmd.reads || c.readMode(), func() error { return c.behave(cmd) })
}

// behave does what the configuration tells for the command, then the command.
func (c *call) behave(cmd command) error {
	b := c.behaviour
	if err := c.prelude(b); err != nil {
		return err
	}
	if b.Exit != nil && !b.Act {
		return ending(*b.Exit)
	}
	if cmd.name != "version" && cmd.name != "help" {
		var err error
		if c.store, err = openExisting(c.wd.localDB()); err != nil {
			return err
		}
	}
	err := cmd.run(c)
	if b.Exit != nil {
		return ending(*b.Exit)
	}
	return err
}

func ending(code int) error {
	if code == 0 {
		return nil
	}
	return exitCode(code)
}

// guestArgument is the guest that a command names, for the journal; - without one.
func (c *call) guestArgument() string {
	for _, name := range []string{"jname", "old"} {
		if v := c.args.get(name); v != "" {
			return v
		}
	}
	if len(c.args.words) > 0 && !slices.Contains([]string{"help", "task"}, c.name) {
		return c.args.words[0]
	}
	return "-"
}

// noteCBSDfile says that a CBSDfile lies in the working directory. The real
// program goes on to run that file as shell.
func (c *call) noteCBSDfile() {
	switch c.name {
	case "bget", "bstart", "bstop", "jget", "jstart", "jstop", "qget", "qstart", "qstop":
	default:
		return
	}
	dir, err := os.Getwd()
	if err != nil {
		return
	}
	file := dir + "/CBSDfile"
	if _, err := os.Stat(file); err == nil {
		fmt.Fprintf(c.errw, "found CBSDfile: %s\n", file)
	}
}
