package cbsd

import (
	"context"
	"sync"
	"time"
)

// unfitRetry is how often a CBSD is asked again that did not do what it was told.
const unfitRetry = 10 * time.Second

// A fitness is what is known of the CBSD that is installed now.
type fitness struct {
	mu      sync.Mutex
	program identity // zero: not looked at yet
	good    bool     // a version of it did what it was told
	unfit   string
	at      time.Time
}

// Fit looks whether CBSD was replaced since it was last asked, and asks the new
// one. Where arguments do not arrive any more that did before, unfit says so:
// changes would act on another guest, or on another pool. Where it was replaced,
// upgraded is what Probe found, else nil. Otherwise it costs one stat.
func (p *Pool) Fit(ctx context.Context) (unfit string, upgraded *Report) {
	f := &p.fit
	f.mu.Lock()
	defer f.mu.Unlock()
	program := identify(p.cfg.CBSD)
	first, same := f.program == identity{}, f.program == program
	if program == (identity{}) || same && (f.unfit == "" || time.Since(f.at) < unfitRetry) {
		return f.unfit, nil
	}
	r := p.probe(ctx)
	f.take(program, r)
	if first || same {
		return f.unfit, nil
	}
	return f.unfit, &r
}

// take notes what was found of a program.
func (f *fitness) take(program identity, r Report) {
	arrive, text := true, ""
	for _, finding := range r.Findings {
		if finding.About == "arguments" && finding.Level != OK {
			arrive, text = false, finding.Text
		}
	}
	f.program, f.at, f.unfit = program, time.Now(), ""
	switch {
	case arrive:
		f.good = true
	case f.good: // else it is a stand-in, or was broken before: its jobs say so
		f.unfit = "CBSD " + r.Version + " does not do what it is told: " + text
	}
}
