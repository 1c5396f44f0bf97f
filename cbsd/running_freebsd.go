package cbsd

import (
	"context"
	"fmt"
	"os/exec"
)

// kernelJails lists the jails that run on this host, by name.
func kernelJails(ctx context.Context) (map[string]int, error) {
	ctx, cancel := context.WithTimeout(ctx, toolWait)
	defer cancel()
	out, err := exec.CommandContext(ctx, "/usr/sbin/jls", "jid", "name").Output()
	if err != nil {
		return nil, fmt.Errorf("listing jails: %w", err)
	}
	return parseJails(string(out)), nil
}

const canRunJails = true
