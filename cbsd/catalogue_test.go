package cbsd

import (
	"encoding/csv"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/cbsd/cbsdmq/cbsd/cbsdsim"
)

func TestCatalogue(t *testing.T) {
	words := regexp.MustCompile(`^([A-Za-z_][A-Za-z0-9_]*( [A-Za-z_][A-Za-z0-9_]*)*)?$`)
	for name, cmd := range catalogue() {
		if name != cmd.name || !verbName.MatchString(name) {
			t.Errorf("%s: bad name %q", name, cmd.name)
		}
		for _, list := range []string{cmd.args, cmd.sets, cmd.guests, cmd.reads, cmd.files} {
			if !words.MatchString(list) {
				t.Errorf("%s: bad list %q", name, list)
			}
		}
		for guest := range strings.FieldsSeq(cmd.guests) {
			if !cmd.knows(guest) {
				t.Errorf("%s: guest argument %s is unknown", name, guest)
			}
		}
		for file := range strings.FieldsSeq(cmd.files) {
			if !cmd.knows(file) {
				t.Errorf("%s: file argument %s is unknown", name, file)
			}
		}
		if cmd.path != "" && (cmd.namesGuest(cmd.path) || !cmd.knows(cmd.path)) {
			t.Errorf("%s: path argument %s", name, cmd.path)
		}
		if cmd.reads != "" && (cmd.does != changes && cmd.does != runs || !cmd.knows("mode")) {
			t.Errorf("%s: modes that read in a command without modes", name)
		}
		if strings.HasSuffix(name, "-tui") && cmd.does != terminal {
			t.Errorf("%s needs no terminal", name)
		}
	}
	n := len(jailCommands()) + len(vmCommands()) + len(nodeCommands()) + len(systemCommands()) + len(ownCommands())
	if n != len(catalogue()) {
		t.Errorf("%d lines, %d names: a name comes twice", n, len(catalogue()))
	}
}

// Every command of the recorded list, and each argument that its source spells
// out, is in the catalogue.
func TestCatalogueHasRecordedCommands(t *testing.T) {
	f, err := os.Open(filepath.Join("..", "..", "shared", "cbsd", "commands.tsv"))
	if err != nil {
		t.Skip("NOT COMPARED with CBSD's commands: ", err)
	}
	defer f.Close()
	r := csv.NewReader(f)
	r.Comma, r.LazyQuotes = '\t', true
	lines, err := r.ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	if len(lines) < 300 {
		t.Fatalf("only %d lines", len(lines))
	}
	for _, line := range lines[1:] {
		name, args := line[0], line[3]+" "+line[4]
		cmd, ok := catalogue()[name]
		if !ok {
			t.Errorf("no command %s", name)
			continue
		}
		for arg := range strings.FieldsSeq(args) {
			if argName.MatchString(arg) && !cmd.knows(arg) && cmd.does != terminal {
				t.Errorf("%s: no argument %s", name, arg)
			}
		}
	}
}

// What the simulator does is in the catalogue, and reads or changes alike.
func TestCatalogueHasSimulatedCommands(t *testing.T) {
	p := simPool(t)
	for _, name := range cbsdsim.Commands() {
		cmd, ok := catalogue()[name]
		switch {
		case !ok:
			t.Errorf("no command %s", name)
		case cmd.mute || cmd.does == terminal:
		default:
			exit, out := execute(t, p, Plan{Command: name, Argv: []string{name, "--args"}})
			if exit.Code != 0 {
				t.Errorf("%s --args: exit status %d", name, exit.Code)
			}
			for arg := range parseArgs(out) {
				if !cmd.knows(arg) {
					t.Errorf("%s: no argument %s", name, arg)
				}
			}
		}
	}
}

// The names that --args prints on a host with a real CBSD are in the catalogue.
func TestCatalogueHasHostArguments(t *testing.T) {
	workdir := os.Getenv("CBSDMQ_WORKDIR")
	if workdir == "" {
		t.Skip("NOT COMPARED with a real CBSD: set CBSDMQ_WORKDIR to a workdir of it")
	}
	p, err := Open(t.Context(), Config{Workdir: workdir, RunDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	asked := 0
	for name, cmd := range catalogue() {
		if cmd.mute || cmd.does == terminal || cmd.does == runs || p.host.find(name) == "" {
			continue
		}
		names := p.host.ask(name)
		if len(names) > 0 {
			asked++
		}
		for arg := range names {
			if !cmd.knows(arg) {
				t.Errorf("%s: no argument %s", name, arg)
			}
		}
	}
	if asked < 100 {
		t.Errorf("only %d commands answered", asked)
	}
}
