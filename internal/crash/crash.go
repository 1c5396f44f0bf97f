// Package crash tells the next process on which job this one crashed: on a
// panic that nobody recovers, or a fatal error of the Go runtime. A process that
// is killed from outside leaves no report; that says nothing about its job.
//
// It costs nothing until it happens. The runtime writes its report, with the
// labels of the goroutine that crashed, into a file of this process as well.
package crash

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"runtime/pprof"
	"strconv"
	"strings"
	"syscall"
)

const (
	label      = "cbsdmq job"
	prefix     = "crash-"
	running    = ".running" // prefix PID running: the report of a process, empty while it is well
	reported   = ".txt"     // a report that was read; kept for people
	keep       = 3          // of them
	reportHead = 64 << 10   // of a report is read
)

// Go runs f in a goroutine of its own for the job. If it crashes the process,
// the report names the job.
func Go(job string, f func()) {
	go func() {
		// Not pprof.Do: on a panic it takes the label off before the report.
		pprof.SetGoroutineLabels(pprof.WithLabels(context.Background(), pprof.Labels(label, job)))
		f()
	}()
}

// Watch makes a crash of this process leave a report in dir. stop takes that
// back.
func Watch(dir string) (stop func(), err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("crash reports: %w", err)
	}
	name := filepath.Join(dir, prefix+strconv.Itoa(os.Getpid())+running)
	// What an earlier process of this number left is a report of its own.
	if _, err := retire(dir, filepath.Base(name), func(string) bool { return true }); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(name, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("crash reports: %w", err)
	}
	defer f.Close()
	// The runtime looks at this variable again when it is set.
	os.Setenv("GODEBUG", strings.TrimPrefix(os.Getenv("GODEBUG")+",tracebacklabels=1", ","))
	if err := debug.SetCrashOutput(f, debug.CrashOptions{}); err != nil {
		return nil, fmt.Errorf("crash reports: %w", err)
	}
	return func() {
		_ = debug.SetCrashOutput(nil, debug.CrashOptions{})
		_ = os.Remove(name)
	}, nil
}

// A Report is what a process left that crashed.
type Report struct {
	File string // where it is kept
	Job  string // the job it crashed on; "" = none that is known
}

// Reports returns those in dir that were not returned before, and settles them.
// Those of processes that run are left alone, and those about a job that is not
// mine: they are for the process that takes it up.
func Reports(dir string, mine func(job string) bool) ([]Report, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("crash reports: %w", err)
	}
	var found []Report
	for _, e := range entries {
		pid, ok := owner(e.Name())
		if !ok || pid == os.Getpid() || alive(pid) {
			continue
		}
		r, err := retire(dir, e.Name(), mine)
		if err != nil {
			return found, err
		}
		if r != nil {
			found = append(found, *r)
		}
	}
	return found, prune(dir)
}

func owner(name string) (pid int, ok bool) {
	text, isCrash := strings.CutPrefix(name, prefix)
	text, isRunning := strings.CutSuffix(text, running)
	pid, err := strconv.Atoi(text)
	return pid, isCrash && isRunning && err == nil && pid > 0
}

func alive(pid int) bool {
	err := syscall.Kill(pid, 0)
	return err == nil || errors.Is(err, syscall.EPERM)
}

// retire keeps a report under another name, or removes one that is empty. One
// about a job that is not mine stays as it is.
func retire(dir, name string, mine func(job string) bool) (*Report, error) {
	path := filepath.Join(dir, name)
	text, at, err := read(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("crash reports: %w", err)
	case len(text) == 0:
		return nil, os.Remove(path)
	}
	job := jobOf(text)
	if job != "" && !mine(job) {
		return nil, nil
	}
	kept := filepath.Join(dir, fmt.Sprintf("%s%s%s", prefix, at, reported))
	if err := os.Rename(path, kept); err != nil {
		return nil, fmt.Errorf("crash reports: %w", err)
	}
	return &Report{File: kept, Job: job}, nil
}

func read(path string) (text []byte, at string, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, "", err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, "", err
	}
	text, err = io.ReadAll(io.LimitReader(f, reportHead))
	return text, info.ModTime().UTC().Format("20060102T150405.000000"), err
}

var labelled = regexp.MustCompile(`labels:\{.*"` + label + `": "([^"\\]*)"`)

// jobOf reads the label of the first goroutine in a report: the one that
// crashed.
func jobOf(report []byte) string {
	for line := range bytes.Lines(report) {
		if !bytes.HasPrefix(line, []byte("goroutine ")) {
			continue
		}
		if m := labelled.FindSubmatch(line); m != nil {
			return string(m[1])
		}
		return ""
	}
	return ""
}

// prune removes all but the newest reports that are kept for people.
func prune(dir string) error {
	names, err := filepath.Glob(filepath.Join(dir, prefix+"*"+reported))
	if err != nil {
		return err
	}
	for _, name := range names[:max(0, len(names)-keep)] { // sorted, and named after their time
		if err := os.Remove(name); err != nil {
			return fmt.Errorf("crash reports: %w", err)
		}
	}
	return nil
}
