package main

import (
	"context"
	"path/filepath"
	"time"

	"github.com/cbsd/cbsdmq"
)

// demoJail is the jail that the tour makes of a real CBSD, if it may.
const demoJail = "cbsdmqdemo"

// demoReal is the pool of a real CBSD.
const demoReal = "real"

// realTour plays on a real workdir. Our journal and all else that is ours is in
// the stage, so the workdir is only touched by cbsd itself.
func (s *stage) realTour(ctx context.Context, o demoOptions) error {
	begun := time.Now()
	workdir, err := filepath.Abs(o.real)
	if err != nil {
		return err
	}
	if err := s.startBroker(ctx); err != nil {
		return err
	}
	if err := s.startRunner(); err != nil {
		return err
	}
	const pool = demoReal
	more := map[string]any{"journal": s.path("journal", "journal.sqlite")}
	if !o.change {
		more["allow"] = []string{"jls", "bls", "qls", "version"}
	}
	if err := s.configure(pool, workdir, o.cbsd, more); err != nil {
		return err
	}
	if err := s.startAgent(ctx, pool); err != nil {
		return err
	}
	s.say("An agent serves the CBSD in %s:", workdir)
	if _, err := s.run(ctx, 0, "pools"); err != nil {
		return err
	}
	s.say("Its guests, as CBSD's own files have them:")
	if _, err := s.run(ctx, 0, "guests", pool); err != nil {
		return err
	}
	s.say("The same from cbsd:")
	for _, list := range []string{"jls", "bls"} {
		if _, err := s.run(ctx, 0, "run", pool, list); err != nil {
			return err
		}
	}
	s.say("A value that CBSD would evaluate as shell is refused before cbsd is started:")
	if _, err := s.run(ctx, cbsdmq.ExitRefused, "run", pool, "jls", "display=$(id)"); err != nil {
		return err
	}
	if o.change {
		if err := s.realJail(ctx, pool); err != nil {
			return err
		}
	}
	s.say("The jobs:")
	if _, err := s.run(ctx, 0, "jobs", pool); err != nil {
		return err
	}
	s.say("demo: %s on a real CBSD, every job answered. %s", map[bool]string{false: "reads only", true: "a jail created and removed"}[o.change], span(time.Since(begun)))
	return nil
}

// realJail creates a jail without a base, and removes it.
func (s *stage) realJail(ctx context.Context, pool string) error {
	s.say("A jail of our own is created, and removed:")
	if _, err := s.run(ctx, 0, "run", pool, "jcreate", "jname="+demoJail, "ver=empty"); err != nil {
		return err
	}
	if _, err := s.run(ctx, 0, "guests", pool); err != nil {
		return err
	}
	_, err := s.run(ctx, 0, "run", pool, "jremove", "jname="+demoJail)
	return err
}
