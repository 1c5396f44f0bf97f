package testserver

import (
	"os"
	"path/filepath"
	"strings"
)

// RCScript puts the rc script dist/rc.d/NAME below root, as if that were /, with
// the stand-ins of dist/testdata for rc.subr and daemon(8), and returns where it
// is. The caller puts usr/local/bin/cbsdmq there.
func RCScript(dist, root, name string) (script string, err error) {
	script = filepath.Join(root, "usr/local/etc/rc.d", name)
	for from, to := range map[string]string{
		"testdata/rc.subr": filepath.Join(root, "etc/rc.subr"),
		"testdata/daemon":  filepath.Join(root, "usr/sbin/daemon"),
		"rc.d/" + name:     script,

		"libexec/reopen-logs": filepath.Join(root, "usr/local/libexec/cbsdmq/reopen-logs"),
	} {
		text, err := os.ReadFile(filepath.Join(dist, from))
		if err != nil {
			return "", err
		}
		out := "ROOT=" + root + "\n" + string(text)
		if to != filepath.Join(root, "etc/rc.subr") {
			out = Relocate(root, string(text))
		}
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return "", err
		}
		if err := WriteScript(to, out); err != nil {
			return "", err
		}
	}
	for _, dir := range []string{"usr/local/bin", "var/run", "var/log"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			return "", err
		}
	}
	return script, nil
}

// Relocate has a script look below root, as if that were /.
func Relocate(root, text string) string {
	return strings.NewReplacer("/usr/local", root+"/usr/local", "/usr/sbin/daemon", root+"/usr/sbin/daemon",
		"/var/", root+"/var/", "/etc/rc.subr", root+"/etc/rc.subr").Replace(text)
}
