package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"github.com/cbsd/cbsdmq"
	"github.com/cbsd/cbsdmq/internal/failpoint"
	"github.com/cbsd/cbsdmq/internal/testserver"
)

// zeroMQ is a configuration's broker: the agent itself.
func zeroMQ(t *testing.T) map[string]any {
	return map[string]any{"broker": "zeromq", "zeromq": map[string]any{
		"uri": "tcp://" + testserver.FreeAddr(t), "publish_timeout": 2, "reserve_timeout": 1, "reconnect_timeout": 1,
	}}
}

// TestZeroMQKillAgent kills the agent, and with it what is in place of the
// broker, at each point of a job's way. Where a submit was on its way, its sender
// finds out whether the job is in the journal.
func TestZeroMQKillAgent(t *testing.T) {
	for _, point := range failpoint.Agent {
		for _, n := range []int{1, 3} {
			t.Run(fmt.Sprintf("%s %d", point, n), func(t *testing.T) {
				t.Parallel()
				w := newWorld(t, zeroMQ(t))
				w.prepare()
				a := w.agent(fmt.Sprintf("%s:%d", point, n))
				next := make(chan struct{})
				go func() {
					defer close(next)
					<-a.done
					w.agent("")
				}()
				ids := w.load() // returns when all are in the journal
				testserver.Eventually(t, 2*patience, func() error {
					if a.gone() || n > 1 && w.allActed(ids) {
						return nil
					}
					return fmt.Errorf("the agent is not killed at %s", point)
				})
				a.kill()
				<-next
				w.judge(w.ends(ids), false)
			})
		}
	}
}

// TestZeroMQLibzmq has a client submit a job that is libzmq itself, and read the
// reply as docs/WIRE.md says; the agent is killed and started again while the
// command runs.
func TestZeroMQLibzmq(t *testing.T) {
	t.Parallel()
	python := testserver.PyZMQ(t)
	w := newWorld(t, zeroMQ(t))
	w.prepare()
	a := w.agent("")
	_, section := w.open()
	cmd := python("../bus/zeromq/testdata/client.py", section.URI, section.Tube, section.ReplyTubePrefix, `{"Command":"bset","CommandArgs":{"jname":"vm1","tags":"libzmq"}}`)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.procs = append(w.procs, started(cmd))
	testserver.Eventually(t, patience, func() error {
		for _, as := range w.acts() {
			if as[0].Command == "bset" {
				return nil
			}
		}
		return fmt.Errorf("the command has not begun: %s", out.String())
	})
	a.kill()
	w.agent("")
	<-w.procs[len(w.procs)-2].done
	var last cbsdmq.Reply
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &last); err != nil || last.State != cbsdmq.Done || last.Outcome != cbsdmq.Changed {
		t.Errorf("%v; client.py said:\n%s", err, out.String())
	}
}

func started(cmd *exec.Cmd) *process {
	p := &process{cmd: cmd, done: make(chan struct{})}
	go func() {
		cmd.Wait()
		close(p.done)
	}()
	return p
}

// TestZeroMQNoAgent checks what a client says while no agent is there, and that
// one which gave up has left nothing behind.
func TestZeroMQNoAgent(t *testing.T) {
	t.Parallel()
	w := newWorld(t, zeroMQ(t))
	w.prepare()
	p := w.start("", "submit", "--config", w.file, "--timeout", "2s", "bset", "jname=vm1", "tags=late")
	<-p.done
	if code := p.cmd.ProcessState.ExitCode(); code != cbsdmq.ExitGaveUp || !strings.Contains(p.stderr.String(), "no cbsdmq agent listens at tcp://127.0.0.1:") {
		t.Errorf("exit status %d:\n%s", code, p.stderr.String())
	}
	w.agent("")
	if r := w.follow(w.submit(job("bls", "header=0"))); r.State != cbsdmq.Done {
		t.Errorf("%+v", r)
	}
	for _, as := range w.acts() {
		if as[0].Command == "bset" {
			t.Error("what a client gave up was run")
		}
	}
}

// TestZeroMQBusyAgent checks that a job which the agent had no room for in its
// sender's time is not run later.
func TestZeroMQBusyAgent(t *testing.T) {
	t.Parallel()
	w := newWorld(t, zeroMQ(t))
	w.prepare()
	w.configure(map[string]any{"backlog": 1})
	w.agent("")
	letGo := w.hold("bset")
	first := w.submit(job("bset", "jname=vm1", "tags=first"))
	for i := range 3 {
		p := w.start("", "submit", "--config", w.file, "--timeout", "2s", "bset", "jname=vm1", fmt.Sprintf("tags=n%d", i))
		<-p.done
		if code := p.cmd.ProcessState.ExitCode(); code != cbsdmq.ExitGaveUp || !strings.Contains(p.stderr.String(), "has not taken it") {
			t.Errorf("exit status %d:\n%s", code, p.stderr.String())
		}
	}
	letGo()
	w.follow(first)
	if r := w.follow(w.submit(job("bls", "header=0"))); r.State != cbsdmq.Done {
		t.Errorf("%+v", r)
	}
	for id, as := range w.acts() {
		if as[0].Command == "bset" && id != first {
			t.Error("what a client gave up was run")
		}
	}
}
