package simulation

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/cbsd/cbsdmq"
	"github.com/cbsd/cbsdmq/cbsd"
)

// plans is CBSD as the agent sees it. Its commands are change, stop (which makes
// room on the disk) and read; everything else is refused, and with it whatever a
// shell would look at. What is refused has a plan all the same, for an agent that
// does not mind.
type plans struct {
	machine *machine
	mu      sync.Mutex
	foreign string // guest that somebody else works on
}

func (c *plans) Plan(job cbsdmq.Job) (cbsd.Plan, error) {
	p := cbsd.Plan{Command: job.Command, Argv: []string{job.Command}, Class: cbsd.Change}
	switch job.Command {
	case "change":
	case "stop":
		p.Verb = cbsd.Stop
	case "read":
		p.Class = cbsd.Read
	default:
		return p, cbsdmq.Errorf(cbsdmq.CodeRefused, "Command", "not known").WithHint("change, stop or read")
	}
	var err error
	for _, a := range job.Args {
		if strings.ContainsAny(a.Value, "$`;|&") {
			err = cbsdmq.Errorf(cbsdmq.CodeRefused, "CommandArgs."+a.Name, "would be evaluated")
		}
		p.Argv = append(p.Argv, a.Name+"="+a.Value)
	}
	p.Guest, _ = job.Arg("jname")
	switch {
	case p.Guest == "*":
		p.Lanes = []string{cbsd.WholePool}
	case p.Guest != "":
		p.Lanes = strings.Split(p.Guest, ",")
	case p.Class == cbsd.Change:
		p.Lanes = []string{"!" + job.Command}
	}
	return p, err
}

func (c *plans) Env(string, cbsd.Plan) []string                 { return nil }
func (c *plans) Dir() string                                    { return "/" }
func (c *plans) Guests(context.Context) ([]cbsdmq.Guest, error) { return nil, nil }

func (c *plans) Guest(context.Context, string) (cbsdmq.Guest, bool, error) {
	return cbsdmq.Guest{}, false, nil
}
func (c *plans) Before(context.Context, cbsd.Plan) (cbsd.Snapshot, error) {
	return cbsd.Snapshot{}, nil
}
func (c *plans) Images(context.Context) (cbsdmq.Store, []cbsdmq.Image, error) {
	return cbsdmq.Store{}, nil, nil
}

func (c *plans) Measure(context.Context, cbsd.Plan, []byte, []byte) cbsd.Moved {
	return cbsd.Moved{Percent: -1}
}

func (c *plans) Unknown(context.Context, cbsd.Plan) string { return "" }

func (c *plans) After(_ context.Context, p cbsd.Plan, _ cbsd.Snapshot, exit cbsd.Exit, _ []byte) cbsd.Verdict {
	v := cbsd.Verdict{ErrCode: exit.Code}
	if exit.Code != 0 {
		v.Reason = fmt.Sprintf("ended with status %d", exit.Code)
	}
	if p.Class == cbsd.Change {
		v.Outcome = cbsdmq.Changed
		if exit.Code != 0 {
			v.Outcome = cbsdmq.OutcomeFailed
		}
	}
	return v
}

func (c *plans) Lookups(context.Context, cbsd.Plan, cbsdmq.Job, cbsd.Snapshot) (guid, dskGuid, vnc string) {
	return "0", "0", ""
}

func (c *plans) Foreign(_ context.Context, guests []string, own func(int) bool) (cbsd.Busy, bool) {
	if b, busy := c.machine.foreign(guests, own); busy {
		return b, true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.foreign != "" && slices.Contains(guests, c.foreign) {
		return cbsd.Busy{PID: 4711, TTY: "pts/1", User: "root", Command: "cbsd bstart " + c.foreign, Guest: c.foreign}, true
	}
	return cbsd.Busy{}, false
}

func (c *plans) setForeign(guest string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.foreign = guest
}
