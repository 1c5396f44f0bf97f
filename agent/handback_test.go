package agent

import (
	"context"
	"encoding/json"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cbsd/cbsdmq"
	"github.com/cbsd/cbsdmq/bus"
	"github.com/cbsd/cbsdmq/bus/mem"
	"github.com/cbsd/cbsdmq/cbsd"
	"github.com/cbsd/cbsdmq/journal"
)

func TestAsOriginal(t *testing.T) {
	for want, row := range map[string]*journal.Job{
		"":                                  {Plan: planOf(t, "bset", "jname=vm1", "vm_cpus=3")},
		"it has the word \"vm_ram\"":        {Plan: planOf(t, "bget", "jname=vm1", "vm_ram")},
		"it is held":                        {Plan: planOf(t, "bset", "jname=vm1"), State: cbsdmq.Held},
		"it expires":                        {Plan: planOf(t, "bset", "jname=vm1"), Expires: time.Now()},
		"description has characters":        {Plan: planOf(t, "bset", "jname=vm1", "description=two words")},
		"its plan cannot be read":           {Plan: []byte("{")},
		"ci_user_pw_root has characters th": {Plan: planOf(t, "bcreate", "ci_user_pw_root=a'b")},
	} {
		job, why := asOriginal(row)
		if !strings.HasPrefix(why, want) || want == "" && why != "" {
			t.Errorf("got %q, want %q", why, want)
		}
		if why == "" {
			if body, err := job.MarshalJSON(); err != nil || string(body) != `{"Command":"bset","CommandArgs":{"jname":"vm1","vm_cpus":"3"}}` {
				t.Errorf("%s, %v", body, err)
			}
		}
	}
}

