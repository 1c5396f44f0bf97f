package clustertest

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/cbsd/cbsdmq/internal/testserver"
)

// TestDiskFull gives a server a new, small disk and fills it. The others go on,
// and when there is room the server has all again without anybody starting it.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	c, js, f := atWork(t)
	everywhere := func() error { return whole(t, js, queue, "cbsdmq_mail") }
	p := c.leader(t, js, queue)
	p.Kill(t)
	testserver.SmallDisk(t, p.Dir, "48m")
	p.Start(t)
	testserver.Eventually(t, patience, everywhere)
	ballast := filepath.Join(p.Dir, "ballast")
	testserver.FillDisk(t, ballast)
	testserver.Eventually(t, patience, func() error {
		if everywhere() == nil {
			return errors.New("the server with the full disk has all the same")
		}
		return nil
	})
	f.Goes(t, 50)
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	testserver.Eventually(t, patience, everywhere)
	f.Goes(t, 50)
	f.End(t)
}
