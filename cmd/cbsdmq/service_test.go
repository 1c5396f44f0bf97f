package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/cbsd/cbsdmq/internal/testserver"
)

// service runs a script of dist/rc.d as service(8) does, below the site's
// directory, with stand-ins for rc.subr and daemon(8). Its stdout and stderr are
// those of the transcript.
func (s *site) service(ts *testscript.TestScript, args []string) error {
	status, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	script, err := s.installService(args[1])
	if err != nil {
		return err
	}
	return s.status(ts, append([]string{strconv.Itoa(status), "sh", script}, args[2:]...))
}

// installService puts one of the scripts, and what it needs, in its place.
func (s *site) installService(name string) (script string, err error) {
	root := s.path("root")
	if script, err = testserver.RCScript("../../dist", root, name); err != nil {
		return "", err
	}
	links := map[string]string{filepath.Join(root, "usr/local/etc/cbsdmq"): s.path(etc)}
	if !s.packed {
		exe, err := exec.LookPath("cbsdmq")
		if err != nil {
			return "", err
		}
		links[filepath.Join(root, "usr/local/bin/cbsdmq")] = exe
	}
	for link, to := range links {
		if err := os.Symlink(to, link); err != nil && !errors.Is(err, fs.ErrExist) {
			return "", err
		}
	}
	return script, nil
}

// endServices ends what the services have started, by the pids they wrote down:
// the supervisors first, which would start the others again.
func (s *site) endServices() {
	var pids []string
	for _, pattern := range []string{"cbsdmq/*.daemon.pid", "cbsdmq_*.pid", "cbsdmq/*.pid"} {
		files, _ := filepath.Glob(s.path("root/var/run", pattern))
		for _, file := range files {
			text, _ := os.ReadFile(file)
			pids = append(pids, strings.TrimSpace(string(text)))
		}
	}
	for _, text := range pids {
		if pid, err := strconv.Atoi(text); err == nil && pid > 1 {
			// A group of its own each: with setsid, the supervisor and its command.
			_ = syscall.Kill(-pid, syscall.SIGKILL)
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
	if s.t.Failed() {
		logs, _ := filepath.Glob(s.path("root/var/log/cbsdmq/*"))
		for _, log := range logs {
			text, _ := os.ReadFile(log)
			s.t.Logf("%s:\n%s", filepath.Base(log), text)
		}
	}
}

// rcConf appends lines to rc.conf.
func (s *site) rcConf(_ *testscript.TestScript, args []string) error {
	if err := os.MkdirAll(s.path("root/etc"), 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(s.path("root/etc/rc.conf"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	for _, arg := range args {
		name, value, _ := strings.Cut(arg, "=")
		if _, err := fmt.Fprintf(f, "%s=%q\n", name, value); err != nil {
			return err
		}
	}
	return nil
}
