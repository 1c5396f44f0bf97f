package runner

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cbsd/cbsdmq"
)

// CheckDir says what makeDir would, and makes nothing.
func TestCheckDir(t *testing.T) {
	dir := t.TempDir()
	file, open, there := filepath.Join(dir, "file"), filepath.Join(dir, "open"), filepath.Join(dir, "there")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{open, there} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(open, 0o777); err != nil {
		t.Fatal(err)
	}
	for path, says := range map[string]string{
		there:                            "",
		filepath.Join(dir, "new", "run"): "",
		file:                             "not a directory",
		filepath.Join(file, "run"):       "not a directory",
		open:                             "others may write",
		filepath.Join(dir, strings.Repeat("d", 100)): "more than 103",
	} {
		for i, check := range []func(string) error{CheckDir, makeDir} {
			name := []string{"CheckDir", "makeDir"}[i]
			err := check(path)
			if _, made := os.Stat(path); i == 0 && made == nil && strings.HasSuffix(path, "new/run") {
				t.Fatal("CheckDir makes it")
			}
			if says == "" && err == nil {
				continue
			}
			if says == "" || err == nil || !strings.Contains(err.Error(), says) || !strings.Contains(err.Error(), "run_dir: ") || cbsdmq.HintOf(err) == "" {
				t.Errorf("%s of %s: got %v (%s), want %q", name, path, err, cbsdmq.HintOf(err), says)
			}
		}
	}
}
