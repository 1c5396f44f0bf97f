package e2e

import (
	"context"
	"strings"
	"testing"

	"github.com/cbsd/cbsdmq"
	"github.com/cbsd/cbsdmq/bus"
	"github.com/cbsd/cbsdmq/internal/testserver"
)

// A job that is handed back to a broker which has forgotten its ids since would
// be answered where the id of its client is a stranger's by now: the original
// replies where the body says.
func TestHandBackToBrokerThatForgot(t *testing.T) {
	t.Parallel()
	broker := testserver.BeanstalkdWithoutBinlog(t)
	w := newWorld(t, beanstalkdAt(broker.Addr))
	w.guest("vm1")
	defer w.hold("bset")()
	o := w.original()
	o.put(body("bset", "jname=vm1", "tags=runs"))
	waits := o.put(body("bset", "jname=vm1", "tags=waits"))
	a := w.agent("")
	w.begun(1)
	w.accepted("2")
	a.kill()
	broker.Kill(t)
	broker.Start(t)

	o = w.original()
	o.put(body("bls", "header=0"))
	if stranger := o.put(body("bls", "header=0")); stranger != waits {
		t.Fatalf("the broker's ids go on: %d", stranger)
	}
	end := w.cbsdmq("hand-back", "--config", w.file)
	if end.status != 0 || !strings.Contains(end.stdout, "who waits for it gets no reply: the broker has begun its ids again") {
		t.Errorf("nobody is told: %+v", end)
	}
	b, section := w.open()
	c, err := b.Consume(t.Context(), bus.ConsumeOptions{Tubes: []bus.Tube{{Name: section.Tube}}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for n := 0; n < 3; {
		ds, err := c.Receive(ctx, 3-n)
		if err != nil {
			t.Fatalf("%d jobs on the tube, %v", n, err)
		}
		for _, d := range ds {
			if j, err := cbsdmq.ParseJob(d.Body); err != nil || j.JobID != 0 {
				t.Errorf("its reply would go to the tube of another: %s, %v", d.Body, err)
			}
		}
		n += len(ds)
	}
}
