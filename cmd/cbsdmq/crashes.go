package main

import (
	"log/slog"
	"slices"
	"strings"
	"sync"

	"github.com/cbsd/cbsdmq/internal/crash"
)

// crashes are the jobs on which agents before this process crashed.
type crashes struct {
	mu   sync.Mutex
	jobs []string // printed ids
}

// watchCrashes reads what earlier agents of these pools have left in dir and has
// this one leave a report if it crashes. Without it the pools are served all the
// same.
func watchCrashes(dir string, pools []string, log *slog.Logger) (c *crashes, stop func()) {
	c = new(crashes)
	reports, err := crash.Reports(dir, func(job string) bool {
		pool, _, _ := strings.Cut(job, "/")
		return slices.Contains(pools, pool)
	})
	for _, r := range reports {
		log.Error("an agent before this one crashed", "report", r.File, "job", r.Job, "hint", "please report it; commands went on meanwhile")
		if r.Job != "" {
			c.jobs = append(c.jobs, r.Job)
		}
	}
	if err == nil {
		stop, err = crash.Watch(dir)
	}
	if err != nil {
		log.Warn("a crash of the agent will leave no report", "err", err)
	}
	if stop == nil {
		stop = func() {}
	}
	return c, stop
}

// take returns the jobs of a pool, once.
func (c *crashes) take(pool string) (ids []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var others []string
	for _, id := range c.jobs {
		if strings.HasPrefix(id, pool+"/") {
			ids = append(ids, id)
		} else {
			others = append(others, id)
		}
	}
	c.jobs = others
	return ids
}
