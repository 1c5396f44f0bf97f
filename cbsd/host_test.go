package cbsd

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/cbsd/cbsdmq"
	"github.com/cbsd/cbsdmq/internal/testserver"
)

// installed makes a host with an installed CBSD: its directories, and a cbsd
// that writes down how it was called.
func installed(t *testing.T, answer string) (p *Pool, calls func() []string) {
	t.Helper()
	dir := t.TempDir()
	log := filepath.Join(dir, "calls")
	program(t, filepath.Join(dir, "cbsd"), "#!/bin/sh\necho \"$*\" >> "+log+"\n"+answer+"\n")
	p = barePool(t, func(c *Config) { c.CBSD = filepath.Join(dir, "cbsd") })
	dist := p.host.dist
	if err := os.MkdirAll(dist, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dist, "cbsd.conf"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"bhyvectl/bset", "bhyvectl/bstart", "tools/newtool", "tools/new-tui", "jailctl/jset", "sudoexec/secret"} {
		program(t, filepath.Join(dist, name), "#!/usr/local/bin/cbsd\n")
	}
	program(t, filepath.Join(dist, "bin/cbsdsh"), "\x7fELF")
	program(t, filepath.Join(p.cfg.Workdir, "modules/vm-api"), "#!/usr/local/bin/cbsd\n")
	program(t, filepath.Join(p.cfg.Workdir, "modules/service"), "#!/usr/local/bin/cbsd\n")
	return p, func() []string {
		text, err := os.ReadFile(log)
		if err != nil {
			return nil
		}
		return strings.Split(strings.TrimSpace(string(text)), "\n")
	}
}

func program(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := testserver.WriteScript(path, text); err != nil {
		t.Fatal(err)
	}
}

// cbsd looks for commands in the system's directories too, so what is not a
// command of CBSD must not reach it.
func TestHostCommands(t *testing.T) {
	p, calls := installed(t, "exit 1")
	for name, want := range map[string]string{
		"bset":    "", // of the catalogue
		"newtool": "", // of this host only
		"vm-api":  "", // of a module
		"service": "", // of the catalogue, in a module
		"version": "", // without a file
		"bstop":   "this host's CBSD has no bstop",
		"ssh":     "this host's CBSD has no ssh",
		"reboot":  "there is no command reboot",
		"sh":      "there is no command sh",
		"cbsdsh":  "there is no command cbsdsh",
		"secret":  "there is no command secret",
		"new-tui": "new-tui needs a terminal",
	} {
		_, err := p.Plan(parseJob(name, "jname=x1"))
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: got %v, want %q", name, err, want)
		}
	}
	plan := mustPlan(t, p, "vm-api", "mode=create", "jname=vm1", "anything=goes", "word")
	want := Plan{Command: "vm-api", Argv: []string{"vm-api", "mode=create", "jname=vm1", "anything=goes", "word"}, Class: Change, Guest: "vm1", Lanes: []string{"vm1"}}
	if d := cmp.Diff(want, plan); d != "" {
		t.Error(d)
	}
	if _, err := p.Plan(parseJob("vm-api", "jname=$(id)")); cbsdmq.CodeOf(err) != cbsdmq.CodeRefused {
		t.Errorf("evaluated: %v", err)
	}
	if got := calls(); got != nil {
		t.Errorf("cbsd was called: %q", got)
	}
}

// A command that is installed later is found after a while.
func TestHostForgets(t *testing.T) {
	p, _ := installed(t, "exit 1")
	now := time.Now()
	p.host.now = func() time.Time { return now }
	if p.host.find("bstop") != "" {
		t.Fatal("found")
	}
	program(t, filepath.Join(p.host.dist, "bhyvectl/bstop"), "#!/usr/local/bin/cbsd\n")
	if p.host.find("bstop") != "" {
		t.Error("looked again at once")
	}
	now = now.Add(hostCache)
	if p.host.find("bstop") == "" {
		t.Error("not found")
	}
	for i := range 3000 {
		p.host.find(strings.Repeat("x", i%50) + string(rune('a'+i%26)))
	}
	if len(p.host.files) > 1024 {
		t.Errorf("%d names are remembered", len(p.host.files))
	}
}

