// Package dist holds what is installed beside the program. The test loads the
// sample configurations and checks the scripts.
package dist

import (
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/cbsd/cbsdmq/config"
)

func TestSampleConfigurations(t *testing.T) {
	files, err := filepath.Glob("sample/*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("no samples: %v", err)
	}
	for _, file := range files {
		c, warnings, err := config.Load(file)
		if err != nil {
			t.Errorf("%s: %v", file, err)
			continue
		}
		if err := c.ValidateAgent(); err != nil {
			t.Errorf("%s: %v", file, err)
		}
		for _, w := range warnings {
			t.Errorf("%s", w)
		}
	}
}

func TestScriptsParse(t *testing.T) {
	for _, pattern := range []string{"rc.d/*", "*.sh", "samples/*/*", "../test.sh"} {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			t.Errorf("no files %s: %v", pattern, err)
		}
		for _, file := range files {
			if out, err := exec.CommandContext(t.Context(), "sh", "-n", file).CombinedOutput(); err != nil {
				t.Errorf("%s: %v\n%s", file, err, out)
			}
		}
	}
}
