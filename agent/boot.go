package agent

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/cbsd/cbsdmq"
	"github.com/cbsd/cbsdmq/cbsd"
	"github.com/cbsd/cbsdmq/journal"
)

// bootSender is the sender of jobs that the agent gives itself after a boot.
const bootSender = "boot"

// boot notes outside the pool under which boot of this host it was served, and
// where that is another one than the last time, starts what is to be started. The
// first time is no boot: nobody expects guests to come up because an agent was
// installed, or a pool imported.
func (s *Server) boot(ctx context.Context) {
	if s.cfg.StateDir == "" {
		return
	}
	mark := filepath.Join(s.cfg.StateDir, "boot-"+s.cfg.Pool)
	last, err := os.ReadFile(mark)
	if strings.TrimSpace(string(last)) == s.cfg.Boot {
		return
	}
	switch {
	case s.cfg.Autostart == nil:
	case errors.Is(err, fs.ErrNotExist):
		s.log.Info("this host serves the pool for the first time: guests are started after its next boot")
	case !s.startGuests(ctx):
		return
	}
	err = os.WriteFile(mark+".new", []byte(s.cfg.Boot+"\n"), 0o600) // an empty mark would be another boot
	if err == nil {
		err = os.Rename(mark+".new", mark)
	}
	if err != nil {
		s.log.Warn("could not note that the guests were started after the boot: the journal knows for as long as it keeps ids", "err", err)
	}
}

// startGuests gives jobs to this agent for all that CBSD is to start at a boot,
// one group after the other. It returns false when ctx ends first: an agent that
// goes on gives itself the same jobs, and the journal knows those that it had.
func (s *Server) startGuests(ctx context.Context) bool {
	var guests []cbsd.BootGuest
	for attempt := 0; ; attempt++ {
		var err error
		if guests, err = s.cfg.Autostart(ctx); err == nil {
			break
		}
		if attempt == 0 {
			s.log.Error("cannot find out which guests to start after the boot, trying again", "err", err)
		}
		if !sleep(ctx, pause(attempt)) {
			return false
		}
	}
	var stuck, start []ownJob
	for _, g := range guests {
		switch {
		case g.Kept != "" && g.AStart:
			s.log.Warn("a guest is not started after the boot", "guest", g.Name, "reason", g.Kept)
			continue
		case g.Stuck:
			stuck = append(stuck, ownJob{0, cbsdmq.Job{Command: "jswmode", Args: []cbsdmq.Arg{{Name: "jname", Value: g.Name}, {Name: "mode", Value: "master"}, {Name: "comment", Value: "0"}}}})
		}
		if g.AStart && g.Kept == "" && !g.Running {
			start = append(start, ownJob{g.Group, cbsdmq.Job{Command: g.Start, Args: []cbsdmq.Arg{{Name: "jname", Value: g.Name}}}})
		}
	}
	s.log.Info("the host was booted", "guests", len(start), "reset", len(stuck))
	return s.do(ctx, stuck) && s.do(ctx, start)
}

// An ownJob is a job of the agent for itself.
type ownJob struct {
	group int
	job   cbsdmq.Job
}

// do has jobs done, those of one group together, and waits for their end.
func (s *Server) do(ctx context.Context, jobs []ownJob) bool {
	for len(jobs) > 0 {
		n := 1
		for n < len(jobs) && jobs[n].group == jobs[0].group {
			n++
		}
		var wg sync.WaitGroup
		for _, j := range jobs[:n] {
			wg.Go(func() { s.doOne(ctx, j.job) })
		}
		wg.Wait()
		if ctx.Err() != nil {
			return false
		}
		jobs = jobs[n:]
	}
	return true
}

// doOne has one job done, unless the journal has it from this boot, and waits for
// its end, or that of ctx.
func (s *Server) doOne(ctx context.Context, job cbsdmq.Job) {
	guest, _ := job.Arg("jname")
	for attempt := 0; ; attempt++ {
		now := time.Now()
		row := &journal.Job{
			ID: ulid.Make().String(), Ident: strings.Join([]string{bootSender, s.cfg.Boot, job.Command, guest}, "/"),
			Sender: bootSender, Command: job.Command, Accepted: now,
		}
		accepted, ended := make(chan error, 1), make(chan struct{})
		a := &arrival{
			accept: &journal.Accept{Job: row}, lost: func() bool { return false },
			done: func(err error) { accepted <- err }, ended: sync.OnceFunc(func() { close(ended) }),
		}
		plan, err := s.plan(job)
		if err == nil {
			row.Guest = plan.Guest
			row.Plan, err = json.Marshal(plan)
		}
		if err != nil {
			a.accept.End = refusal(err)
		}
		a.plan = plan
		if !s.post(ctx, func(l *loop) {
			if !l.arrive(a) {
				a.done(errNotNow)
			}
		}) {
			return
		}
		select {
		case err = <-accepted:
		case <-ctx.Done():
			return
		}
		if err == nil {
			select {
			case <-ended:
			case <-ctx.Done():
			}
			return
		}
		if !sleep(ctx, pause(attempt)) {
			return
		}
	}
}
