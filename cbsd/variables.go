package cbsd

import (
	"io"
	"os"
	"path/filepath"
	"regexp"
)

// Bounds of reading CBSD's scripts for the variables in them. CBSD 14.1 has
// 650 scripts, 5 MB, 2,900 variables.
const (
	scriptsRead   = 4096
	scriptMax     = 1 << 20
	variablesKept = 64 << 10
)

var variable = regexp.MustCompile(`\$\{?#?([A-Za-z_][A-Za-z0-9_]*)`)

// uses reports whether a script of this host's CBSD reads a variable of that
// name. It reads the scripts once per version of the program.
func (h *host) uses(name string) bool {
	id := identify(h.cbsd)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.variables == nil || h.scripts != id {
		h.variables, h.scripts = readVariables(h.dist), id
	}
	return h.variables[name]
}

// readVariables collects the names of the variables that the scripts below dist
// read. What cannot be read is left out: isInternal is asked as well.
func readVariables(dist string) map[string]bool {
	names := make(map[string]bool)
	left := scriptsRead
	for _, pattern := range []string{"*.conf", "subr/*", "sudoexec/*", "*ctl/*", "tools/*", "share/*.sh", "misc/cbsdsysrc", "modules/*.d/*"} {
		files, _ := filepath.Glob(filepath.Join(dist, pattern)) // the pattern is a good one
		for _, file := range files {
			if left--; left < 0 || len(names) >= variablesKept {
				return names
			}
			for _, m := range variable.FindAllSubmatch(readScript(file), -1) {
				names[string(m[1])] = true
			}
		}
	}
	return names
}

// readScript returns the beginning of a text file, and nothing of any other.
func readScript(file string) []byte {
	info, err := os.Stat(file)
	if err != nil || !info.Mode().IsRegular() {
		return nil
	}
	f, err := os.Open(file)
	if err != nil {
		return nil
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, scriptMax))
	if err != nil || len(text) > 0 && text[0] == 0x7f { // a program
		return nil
	}
	return text
}
