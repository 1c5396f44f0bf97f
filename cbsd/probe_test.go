package cbsd

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cbsd/cbsdmq"
	"github.com/cbsd/cbsdmq/cbsd/cbsdsim"
)

// find returns the finding about something, and fails if there is none.
func find(t *testing.T, r Report, about string) Finding {
	t.Helper()
	for _, f := range r.Findings {
		if f.About == about {
			return f
		}
	}
	t.Fatalf("nothing about %s in %+v", about, r.Findings)
	return Finding{}
}

// allow gives an open pool another list of what may run.
func allow(t *testing.T, p *Pool, list ...string) {
	t.Helper()
	p.cfg.Allow = append([]string{}, list...)
	a, err := parseAllow(p.cfg.Allow)
	if err != nil {
		t.Fatal(err)
	}
	p.allow = a
}

func TestProbe(t *testing.T) {
	t.Parallel()
	p := simPool(t)
	r := p.Probe(t.Context())
	if r.Err() != nil || r.Version != cbsdsim.Version {
		t.Errorf("version %q, %v", r.Version, r.Err())
	}
	if f := find(t, r, "arguments"); f.Level != OK || !strings.Contains(f.Text, "no guests") {
		t.Errorf("got %+v", f)
	}
	for _, family := range []string{jail, qemu, bhyve} {
		create(t, p, family, "g"+family[:1])
		r := p.Probe(t.Context())
		for _, about := range []string{"workdir", "inventory", "cbsd", "version", "arguments"} {
			if f := find(t, r, about); f.Level != OK || f.Hint != "" {
				t.Errorf("%+v", f)
			}
		}
	}
}

func TestProbeFindsTrouble(t *testing.T) {
	t.Parallel()
	p := simPool(t)
	create(t, p, bhyve, "vm1")
	script := func(text string) func(*Pool) {
		return func(p *Pool) {
			p.cfg.CBSD = filepath.Join(t.TempDir(), "cbsd")
			p.host.cbsd = p.cfg.CBSD
			program(t, p.cfg.CBSD, "#!/bin/sh\n"+text)
		}
	}
	for name, tt := range map[string]struct {
		breakIt     func(*Pool)
		about, text string
	}{
		"cbsd missing":      {func(p *Pool) { p.cfg.CBSD = "/nosuch/cbsd" }, "cbsd", "no such file"},
		"cbsd a directory":  {func(p *Pool) { p.cfg.CBSD = t.TempDir() }, "cbsd", "not a program"},
		"not CBSD":          {script("exit 0"), "version", "does not tell"},
		"older workdir":     {script("echo 15.0.9"), "version", "the host has 15.0.9"},
		"lists another":     {script("echo 14.1.3a"), "arguments", "workdir= does not arrive"},
		"arguments ignored": {script("[ $1 = bls ] && echo JNAME STATUS; echo vm1"), "arguments", "header=0"},
		"list fails":        {script("echo 'No such domain: header=0'; exit 1"), "arguments", "No such domain: header=0"},
		"no inventory":      {func(p *Pool) { p.cfg.Workdir = barePool(t).cfg.Workdir }, "inventory", "there is no "},
		"allow misspelt":    {func(p *Pool) { allow(t, p, "all", "bexecc") }, "allow", "there is no command bexecc"},
		"allow of nothing":  {func(p *Pool) { allow(t, p) }, "allow", "every job is refused"},
		"replication": {func(p *Pool) {
			execSQL(t, p.localDB(), "UPDATE local SET sqlreplica = 1")
			t.Cleanup(func() { execSQL(t, p.localDB(), "UPDATE local SET sqlreplica = 0") })
		}, "sqlreplica", "sqlreplica is on"},
	} {
		t.Run(name, func(t *testing.T) {
			broken := openPool(t, p.cfg)
			tt.breakIt(broken)
			r := broken.Probe(t.Context())
			var f Finding
			for _, f = range r.Findings {
				if f.About == tt.about && f.Level != OK {
					break
				}
			}
			if f.About != tt.about || f.Level != Warning || !strings.Contains(f.Text, tt.text) || f.Hint == "" {
				t.Errorf("got %+v", r.Findings)
			}
			if r.Err() != nil {
				t.Errorf("fatal: %v", r.Err())
			}
		})
	}
}

func TestProbeFatal(t *testing.T) {
	empty := t.TempDir()
	file := filepath.Join(empty, "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for dir, want := range map[string]string{
		filepath.Join(empty, "nosuch"): "no such file",
		file:                           "not a directory",
		empty:                          "nc.inventory",
	} {
		p := openPool(t, Config{CBSD: "/bin/true", Workdir: dir, RunDir: t.TempDir()})
		err := p.Probe(t.Context()).Err()
		if cbsdmq.CodeOf(err) != cbsdmq.CodeBadConfig || !strings.Contains(err.Error(), want) || cbsdmq.HintOf(err) == "" {
			t.Errorf("%s: got %v", dir, err)
		}
	}
}
