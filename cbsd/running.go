package cbsd

import (
	"context"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// toolWait bounds the system's own programs.
const toolWait = 5 * time.Second

// isStopped reports whether the process pid is stopped (SIGSTOP), which is how
// CBSD pauses a guest: state T of ps(1) on every system.
func isStopped(ctx context.Context, pid int) bool {
	ctx, cancel := context.WithTimeout(ctx, toolWait)
	defer cancel()
	out, err := exec.CommandContext(ctx, "ps", "-o", "state=", "-p", strconv.Itoa(pid)).Output()
	return err == nil && strings.HasPrefix(strings.TrimSpace(string(out)), "T")
}

// parseJails reads the output of "jls jid name".
func parseJails(out string) map[string]int {
	m := make(map[string]int)
	for line := range strings.Lines(out) {
		f := strings.Fields(line)
		if len(f) != 2 {
			continue
		}
		if jid, err := strconv.Atoi(f[0]); err == nil {
			m[f[1]] = jid
		}
	}
	return m
}
