//go:build !freebsd

package cbsd

import "context"

// kernelJails lists the jails that run on this host: only FreeBSD has jails.
func kernelJails(context.Context) (map[string]int, error) { return nil, nil }

const canRunJails = false
