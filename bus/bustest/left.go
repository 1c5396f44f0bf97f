package bustest

import (
	"fmt"
	"net"
	"os"
	"runtime"
	"strings"
	"testing"

	"github.com/cbsd/cbsdmq/internal/testserver"
)

// leavesNothing checks, after the cleanups that are registered from now on, that
// no goroutine and no connection is left which was not there before.
func leavesNothing(t *testing.T, s Server) {
	before, connected := goroutines(s.Library), connections(s.Addr)
	t.Cleanup(func() {
		testserver.Eventually(t, limit, func() error {
			for id, stack := range goroutines(s.Library) {
				if _, ok := before[id]; !ok {
					return fmt.Errorf("left behind:\n%s", stack)
				}
			}
			if now := connections(s.Addr); now > connected {
				return fmt.Errorf("%d connections to the server are left, %d were there before", now, connected)
			}
			return nil
		})
	})
}

// goroutines returns the stacks of the goroutines that a bus, its driver or the
// driver's library runs, by number.
func goroutines(library string) map[string]string {
	buf := make([]byte, 1<<20)
	buf = buf[:runtime.Stack(buf, true)]
	found := map[string]string{}
	for stack := range strings.SplitSeq(string(buf), "\n\n") {
		ours := strings.Contains(stack, "/cbsdmq/bus") || library != "" && strings.Contains(stack, library)
		if ours && !strings.Contains(stack, "testing.tRunner") {
			id, _, _ := strings.Cut(stack, " [")
			found[id] = stack
		}
	}
	return found
}

// connections counts those to addr that are open, also if only on our side, by
// Linux's /proc; elsewhere there are none.
func connections(addr string) (n int) {
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return 0
	}
	var number int
	if _, err := fmt.Sscan(port, &number); err != nil {
		return 0
	}
	const established, closeWait = "01", "08"
	for _, file := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		text, _ := os.ReadFile(file)
		for line := range strings.Lines(string(text)) {
			f := strings.Fields(line)
			if len(f) > 3 && strings.HasSuffix(f[2], fmt.Sprintf(":%04X", number)) && (f[3] == established || f[3] == closeWait) {
				n++
			}
		}
	}
	return n
}
