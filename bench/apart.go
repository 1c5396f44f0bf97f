package main

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"syscall"

	"github.com/cbsd/cbsdmq/internal/testserver"
)

// toBeApart reports whether servers get processors of their own. Where one of the
// brokers has no server, none does.
func (o options) toBeApart() bool {
	found, err := testserver.FindBrokers(o.brokers)
	return err == nil && !o.shared && o.apart == "" && runtime.NumCPU() > 1 &&
		!slices.ContainsFunc(found, func(k testserver.Broker) bool { return k.Start == nil })
}

// apart is bench again on the first half of the processors, which starts servers
// on the other half. A broker has a machine of its own as a rule, and how much of
// the machine that jobs run on is left by a server says nothing of cbsdmq. It
// returns only where that is not possible.
func apart(args []string) error {
	n := runtime.NumCPU()
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	command := append(onProcessors(processors(0, n/2)), exe, "-apart", processors(n/2, n))
	path, err := exec.LookPath(command[0])
	if err != nil {
		return fmt.Errorf("giving the servers processors of their own (-shared does not): %w", err)
	}
	return syscall.Exec(path, append(command, args...), os.Environ())
}

// processors are those from first to before end, as taskset and cpuset take them.
func processors(first, end int) string { return fmt.Sprintf("%d-%d", first, end-1) }

// onProcessors is the command that runs another one on some processors only.
func onProcessors(list string) []string {
	if runtime.GOOS == "freebsd" {
		return []string{"cpuset", "-l", list}
	}
	return []string{"taskset", "-c", list}
}
