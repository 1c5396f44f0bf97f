package testserver

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// PyZMQ returns what makes commands of a Python that has libzmq's binding: the
// system's, or what test.sh fetched. It skips the test where there is none.
func PyZMQ(t testing.TB) func(args ...string) *exec.Cmd {
	t.Helper()
	root := repository()
	libs, _ := filepath.Glob(filepath.Join(root, ".cache/servers/usr/lib/*/libzmq.so.5"))
	envs := [][]string{nil}
	if len(libs) > 0 {
		envs = append(envs, []string{
			"LD_LIBRARY_PATH=" + filepath.Dir(libs[0]),
			"PYTHONPATH=" + filepath.Join(root, ".cache/servers/usr/lib/python3/dist-packages"),
		})
	}
	for _, python := range []string{"/usr/bin/python3", "python3"} {
		for _, env := range envs {
			command := func(args ...string) *exec.Cmd {
				cmd := exec.Command(python, args...)
				cmd.Env = append(os.Environ(), env...)
				return cmd
			}
			if command("-c", "import zmq").Run() == nil {
				return command
			}
		}
	}
	Missing(t, "python3 with pyzmq", "apt-get install python3-zmq (Debian), pkg install py311-pyzmq (FreeBSD)")
	return nil
}

// repository is the directory of go.mod, above that of the test.
func repository() string {
	dir, _ := os.Getwd()
	for dir != "/" {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		dir = filepath.Dir(dir)
	}
	return dir
}