func planOf(t *testing.T, argv ...string) []byte {
	t.Helper()
	b, err := json.Marshal(cbsd.Plan{Command: argv[0], Argv: argv, Class: cbsd.Change})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// A bus that confirms nothing: it may have the message.
type doubtful struct{ Bus }

func (doubtful) Put(_ context.Context, ms ...bus.Message) []bus.Result {
	return []bus.Result{{Err: errors.New("connection lost")}}
}

// Interrupted between the journal and the broker, a job is never put twice, nor
// forgotten: it ends unknown.
func TestHandBackInterrupted(t *testing.T) {
	j, err := journal.Open(t.Context(), journal.Options{Path: t.TempDir() + "/journal.sqlite", State: t.TempDir(), Host: "h", Boot: "b"})
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	var b journal.Batch
	for _, id := range []string{"01M82R0N9EXPGHS416HKWVED2E", "01M82R0N9EXPGHS416HKWVED2F"} {
		b.Accept = append(b.Accept, &journal.Accept{
			Job:     &journal.Job{ID: id, Ident: id, Bus: "beanstalkd", Command: "bset", Accepted: time.Now(), Plan: planOf(t, "bset", "jname=vm1", "vnc_password="+canary)},
			Address: journal.Address{Bus: "beanstalkd", Tube: "result_id7", BrokerID: true},
		})
	}
	if err := j.Commit(&b); err != nil {
		t.Fatal(err)
	}
	real := bus.New(mem.New(mem.Options{NoTTL: true}).Driver(), bus.Options{})
	defer real.Close()
	e := Endpoint{Name: "beanstalkd", Bus: doubtful{real}, Tube: "cbsd_pool1", Prefix: "result_id"}
	if done, err := HandBack(t.Context(), "pool1", j, e); err == nil || !strings.Contains(err.Error(), "it may be there") || len(done) != 0 {
		t.Errorf("interrupted: %v, %v", done, err)
	}
	e.Bus = real
	done, err := HandBack(t.Context(), "pool1", j, e)
	if err != nil || len(done) != 2 || done[0].As != 0 || !strings.Contains(done[0].Reason, "ends unknown") || done[1].As == 0 {
		t.Errorf("again: %+v, %v", done, err)
	}
	for i, want := range []cbsdmq.State{cbsdmq.Unknown, cbsdmq.Cancelled} {
		row, err := j.Reader().Job(t.Context(), b.Accept[i].Job.ID)
		if err != nil || row.State != want {
			t.Errorf("job %d is %v, want %s (%v)", i, row, want, err)
		}
		if strings.Contains(string(row.Plan), canary) {
			t.Errorf("job %d has ended and keeps its secret: %s", i, row.Plan)
		}
	}
	// The original replies to the one; to the other, nobody else would.
	owed, err := j.Reader().Owed(t.Context())
	if err != nil || len(owed) != 1 || owed[0].Seq != b.Accept[0].Job.Seq {
		t.Errorf("owed: %v, %v", owed, err)
	}
	c, err := real.Consume(t.Context(), bus.ConsumeOptions{Tubes: []bus.Tube{{Name: "cbsd_pool1"}}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ds, err := c.Receive(t.Context(), 10)
	if err != nil || len(ds) != 1 || string(ds[0].Body) != `{"Command":"bset","CommandArgs":{"jname":"vm1","vnc_password":"`+canary+`"},"JobID":7}` {
		t.Errorf("on the tube: %v, %v", ds, err)
	}
}

// Who waits at another broker than the one that a job is handed back to is told by
// the next agent what became of it: the original cannot.
func TestHandBackOfAnotherBus(t *testing.T) {
	j, err := journal.Open(t.Context(), journal.Options{Path: t.TempDir() + "/journal.sqlite", State: t.TempDir(), Host: "h", Boot: "b"})
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	const id = "01M82R0N9EXPGHS416HKWVED2E"
	away := journal.Address{Bus: "nats", Tube: "result_id8"}
	b := journal.Batch{Accept: []*journal.Accept{{
		Job:     &journal.Job{ID: id, Ident: id, Bus: "nats", Command: "bset", Accepted: time.Now(), Plan: planOf(t, "bset", "jname=vm1")},
		Address: away,
	}}}
	if err := j.Commit(&b); err != nil {
		t.Fatal(err)
	}
	tubes := bus.New(mem.New(mem.Options{NoTTL: true}).Driver(), bus.Options{})
	defer tubes.Close()
	done, err := HandBack(t.Context(), "pool1", j, Endpoint{Name: "beanstalkd", Bus: tubes, Tube: "cbsd_pool1", Prefix: "result_id"})
	if err != nil || len(done) != 1 || done[0].As == 0 || !strings.Contains(done[0].Reason, "nats") {
		t.Errorf("%+v, %v", done, err)
	}
	if owed, err := j.Reader().Owed(t.Context()); err != nil || len(owed) != 1 || owed[0].Address != away {
		t.Errorf("owed: %v, %v", owed, err)
	}
}

// An agent that starts after an interrupted HandBack does not run the job.
func TestAdoptHandedBack(t *testing.T) {
	b := newBench(t)
	b.start()
	long := b.submit("jstart", "jname=jail1")
	waiting := b.submit("jset", "jname=jail1")
	b.running(long)
	eventually(t, "it is accepted", func() bool { row, err := b.row(waiting); return err == nil && row != nil })
	b.stop()
	j, err := journal.Open(t.Context(), journal.Options{
		Path: filepath.Join(b.dir, "pool", "journal.sqlite"), State: filepath.Join(b.dir, "state"), Host: "host1", Boot: b.machine.boot,
	})
	if err != nil {
		t.Fatal(err)
	}
	tubes := bus.New(b.broker.Driver(), bus.Options{})
	defer tubes.Close()
	e := Endpoint{Name: "mem", Bus: doubtful{tubes}, Tube: "jobs", Prefix: "reply"}
	if _, err := HandBack(t.Context(), "pool1", j, e); err == nil {
		t.Error("it was not interrupted")
	}
	j.Close()
	b.start()
	b.finish(long, 0, "")
	b.want(long, cbsdmq.Done, 0)
	if r := b.want(waiting, cbsdmq.Unknown, cbsdmq.ExitUnknown); !strings.Contains(r.Reason, "handed back") || r.Outcome != "" {
		t.Errorf("reason %q, outcome %q", r.Reason, r.Outcome)
	}
	if begun, _ := b.machine.snapshot(); len(begun) != 1 {
		t.Errorf("begun: %q", begun)
	}
}
