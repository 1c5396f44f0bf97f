package agent

import (
	"context"

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
	if in.Queued > 0 {
		if oldest, err := s.cfg.Journal.Reader().Oldest(ctx); err == nil {
			in.Oldest = oldest
		}
	}
	if guests, err := s.cfg.CBSD.Guests(ctx); err == nil {
		in.Guests = len(guests)
		for _, g := range guests {
			if g.Status == "On" {
				in.GuestsOn++
			}
		}
	}
	if s.cfg.Workdir != "" {
		in.DiskUsed, in.DiskSize = s.disk.of(ctx, s.cfg.Workdir)
	}
	if s.cfg.CBSDVersion != nil {
		in.CBSD = s.cfg.CBSDVersion()
	}
	return in
}
