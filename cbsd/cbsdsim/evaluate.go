package cbsdsim

import (
	_ "embed"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
)

// ShellModel is a shell function that does with the arguments of a command what
// CBSD's own shell does: cbsd_arguments WRAPPED KNOWN [ARGUMENT ...] evaluates
// them and prints "arg NAME=VALUE" whenever a name of the list KNOWN gets a
// value and "word WORD" for each other word, in their order. WRAPPED is 1 for the commands that
// CBSD runs through its sudoexec wrapper, which reads its arguments twice.
//
//go:embed evaluate.sh
var ShellModel string

// Wrapped reports whether CBSD runs the command through that wrapper.
func Wrapped(command string) bool {
	return slices.Contains(strings.Fields("bcreate bdestroy bexec bregister bremove bstart bstop bunregister jcreate jdestroy jexec jlogin "+
		"jregister jremove jstart jstop junregister qcreate qdestroy qexec qremove qstart qstop vremove xcreate xdestroy xregister "+
		"xremove xstart xstop xunregister"), command)
}

// evaluate reads args as the real program does, by a shell that evaluates them,
// in an empty directory and with nothing in its environment but CANARY.
func (c *call) evaluate(known, args []string) (arguments, error) {
	a := arguments{values: map[string]string{}}
	dir, err := os.MkdirTemp("", "cbsdsim-eval-")
	if err != nil {
		return a, fmt.Errorf("evaluating arguments: %w", err)
	}
	defer os.RemoveAll(dir)
	wrapped := "0"
	if Wrapped(c.name) {
		wrapped = "1"
	}
	sh := exec.Command("/bin/sh", append([]string{"-c", ShellModel + `cbsd_arguments "$@"`, "cbsd", wrapped, strings.Join(known, " ")}, args...)...)
	sh.Dir = dir
	sh.Env = []string{"CANARY=" + c.conf.canary(c.wd)}
	sh.Stderr = c.errw
	out, err := sh.Output()
	if err != nil { // a syntax error ends the real script as well
		return a, exitCode(2)
	}
	for line := range strings.Lines(string(out)) {
		kind, text, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		name, _, _ := strings.Cut(text, "=")
		switch {
		case kind == "arg" && slices.Contains(a.keys, name): // it goes on in another word
			a.raw = slices.DeleteFunc(a.raw, func(r string) bool { return strings.HasPrefix(r, name+"=") })
			fallthrough
		case kind == "arg", kind == "word":
			a.add(text)
		}
	}
	return a, nil
}
