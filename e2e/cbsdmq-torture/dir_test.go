package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The programs of a run are in bin below its directory and removed with it at the
// end: a bin that is somebody's, as below /usr or a home, is not taken for that.
func TestForeignBinStays(t *testing.T) {
	for _, mode := range [][]string{nil, {"soak"}} {
		dir := t.TempDir()
		file := filepath.Join(dir, "bin", "mine")
		if err := os.Mkdir(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		var stderr bytes.Buffer
		status := run(t.Context(), append(mode, "-dir", dir, "-source", t.TempDir(), "-broker", "beanstalkd"), &bytes.Buffer{}, &stderr)
		if status != troubled || !strings.Contains(stderr.String(), "bin: file exists") {
			t.Errorf("exit status %d: %s", status, stderr.Bytes())
		}
		if left, _ := os.ReadDir(filepath.Dir(file)); len(left) != 1 {
			t.Errorf("bin has %v", left)
		}
	}
}
