package testserver

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"syscall"
	"testing"
)

// Ports for servers. Linux gives those above to outgoing connections: one of
// them, free now, may be taken before the server has it, or while it is down.
//
// Nothing listens on a port that was given out for as long as its server takes to
// start, or is down, and a test program that runs beside this one would find it
// free. So each takes ports from blocks of its own. It listens on the first port of
// a block for as long as it runs: that is how others know that the block is taken.
const (
	firstPort = 10240
	block     = 256
	blocks    = 88 // up to 32767
)

var ports struct {
	sync.Mutex
	next, end int            // of the present block
	held      []net.Listener // first ports of blocks
}

// FreeAddr returns a loopback address on which nothing listens, never the same
// one twice, nor one that another program has from here while it runs.
func FreeAddr(t testing.TB) string {
	t.Helper()
	// A process that is forked now would keep the port taken until it executes
	// its program.
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	ports.Lock()
	defer ports.Unlock()
	for {
		if ports.next == ports.end {
			if err := takeBlock(); err != nil {
				t.Fatalf("looking for free ports: %v", err)
			}
		}
		addr := loopback(ports.next)
		ports.next++
		ln, err := net.Listen("tcp", addr)
		if errors.Is(err, syscall.EADDRINUSE) {
			continue
		}
		if err != nil {
			t.Fatalf("looking for a free port: %v", err)
		}
		ln.Close()
		return addr
	}
}

// takeBlock makes a block the present one that no program has taken.
func takeBlock() (err error) {
	for _, i := range rand.Perm(blocks) {
		first := firstPort + i*block
		var ln net.Listener
		if ln, err = net.Listen("tcp", loopback(first)); err == nil {
			ports.held = append(ports.held, ln)
			ports.next, ports.end = first+1, first+block
			return nil
		}
	}
	return fmt.Errorf("all %d blocks of them are taken: %w", blocks, err)
}

func loopback(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }
