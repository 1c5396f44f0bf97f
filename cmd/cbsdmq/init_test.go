package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cbsd/cbsdmq"
)

// An environment that is whole is said to be, though the host was changed.
func TestInitSaysWhatChanged(t *testing.T) {
	root := t.TempDir()
	dir := filepath.Join(root, "pool1")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(self, filepath.Join(root, "initenv")); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(root, "etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir+".initenv.json", []byte(`{"touch": "`+filepath.Join(root, "etc/sysctl.conf")+`"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	var out, errs bytes.Buffer
	g := &globals{stdout: &out, stderr: &errs, format: "text", pools: filepath.Join(root, "pools")}
	o := initFlags{limit: timeFlag(time.Minute), quiet: true}
	o.Root, o.Initenv = root, filepath.Join(root, "initenv")
	err = g.initPool(t.Context(), o, "pool1", dir)
	if cbsdmq.ExitStatus(err) != cbsdmq.ExitFailure || !strings.Contains(err.Error(), "whole and can be used") {
		t.Errorf("got %v", err)
	}
	if !strings.Contains(errs.String(), "\ncbsdmq:   /etc/sysctl.conf: a new file\nhint: ") || !strings.Contains(out.String(), "/pool1: made, ") {
		t.Errorf("got %q, and %q", &errs, &out)
	}
}
