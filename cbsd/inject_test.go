package cbsd

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/cbsd/cbsdmq"
	"github.com/cbsd/cbsdmq/cbsd/cbsdsim"
)

// FuzzPlan: whatever a sender writes, no element of a planned command line is
// one that CBSD would evaluate, split, expand or take for something else.
func FuzzPlan(f *testing.F) {
	for _, seed := range [][4]string{
		{"bset", "jname=vm1", "tags=$(id)", ""},
		{"bcreate", "jname=vm1", "PATH=/tmp", ""},
		{"bremove", "jname=*", "", "vm*"},
		{"bls", "display=jname;reboot", "header=0", "vm1"},
		{"qget", "jname=vm1", "mode=quiet", "../../bin/sh"},
		{"jimport", "jname=/pool1/x.img", "new_jname=j1", ""},
		{"sysrc", "jname=j1", "x_flags=-a", "-n"},
		{"bexport", "jname=vm1", "imgname=a b=c", ""},
		{"jset", "ip4_addr=lo0#10.0.0.1", "jname=j1", ""},
	} {
		f.Add(seed[0], seed[1], seed[2], seed[3])
	}
	p := barePool(f)
	f.Fuzz(func(t *testing.T, command, arg1, arg2, word string) {
		job := cbsdmq.Job{Command: command}
		for _, a := range []string{arg1, arg2} {
			name, value, _ := strings.Cut(a, "=")
			job.Args = append(job.Args, cbsdmq.Arg{Name: name, Value: value})
		}
		if word != "" {
			job.Meta = &cbsdmq.Meta{Words: []string{word}}
		}
		plan, err := p.Plan(job)
		if err != nil {
			if e, ok := err.(*cbsdmq.Error); !ok || e.Code != cbsdmq.CodeRefused || e.Field == "" || e.Hint == "" {
				t.Fatalf("not a refusal with a field and a hint: %#v", err)
			}
			return
		}
		if n := len(plan.Argv) - len(job.Args) - len(job.Words()); n != 1 {
			t.Fatalf("arguments were lost or added: %q", plan.Argv)
		}
		for i, a := range plan.Argv {
			checkArgument(t, plan, i, a)
		}
		if plan.Class == Change && len(plan.Lanes) == 0 {
			t.Fatalf("a change without a lane: %q", plan.Argv)
		}
	})
}

// checkArgument is a second opinion, by positions instead of by names.
func checkArgument(t *testing.T, plan Plan, i int, a string) {
	t.Helper()
	if !utf8.ValidString(a) || strings.ContainsAny(a, "$`\\\"~|'") || strings.ContainsFunc(a, unicode.IsControl) {
		t.Fatalf("argument %d of %q would be evaluated: %q", i, plan.Command, a)
	}
	name, value, isArg := strings.Cut(a, "=")
	switch {
	case i == 0:
		if strings.Trim(a, "abcdefghijklmnopqrstuvwxyz0123456789_-") != "" || a[0] == '-' {
			t.Fatalf("bad command %q", a)
		}
		return
	case isArg && strings.Trim(strings.ToLower(name), "abcdefghijklmnopqrstuvwxyz0123456789_-") != "" || name == "":
		t.Fatalf("bad name in argument %q", a)
	case !isArg && strings.ContainsAny(a, " ;&<>()'*?["):
		t.Fatalf("a word that is split or expanded: %q", a)
	case plan.Command == "qcreate" && strings.ContainsAny(value, ";&<>()"):
		t.Fatalf("qcreate would run it: %q", a)
	case name == "display" && strings.ContainsAny(value, " ;&<>()'*?[/.!#%^"):
		t.Fatalf("a column that is evaluated: %q", a)
	case (name == "jname" || name == "old" || name == "new") && strings.ContainsAny(value, " ;&<>()'*?[%,"):
		t.Fatalf("a guest that is more than one: %q", a)
	}
}

// The values that pass are given to a cbsd that evaluates them as the real one
// does: nothing may happen.
func TestNothingIsEvaluated(t *testing.T) {
	p := simPool(t)
	must(t, p, "bcreate", "jname=vm1", "vm_os_type=linux", "vm_os_profile=lab-tiny", "imgsize=10m", "vm_cpus=1", "vm_ram=64m")
	canary := filepath.Join(t.TempDir(), "canary")
	if err := (cbsdsim.Config{Evaluate: true, Canary: canary}).Write(p.cfg.Workdir); err != nil {
		t.Fatal(err)
	}

	// the oracle works: without the policy it does happen
	execute(t, p, Plan{Argv: []string{"bget", "jname=$(touch $CANARY)"}})
	if err := os.Remove(canary); err != nil {
		t.Fatal("the simulator does not evaluate: ", err)
	}

	ran := 0
	for _, value := range []string{
		"$(touch $CANARY)", "`touch $CANARY`", "\"; touch $CANARY; \"", `\"; touch $CANARY; \"`, "${x:=`touch $CANARY`}",
		"a\ntouch $CANARY\n", "x\"$(touch $CANARY)\"", "$((x=1))", "a\x00$(touch $CANARY)", "\xff$(touch $CANARY)",
		"'; touch canary; '", "; touch canary", "& touch canary &", "> canary", "$'\\n'touch canary",
		"it's", "two words", "a%b", "100%", "#5", "!history", "a{b,c}", "ключ", "日本語", "-A", "^caret", "a=b=c", "a@b:c/d,e+f.g",
	} {
		for _, arg := range []string{"tags", "cpuset", "jname", "vnc_password", "display", "bhyve_flags"} {
			command := "bset"
			if arg == "display" {
				command = "bls"
			}
			line := []string{command, "jname=vm1", arg + "=" + value}
			if arg == "jname" {
				line = []string{"bget", arg + "=" + value}
			}
			plan, err := p.Plan(parseJob(line...))
			if err != nil {
				continue
			}
			ran++
			execute(t, p, plan)
			if _, err := os.Stat(canary); err == nil {
				t.Fatalf("%q was evaluated", plan.Argv)
			}
			if entries, err := os.ReadDir(p.Dir()); err != nil || len(entries) > 0 {
				t.Fatalf("%q left %v in the working directory (%v)", plan.Argv, entries, err)
			}
		}
	}
	if ran < 20 {
		t.Errorf("only %d command lines were tried", ran)
	}
}
