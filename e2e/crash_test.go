package e2e

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/cbsd/cbsdmq"
	"github.com/cbsd/cbsdmq/internal/failpoint"
	"github.com/cbsd/cbsdmq/internal/testserver"
)

// ended waits until a process is gone.
func ended(t *testing.T, p *process) {
	t.Helper()
	testserver.Eventually(t, 20*time.Second, func() error {
		if !p.gone() {
			return errors.New("the agent does not crash")
		}
		return nil
	})
}

// TestAgentCrashes has the agent crash on a job, not as by kill -9. It is tried
// once more; after a second crash it ends as unknown, and the agent goes on.
func TestAgentCrashes(t *testing.T) {
	for point, says := range map[string]string{
		failpoint.Looking: "its command was not started",
		failpoint.Judging: "its exit status was 0",
	} {
		t.Run(point, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, beanstalkd(t))
			w.prepare()
			w.record()
			a := w.agent(point + "!")
			once := w.submit(job("bset", "jname=vm1", "tags=once"))
			ended(t, a)
			if status := a.ends(t); status != 2 {
				t.Errorf("it ends with %d", status)
			}
			a = w.agent("")
			if r := w.follow(once); r.State != cbsdmq.Done || r.Outcome != cbsdmq.Changed {
				t.Errorf("after one crash: %+v", r)
			}
			a.kill()

			ran := len(w.calls())
			a = w.agent(point + "!")
			twice := w.submit(job("bset", "jname=vm1", "tags=twice"))
			ended(t, a)
			ended(t, w.agent(point+"!"))
			a = w.agent(point + "!")
			r := w.follow(twice)
			if r.State != cbsdmq.Unknown || r.ErrCode != cbsdmq.ExitUnknown || !strings.Contains(r.Reason, "crashed twice") || !strings.Contains(r.Reason, says) || r.Hint == "" {
				t.Errorf("after two crashes: %+v", r)
			}
			if n := len(w.calls()) - ran; point == failpoint.Looking && n != 0 || n > 1 {
				t.Errorf("cbsd was called %d times: %q", n, w.calls())
			}
			a.kill()
			if !strings.Contains(w.log(), "an agent before this one crashed") || !strings.Contains(w.log(), "it is given up") {
				t.Errorf("the log does not say so:\n%s", w.log())
			}

			// Kills are no crashes: they say nothing of the job.
			for range 3 {
				a = w.agent(failpoint.Exited)
				id := w.submit(job("bset", "jname=vm2", "tags=killed"))
				ended(t, a)
				a = w.agent("")
				if r := w.follow(id); r.State != cbsdmq.Done {
					t.Errorf("after a kill: %+v", r)
				}
				a.kill()
			}
		})
	}
}
