package runner

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// benchDir is on a real disk: temporary directories may be in memory.
func benchDir(b *testing.B) string {
	dir, err := os.MkdirTemp("/var/tmp", "cbsdmq-bench-")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// BenchmarkStarts compares starts of /bin/true through the runner with bare
// fork, execve and wait of it by four workers, taken in turns.
func BenchmarkStarts(b *testing.B) {
	for _, inFlight := range []int{1, 4, 16, 64} {
		b.Run(fmt.Sprintf("inflight=%d", inFlight), func(b *testing.B) {
			s := &site{t: b, dir: filepath.Join(benchDir(b), "run")}
			b.Cleanup(s.cleanup)
			s.serve()
			a := s.agent("p1")
			var raw, through time.Duration
			var n uint64
			total := 0
			for b.Loop() {
				const round = 500
				total += round
				raw += rawStarts(b, round)
				through += a.starts(&n, round, inFlight)
			}
			b.ReportMetric(float64(total)/raw.Seconds(), "raw/s")
			b.ReportMetric(float64(total)/through.Seconds(), "runner/s")
			b.ReportMetric(raw.Seconds()/through.Seconds(), "share")
			b.ReportMetric(float64(s.rss())/1024, "rss-kb")
		})
	}
}

func rawStarts(b *testing.B, n int) time.Duration {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		b.Fatal(err)
	}
	defer null.Close()
	old := runtime.GOMAXPROCS(4 * runtime.NumCPU())
	defer runtime.GOMAXPROCS(old)
	begin := time.Now()
	var next atomic.Int64
	var workers sync.WaitGroup
	for range 4 {
		workers.Go(func() {
			for next.Add(1) <= int64(n) {
				pid, err := syscall.ForkExec("/bin/true", []string{"true"}, &syscall.ProcAttr{
					Dir:   "/",
					Env:   []string{"PATH=/usr/bin:/bin"},
					Files: []uintptr{null.Fd(), null.Fd(), null.Fd()},
				})
				if err != nil {
					b.Error(err)
					return
				}
				var status syscall.WaitStatus
				for _, err = syscall.Wait4(pid, &status, 0, nil); err == syscall.EINTR; {
					_, err = syscall.Wait4(pid, &status, 0, nil)
				}
			}
		})
	}
	workers.Wait()
	return time.Since(begin)
}

// starts runs /bin/true total times, with so many at once.
func (a *agent) starts(n *uint64, total, inFlight int) time.Duration {
	begin := time.Now()
	sent, running, done := 0, 0, 0
	var starts []Start
	var acks []Key
	for done < total {
		starts = starts[:0]
		for ; running < inFlight && sent < total; running++ {
			*n++
			sent++
			starts = append(starts, Start{Key: Key{"p1", 1, *n}, Job: "bench", Path: "/bin/true", Env: []string{"PATH=/usr/bin:/bin"}})
		}
		if len(starts) > 0 {
			a.run(starts...)
		}
		events, err := a.Next(a.t.Context())
		if err != nil {
			a.t.Fatal(err)
		}
		acks = acks[:0]
		for _, e := range events {
			switch e.Kind {
			case Exited:
				acks = append(acks, e.Key)
				running--
				done++
			case Started:
			default:
				a.t.Fatalf("%v: %s", e.Kind, e.Reason)
			}
		}
		if len(acks) > 0 {
			a.ack(acks...)
		}
	}
	return time.Since(begin)
}

// rss returns the runner's resident memory in bytes.
func (s *site) rss() int64 {
	var size, resident int64
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", s.cmd.Process.Pid))
	if err != nil {
		s.t.Skip("no /proc to read the memory of a process from")
	}
	if _, err := fmt.Sscan(string(b), &size, &resident); err != nil {
		s.t.Fatal(err)
	}
	return resident * int64(os.Getpagesize())
}