// What the catalogue does not know of a command, the host's cbsd is asked, once.
func TestHostArguments(t *testing.T) {
	p, calls := installed(t, `[ "$2" = --args ] && printf 'node 2\njname\nvm_colour\n\n'`)
	now := time.Now()
	p.host.now = func() time.Time { return now }
	for range 3 {
		if plan := mustPlan(t, p, "bset", "jname=vm1", "vm_colour=blue"); plan.Warnings != nil {
			t.Errorf("warns: %q", plan.Warnings)
		}
		if _, err := p.Plan(parseJob("bset", "jname=vm1", "vm_shape=round")); err == nil {
			t.Error("planned what cbsd does not know")
		}
		mustPlan(t, p, "bset", "jname=vm1", "vm_ram=1g")
	}
	if got := calls(); !slices.Equal(got, []string{"bset --args"}) {
		t.Errorf("cbsd was called: %q", got)
	}
	// another version of cbsd
	if err := os.Chtimes(p.cfg.CBSD, time.Time{}, now.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	mustPlan(t, p, "bset", "jname=vm1", "vm_colour=blue")
	now = now.Add(argsCache)
	mustPlan(t, p, "bset", "jname=vm1", "vm_colour=blue")
	if got := calls(); len(got) != 3 {
		t.Errorf("cbsd was called: %q", got)
	}
}

// A cbsd that fails, or never answers, is asked once as well.
func TestHostArgumentsUnanswered(t *testing.T) {
	p, calls := installed(t, "exit 1")
	for range 3 {
		if _, err := p.Plan(parseJob("bset", "jname=vm1", "vm_colour=blue")); err == nil {
			t.Error("planned")
		}
	}
	if got := calls(); len(got) != 1 {
		t.Errorf("cbsd was called: %q", got)
	}
}

func TestOpen(t *testing.T) {
	for name, cfg := range map[string]Config{
		"relative workdir": {Workdir: "pool1"},
		"no workdir":       {},
		"relative command": {Workdir: "/pool1", CBSD: "cbsd"},
		"bad allow":        {Workdir: "/pool1", Allow: []string{"/bin/sh"}},
		"run directory":    {Workdir: "/pool1", RunDir: "/dev/null/x"},
	} {
		if _, err := Open(t.Context(), cfg); cbsdmq.CodeOf(err) != cbsdmq.CodeBadConfig {
			t.Errorf("%s: got %v", name, err)
		}
	}
	_, err := Open(t.Context(), Config{Workdir: "/pool1", RunDir: "/dev/null/x"})
	if hint := cbsdmq.HintOf(err); !strings.Contains(hint, `"run_dir"`) {
		t.Errorf("no way out of %v: %q", err, hint)
	}
}

// CBSD runs a file named CBSDfile of the working directory as shell.
func TestWorkingDirectory(t *testing.T) {
	run := t.TempDir()
	dir := filepath.Join(run, "empty")
	cfg := Config{Workdir: t.TempDir(), CBSD: "/bin/true", RunDir: run}
	for range 2 {
		p := openPool(t, cfg)
		info, err := os.Stat(p.Dir())
		if err != nil || p.Dir() != dir || info.Mode().Perm() != 0o555 {
			t.Fatalf("%s: %v, %v", p.Dir(), info, err)
		}
	}
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	openPool(t, cfg)
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o555 {
		t.Errorf("left writable: %v, %v", info, err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "CBSDfile"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), cfg); cbsdmq.CodeOf(err) != cbsdmq.CodeBadConfig || !strings.Contains(err.Error(), "CBSDfile") {
		t.Errorf("not empty: %v", err)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/tmp", dir); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), cfg); cbsdmq.CodeOf(err) != cbsdmq.CodeBadConfig {
		t.Errorf("a link: %v", err)
	}
}

func TestEnv(t *testing.T) {
	t.Setenv("H_CBSD_jname", "other")
	p := barePool(t)
	got := p.Env("pool1/17", mustPlan(t, p, "bstart", "jname=vm1"))
	want := []string{
		"PATH=/sbin:/bin:/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin", "HOME=/root", "LANG=C",
		"workdir=" + p.cfg.Workdir, "cbsd_workdir=" + p.cfg.Workdir, "NOINTER=1", "NOCOLOR=1", "CBSDMQ_JOB=pool1/17",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	got = p.Env("x", mustPlan(t, p, "bmigrate", "jname=vm1", "node=host2"))
	if !slices.Contains(got, "ALWAYS_YES=1") {
		t.Errorf("bmigrate asks and is not answered: %q", got)
	}
	p = barePool(t, func(c *Config) { c.Color = true })
	if got := p.Env("x", Plan{}); slices.Contains(got, "NOCOLOR=1") {
		t.Errorf("coloured: %q", got)
	}
}

// Without a guest these would change the host itself.
func TestHostItself(t *testing.T) {
	p, _ := installed(t, "exit 1")
	if _, err := p.Plan(parseJob("service", "mode=action", "service=sshd", "stop")); err == nil || !strings.Contains(err.Error(), "CommandArgs.jname: is missing") || !strings.Contains(cbsdmq.HintOf(err), `"service"`) {
		t.Errorf("got %v (%s)", err, cbsdmq.HintOf(err))
	}
	var err error
	if p.allow, err = parseAllow([]string{"all", "service"}); err != nil {
		t.Fatal(err)
	}
	mustPlan(t, p, "service", "mode=action", "service=sshd", "stop")
}

// What a create command keeps is read as shell, so a variable of CBSD's scripts
// cannot be a note about a guest.
func TestScriptVariables(t *testing.T) {
	p, _ := installed(t, "exit 1")
	program(t, filepath.Join(p.host.dist, "bhyvectl/bcreate"), "#!/usr/local/bin/cbsd\n")
	program(t, filepath.Join(p.host.dist, "sudoexec/bcreate"), "#!/usr/local/bin/cbsd\n. ${users_template_profile}\n[ ${#profiles} -eq $iso_extract ]\n")
	program(t, filepath.Join(p.host.dist, "misc/helper"), "\x7fELF$customer")
	for name, refused := range map[string]bool{"users_template_profile": true, "iso_extract": true, "profiles": true, "customer": false} {
		_, err := p.Plan(parseJob("bcreate", "jname=vm1", name+"=x"))
		if got := err != nil; got != refused {
			t.Errorf("%s: got %v", name, err)
		}
		if refused && !strings.Contains(err.Error(), "variable of CBSD's own") {
			t.Errorf("%s: got %v", name, err)
		}
	}
}
