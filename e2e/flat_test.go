package e2e

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/cbsd/cbsdmq"
	"github.com/cbsd/cbsdmq/bus"
	"github.com/cbsd/cbsdmq/cbsd/cbsdsim"
	"github.com/cbsd/cbsdmq/internal/testserver"
)

// The tests of this file measure processes: where the original programs grow.

// someGarbage is by how many kB a process may grow that keeps nothing. The garbage
// collector has room of its own, and more of it where it is slow; what would be kept
// here is at least 50 MB.
const someGarbage = 32 << 10

// The original agent grows from 13 to 321 MB.
func TestLargeOutputFlatMemory(t *testing.T) {
	needProc(t)
	t.Parallel()
	w := newWorld(t, beanstalkd(t))
	a := w.agent("")
	o := w.original()
	const size, seed = 50 << 20, 9
	w.simulate(cbsdsim.Config{Commands: map[string]cbsdsim.Behaviour{"bls": {OutputBytes: size, Seed: seed}}})
	o.run(body("jls", "header=0")) // what a process needs once
	watched := map[string]int{"agent": a.pid(), "runner": w.runnerPID()}
	before := make(map[string]int)
	for name, pid := range watched {
		before[name] = status(t, pid, "VmRSS")
		forgetPeak(t, pid)
	}

	r := o.run(body("bls", "header=0"))
	if r.State != cbsdmq.Done || r.Cut+int64(len(r.Output())) != size {
		t.Errorf("the reply is %s, %d of %d bytes are cut", r.State, r.Cut, size)
	}
	want := sha256.New()
	if err := cbsdsim.WriteText(want, size, seed); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	got := sha256.New()
	output := exec.CommandContext(ctx, program(t, "cbsdmq"), "output", "--config", w.file, r.ID)
	output.Stdout = got
	if err := output.Run(); err != nil || !bytes.Equal(got.Sum(nil), want.Sum(nil)) {
		t.Errorf("`cbsdmq output` does not give what the command has printed: %v", err)
	}

	for name, pid := range watched {
		peak := status(t, pid, "VmHWM")
		t.Logf("%s: %d kB before, at most %d kB", name, before[name], peak)
		if peak-before[name] > someGarbage {
			t.Errorf("the %s grew from %d to %d kB for a job that prints %d", name, before[name], peak, size)
		}
	}
}

// The original keeps 6.7 KB, a goroutine and a connection for each job.
func TestManyJobsFlat(t *testing.T) {
	needProc(t)
	if testing.Short() {
		t.Skip("9000 jobs: NOT TESTED")
	}
	t.Parallel()
	w := newWorld(t, beanstalkd(t))
	w.configure(map[string]any{"cbsd": "/bin/true", "backlog": 100})
	o := w.original()
	ids := o.flood(3000)
	a := w.agent("")
	o.answers(ids)
	after := func() map[string]int {
		runner := w.runnerPID()
		return map[string]int{
			"kB of the agent": status(t, a.pid(), "VmRSS"), "kB of the runner": status(t, runner, "VmRSS"),
			"descriptors of the agent": descriptors(t, a.pid()), "descriptors of the runner": descriptors(t, runner),
		}
	}
	few := after() // the heap has its size by now
	o.answers(o.flood(6000))
	testserver.Eventually(t, patience, func() error { // the last jobs have left something for a moment
		many := after()
		for what, n := range many {
			room := 3 // descriptors
			if strings.HasPrefix(what, "kB") {
				room = 8 << 10
			}
			if n > few[what]+room {
				return fmt.Errorf("%d %s after 9000 jobs, %d after 3000", n, what, few[what])
			}
		}
		t.Logf("after 3000 jobs %v, after 9000 %v", few, many)
		return nil
	})
	if lines := strings.Count(w.log(), "\n"); lines > 9000+10 {
		t.Errorf("%d lines of log for 9000 jobs", lines)
	}
	// What a Go program says when it is told to quit ends with its goroutines.
	a.signal(syscall.SIGQUIT)
	a.ends(t)
	if n := strings.Count(a.stderr.String(), "\ngoroutine "); n < 5 || n > 60 {
		t.Errorf("%d goroutines after 9000 jobs", n)
	}
}

// flood puts n jobs.
func (o *original) flood(n int) (ids []uint64) {
	o.w.t.Helper()
	var ms []bus.Message
	for i := range n {
		ms = append(ms, bus.Message{Tube: bus.Tube{Name: o.to.Tube}, Body: []byte(body("bls", fmt.Sprintf("display=c%d", i)))})
	}
	for _, r := range o.bus.Put(o.w.t.Context(), ms...) {
		if r.Err != nil {
			o.w.t.Fatal(r.Err)
		}
		ids = append(ids, r.ID)
	}
	return ids
}

// answers reads the reply to each job.
func (o *original) answers(ids []uint64) {
	o.w.t.Helper()
	ctx, cancel := context.WithTimeout(o.w.t.Context(), 10*patience)
	defer cancel()
	for len(ids) > 0 {
		part := ids[:min(len(ids), 300)]
		ids = ids[len(part):]
		var boxes []bus.Tube
		for _, id := range part {
			boxes = append(boxes, o.mailbox(id))
		}
		in, err := o.bus.Consume(ctx, bus.ConsumeOptions{Tubes: boxes})
		if err != nil {
			o.w.t.Fatal(err)
		}
		for n := 0; n < len(part); {
			ds, err := in.Receive(ctx, len(part))
			if err == nil {
				err = in.Ack(ctx, ds...)
			}
			if err != nil {
				o.w.t.Fatalf("after %d of %d replies: %v", n, len(part), err)
			}
			n += len(ds)
		}
		in.Close()
	}
}
