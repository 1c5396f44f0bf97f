package journal

import (
	"bytes"
	"fmt"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/cbsd/cbsdmq"
)

// BenchmarkJobs measures whole jobs (accepted as begun, finished, replied: three
// writes) with so many of them in each commit, on a real disk. cpu-us/job is
// the process's own, user and system.
func BenchmarkJobs(b *testing.B) {
	for _, n := range []int{1, 16, 64} {
		b.Run(fmt.Sprintf("batch=%d", n), func(b *testing.B) { benchJobs(b, n) })
	}
}

func benchJobs(b *testing.B, size int) {
	dir, err := os.MkdirTemp("/var/tmp", "journal-bench")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { os.RemoveAll(dir) })
	j := openTest(b, dir)
	b.Cleanup(func() { j.Close() })
	plan, result := bytes.Repeat([]byte("p"), 300), bytes.Repeat([]byte("r"), 300)
	now := time.Now()
	var begun []*Accept
	var ended []*Finish
	b.ReportAllocs()
	b.ResetTimer()
	cpu := cpuTime()
	start := time.Now()
	for done := 0; done < b.N; done += len(ended) {
		batch := &Batch{}
		for _, f := range ended {
			batch.Sent = append(batch.Sent, SentReply{Seq: f.Seq, Bus: "nats", Tube: "cbsd_pool1_result_id17", State: Sent})
		}
		ended = ended[:0]
		for _, a := range begun {
			ended = append(ended, &Finish{Seq: a.Job.Seq, State: cbsdmq.Done, Result: result, Output: []byte("ok\n"), OutSize: 3})
		}
		batch.Finish = ended
		begun = begun[:0]
		for i := range size {
			id := testID(b.N*1000 + done + i)
			begun = append(begun, &Accept{
				Job:     &Job{ID: id, Ident: id, Sender: "ops", Bus: "nats", Command: "jstart", Guest: "jail1", Plan: plan, Accepted: now},
				Address: Address{Bus: "nats", Tube: "cbsd_pool1_result_id17"},
				Begin:   true,
			})
		}
		batch.Accept = begun
		if err := j.Commit(batch); err != nil {
			b.Fatal(err)
		}
	}
	took := time.Since(start)
	b.ReportMetric(float64(b.N)/took.Seconds(), "jobs/s")
	b.ReportMetric(float64((cpuTime()-cpu).Microseconds())/float64(b.N), "cpu-us/job")
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
