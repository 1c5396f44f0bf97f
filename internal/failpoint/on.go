//go:build failpoint

package failpoint

import (
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
)

var (
	point, times, _ = strings.Cut(os.Getenv(Variable), ":")
	left            atomic.Int64
)

func init() {
	n, err := strconv.ParseInt(times, 10, 64)
	if err != nil {
		n = 1
	}
	left.Store(n)
	os.Unsetenv(Variable) // not for the runner that an agent starts
}

// Hit marks the point name.
func Hit(name string) {
	at, crash := strings.CutSuffix(point, "!")
	if name != at || left.Add(-1) != 0 {
		return
	}
	if crash {
		go panic("failpoint " + name) // beyond any recover
		select {}
	}
	syscall.Kill(syscall.Getpid(), syscall.SIGKILL)
	select {} // until the signal arrives
}
