package runner

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// An inspection is what a command finds of its own process.
type inspection struct {
	Descriptors []int
	Files       []string // names of descriptors 0, 1 and 2
	Append      bool     // 1 and 2 are O_APPEND
	Args        []string
	Env         []string
	Dir         string
	Leader      bool // of its session and its process group
	Terminal    bool
	Umask       int
	Nice        int
	Signals     map[string]string // masks of /proc/self/status, Linux only
}

func actInspector() int {
	var in inspection
	for fd := range 256 {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err == nil && !ownedByRuntime(fd) {
			in.Descriptors = append(in.Descriptors, fd)
		}
	}
	in.Append = true
	for fd := range 3 {
		name, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
		if err == nil {
			in.Files = append(in.Files, name)
		}
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
		in.Append = in.Append && err == nil && (fd == 0 || flags&unix.O_APPEND != 0)
	}
	in.Args, in.Env = os.Args, os.Environ()
	in.Dir, _ = os.Getwd()
	sid, _ := unix.Getsid(0)
	in.Leader = sid == os.Getpid() && syscall.Getpgrp() == os.Getpid()
	if f, err := os.Open("/dev/tty"); err == nil {
		f.Close()
		in.Terminal = true
	}
	in.Umask = syscall.Umask(0)
	in.Nice, _ = syscall.Getpriority(syscall.PRIO_PROCESS, 0)
	in.Signals = make(map[string]string)
	status, _ := os.ReadFile("/proc/self/status")
	for line := range strings.Lines(string(status)) {
		if name, mask, ok := strings.Cut(line, ":"); ok && (name == "SigBlk" || name == "SigIgn") {
			in.Signals[name] = strings.TrimSpace(mask)
		}
	}
	if err := json.NewEncoder(os.Stdout).Encode(in); err != nil {
		return 1
	}
	return 0
}

// ownedByRuntime reports whether fd was opened by the Go runtime of this
// process: those are closed on execve, so they cannot have been inherited.
func ownedByRuntime(fd int) bool {
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
	return err == nil && flags&unix.FD_CLOEXEC != 0
}

// The runner is started the worst way: signals ignored, a low limit, an unusual
// umask, a descriptor left open. Commands see nothing of it but the limit, which
// is the operator's, and its niceness.
func TestCommandSees(t *testing.T) {
	s := newSite(t, "/bin/sh", "-c",
		`trap '' HUP INT QUIT USR1 PIPE TERM CHLD TSTP TTIN TTOU CONT; ulimit -Sn 200; umask 077; exec 7</dev/null; exec nice -n 3 "$@"`, "sh")
	nice, err := syscall.Getpriority(syscall.PRIO_PROCESS, 0) // the test's, as getpriority(2) returns it
	if err != nil {
		t.Fatal(err)
	}
	a := s.agent("p1")
	dir := t.TempDir()
	st := Start{
		Key: Key{"p1", 1, 1}, Job: s.job(1), Path: os.Args[0], Args: []string{"a b", "", "$HOME"},
		Env: []string{actAs + "=inspector", JobVariable + "=another", "X=1 2"}, Dir: dir,
	}
	a.run(st)
	e := a.until(st.Key, Exited)
	if e.Status != 0 {
		t.Fatalf("exit status %d: %s", e.Status, content(t, e.Err))
	}
	var got inspection
	if err := json.Unmarshal([]byte(content(t, e.Out)), &got); err != nil {
		t.Fatal(err)
	}
	slices.Sort(got.Env)
	want := inspection{
		Descriptors: []int{0, 1, 2},
		Files:       []string{"/dev/null", e.Out.Path, e.Err.Path},
		Append:      true,
		Args:        []string{os.Args[0], "a b", "", "$HOME"},
		Env:         []string{JobVariable + "=" + st.Job, actAs + "=inspector", "X=1 2"},
		Dir:         dir,
		Leader:      true,
		Umask:       0o022,
		Nice:        nice - 3, // on Linux it returns the less the nicer it is
		Signals:     map[string]string{"SigBlk": "0000000000000000", "SigIgn": "0000000000000000"},
	}
	slices.Sort(want.Env)
	if _, err := os.Stat("/proc/self/status"); err != nil {
		want.Files, want.Signals, want.Nice = nil, map[string]string{}, nice+3
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the command sees (-want +got):\n%s", diff)
	}

	// Go programs raise this limit for themselves when they start: a runner must
	// not hand that on, and the inspector cannot tell.
	limit := s.shell("p1", 2, "ulimit -Sn; ulimit -f")
	a.run(limit)
	if out := content(t, a.until(limit.Key, Exited).Out); out != "200\nunlimited\n" {
		t.Errorf("limits of descriptors and file size are %q", out)
	}
}
