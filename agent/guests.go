package agent

import (
	"context"
	"sync"
	"time"

	"github.com/cbsd/cbsdmq"
	"github.com/cbsd/cbsdmq/cbsd"
)

// guests reads the inventory: one guest, or those after a name, with what is
// going on with each.
func (s *Server) guests(ctx context.Context, req cbsdmq.Request) ([]cbsdmq.Guest, error) {
	all, err := s.cfg.CBSD.Guests(ctx)
	if err != nil {
		return nil, err
	}
	open, err := openJobs(ctx, s.cfg.Journal.Reader())
	if err != nil {
		return nil, err
	}
	paused := s.paused()
	var out []cbsdmq.Guest
	for _, g := range all {
		if req.Guest != "" && g.Name != req.Guest || g.Name <= req.After {
			continue
		}
		g.Pool = s.cfg.Pool
		g.Paused = paused.guest(g.Name)
		lane := []string{g.Name}
		for _, j := range open {
			if j.plan.Class != cbsd.Change || !j.touches(lane) {
				continue
			}
			if j.Begun.IsZero() {
				g.Queued++
			} else {
				g.Busy, g.Job = j.Command, cbsdmq.PrintedID(s.cfg.Pool, j.ID)
			}
		}
		if g.Busy == "" {
			if b, busy := s.cfg.CBSD.Foreign(ctx, lane, s.live.owns); busy {
				g.Busy = b.Command
			}
		}
		out = append(out, g)
	}
	return out, nil
}

// surveyWait is how long an answer waits for what has to be read. The pool's disk
// may be the trouble that is asked about: a read of it may not end.
const surveyWait = 700 * time.Millisecond

// A survey is what is read of the pool for people.
type survey struct {
	oldest     time.Time
	guests, on int
	used, size int64
}

// A surveyor makes surveys, one at a time.
type surveyor struct {
	mu   sync.Mutex
	done chan struct{} // closed when the one that is being made is; nil: none is
	last survey
}

// get returns what look finds, or nothing where that takes too long.
func (v *surveyor) get(ctx context.Context, look func() survey) survey {
	v.mu.Lock()
	done := v.done
	if done == nil {
		done = make(chan struct{})
		v.done = done
		go func() {
			found := look()
			v.mu.Lock()
			defer v.mu.Unlock()
			v.last, v.done = found, nil
			close(done)
		}()
	}
	v.mu.Unlock()
	late := time.NewTimer(surveyWait)
	defer late.Stop()
	select {
	case <-done:
		v.mu.Lock()
		defer v.mu.Unlock()
		return v.last
	case <-late.C:
	case <-ctx.Done():
	}
	return survey{}
}

// look makes a survey. What cannot be read is left out.
func (s *Server) look() (v survey) {
	ctx := s.life
	if oldest, err := s.cfg.Journal.Reader().Oldest(ctx); err == nil {
		v.oldest = oldest
	}
	if guests, err := s.cfg.CBSD.Guests(ctx); err == nil {
		v.guests = len(guests)
		for _, g := range guests {
			if g.Status == "On" {
				v.on++
			}
		}
	}
	if s.cfg.Workdir != "" {
		v.used, v.size = s.disk.of(ctx, s.cfg.Workdir)
	}
	return v
}

// fullInfo is Info with what has to be read. What cannot be is left out.
func (s *Server) fullInfo(ctx context.Context) cbsdmq.AgentInfo {
	in := s.Info()
	in.Backlog = s.cfg.Backlog
	paused := s.paused()
	in.PausedGuests = len(paused)
	if all, is := paused[""]; is {
		in.Paused = &all
		in.PausedGuests--
	}
	v := s.survey.get(ctx, s.look)
	in.Oldest, in.Guests, in.GuestsOn, in.DiskUsed, in.DiskSize = v.oldest, v.guests, v.on, v.used, v.size
	if s.cfg.CBSDVersion != nil {
		in.CBSD = s.cfg.CBSDVersion()
	}
	return in
}
