package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cbsd/cbsdmq/internal/testserver"
)

func pages(t *testing.T) map[string][]byte {
	t.Helper()
	g := &globals{stdout: new(bytes.Buffer), stderr: new(bytes.Buffer)}
	pages, err := manPages(newRootCommand(g), time.Date(2026, 11, 27, 0, 0, 0, 0, time.UTC))
	if err != nil {
		t.Fatal(err)
	}
	return pages
}

func TestManPages(t *testing.T) {
	all := pages(t)
	for name, want := range map[string]string{
		"cbsdmq.1":      ".It run ",
		"cbsdmq-run.1":  "\\-\\-accept\\-timeout time\n",
		"cbsdmq.json.5": ".It kill_grace : \"30s\"\nHow long a command has between SIGTERM and SIGKILL.\n",
	} {
		if !strings.Contains(string(all[name]), want) {
			t.Errorf("%s has no %q", name, want)
		}
	}
	if strings.Contains(string(all["cbsdmq-run.1"]), who()) {
		t.Error("cbsdmq-run.1 names who made it")
	}
	mandoc := testserver.Require(t, "mandoc", "apt-get install mandoc (Debian); FreeBSD has it")
	dir := t.TempDir()
	for name, text := range all {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	files, _ := filepath.Glob(dir + "/*")
	out, _ := exec.CommandContext(t.Context(), mandoc, append([]string{"-T", "lint", "-W", "warning"}, files...)...).CombinedOutput()
	for line := range strings.Lines(string(out)) {
		if !strings.Contains(line, "new sentence, new line") { // of how it is written, not of how it reads
			t.Error(strings.TrimPrefix(line, "mandoc: "+dir))
		}
	}
}
