package cbsd

import (
	"bufio"
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// distDir is where CBSD installs its scripts. The path is built into them.
const distDir = "/usr/local/cbsd"

// scriptDirs are the directories of distDir that hold commands.
var scriptDirs = []string{"tools", "bhyvectl", "jailctl", "qemuctl", "vboxctl", "xenctl", "nodectl", "system", "bin"}

const (
	hostCache  = time.Minute      // how long it is believed that a command's file is there
	argsCache  = 10 * time.Minute // the same for the answer of --args, and for no answer
	argsWait   = 3 * time.Second  // for the answer of --args
	argsListed = 512              // names of arguments that an answer may hold
)

// A host is what this host's cbsd knows beyond the catalogue: the files of its
// commands, and the names of arguments that --args prints.
//
// cbsd looks for a command in its own directories and then in those of the
// system: cbsd reboot reboots. So a command that is not in its directories must
// never reach it, not even to ask for its arguments.
type host struct {
	cbsd    string // the program
	dist    string
	modules string // where modules have their commands
	env     func() []string
	dir     func() string
	now     func() time.Time

	mu        sync.Mutex
	files     map[string]found
	names     map[string]answer
	variables map[string]bool // that its scripts read; nil = not looked for
	scripts   identity        // of the program when they were looked for
}

type found struct {
	path string // "" where there is none
	at   time.Time
}

type answer struct {
	names  map[string]bool // nil where there was no answer
	binary identity        // of the program that answered
	at     time.Time
}

// installed reports whether there is a CBSD at dist, not a stand-in.
func (h *host) installed() bool { return h.find("") != "" }

// has reports whether the command is there: as a file of a module, as a script
// of CBSD, or, without an installed CBSD, as a command of the catalogue.
func (h *host) has(name string, cmd *command) bool {
	if cmd != nil && (cmd.builtin || cmd.own) || h.find(name) != "" {
		return true
	}
	return cmd != nil && !cmd.module && !h.installed()
}

// find returns the file of a command, dist itself for "", or "".
func (h *host) find(name string) string {
	h.mu.Lock()
	f, ok := h.files[name]
	h.mu.Unlock()
	if ok && h.now().Sub(f.at) < hostCache {
		return f.path
	}
	f = found{path: h.look(name), at: h.now()}
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.files) >= 1024 { // names come from senders
		clear(h.files)
	}
	h.files[name] = f
	return f.path
}

func (h *host) look(name string) string {
	if name == "" {
		if info, err := os.Stat(filepath.Join(h.dist, "cbsd.conf")); err == nil && info.Mode().IsRegular() {
			return h.dist
		}
		return ""
	}
	if isProgram(filepath.Join(h.modules, name)) {
		return filepath.Join(h.modules, name)
	}
	for _, dir := range scriptDirs {
		if path := filepath.Join(h.dist, dir, name); isProgram(path) && isScript(path) {
			return path
		}
	}
	return ""
}

func isProgram(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}

// isScript keeps CBSD's own shell and helper programs from being commands.
func isScript(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	var head [2]byte
	n, _ := f.Read(head[:])
	return n == 2 && head == [2]byte{'#', '!'}
}

// knows reports whether --args of the command names the argument. It asks
// cbsd once per command and version; without an answer it says no.
func (h *host) knows(name string, cmd *command, arg string) bool {
	if cmd.mute || cmd.does != reads && cmd.does != changes || h.find(name) == "" {
		return false
	}
	id := identify(h.cbsd)
	h.mu.Lock()
	a, ok := h.names[name]
	h.mu.Unlock()
	if !ok || a.binary != id || h.now().Sub(a.at) >= argsCache {
		a = answer{names: h.ask(name), binary: id, at: h.now()}
		h.mu.Lock()
		h.names[name] = a
		h.mu.Unlock()
	}
	return a.names[arg]
}

func (h *host) ask(name string) map[string]bool {
	ctx, cancel := context.WithTimeout(context.Background(), argsWait)
	defer cancel()
	out, err := h.run(ctx, name, "--args")
	if err != nil {
		return nil
	}
	return parseArgs(out)
}

// parseArgs reads the answer of --args: a line "node N", a name a line, an
// empty line.
func parseArgs(out []byte) map[string]bool {
	names := make(map[string]bool)
	lines := bufio.NewScanner(bytes.NewReader(out))
	for lines.Scan() && len(names) < argsListed {
		if name := strings.TrimSpace(lines.Text()); argName.MatchString(name) {
			names[name] = true
		}
	}
	return names
}

// run runs cbsd to ask it something: clean environment, no terminal, no shell.
// It returns the beginning of stdout.
func (h *host) run(ctx context.Context, argv ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, h.cbsd, argv...)
	cmd.Env, cmd.Dir = h.env(), h.dir()
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	out := &head{max: 64 << 10}
	cmd.Stdout = out
	err := cmd.Run()
	return out.data, err
}

// head keeps the first max bytes of what is written to it.
type head struct {
	data []byte
	max  int
}

func (h *head) Write(p []byte) (int, error) {
	h.data = append(h.data, p[:min(len(p), h.max-len(h.data))]...)
	return len(p), nil
}
