package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cbsd/cbsdmq"
	"github.com/cbsd/cbsdmq/client"
	"github.com/cbsd/cbsdmq/e2e/judge"
	"github.com/cbsd/cbsdmq/internal/testserver"
)

// rules are the judge's for this bench: its machine may be busy.
var rules = judge.Rules{Slack: 1500 * time.Millisecond, TimeLimit: timeLimit}

// serverPatience is how long a server that was killed may take to be back.
const serverPatience = 5 * time.Minute

// A round is one run from fresh pools to the verdict.
type round struct {
	o      options
	seed   uint64
	dir    string
	length time.Duration
	jobs   int
}

// rand is a generator of the round's, a different one for each name.
func (r *round) rand(name string) *rand.Rand {
	h := uint64(14695981039346656037)
	for i := range len(name) {
		h = (h ^ uint64(name[i])) * 1099511628211
	}
	return rand.New(rand.NewPCG(r.seed, h))
}

// run runs the round. The directory stays if it was convicted or broken.
func (r *round) run(ctx context.Context) (v judge.Verdict, err error) {
	s, err := newStage(r.dir)
	if err != nil {
		return v, err
	}
	keep := true
	defer func() { s.close(keep) }()
	err = testserver.Guard(func() error {
		var err error
		v, err = r.torture(ctx, s)
		return err
	})
	if err == nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	keep = r.o.keep || err != nil || v.Convicted() > 0
	if keep {
		var b bytes.Buffer
		err = errors.Join(err, v.Write(&b, 1000), os.WriteFile(filepath.Join(r.dir, "verdict.txt"), b.Bytes(), 0o644))
	}
	return v, err
}

func (r *round) torture(ctx context.Context, s *stage) (v judge.Verdict, err error) {
	rec := new(record)
	var worlds []*world
	for _, b := range r.o.brokers {
		w, err := newWorld(s, setup{broker: b, progs: r.o.progs, rec: rec, pools: r.o.pools, sim: torturous, small: true})
		if err != nil {
			return v, err
		}
		worlds = append(worlds, w)
	}
	quietFor := max(r.length, 3*time.Minute) // at most: a busy machine takes its time
	if slices.ContainsFunc(worlds, func(w *world) bool { return w.broker.Forgets || w.broker.ForgetsReplies }) {
		quietFor = max(r.length/4, 30*time.Second) // original clients wait for what is lost
	}
	life, end := context.WithTimeout(ctx, r.length+2*quietFor+serverPatience)
	defer end()
	for _, w := range worlds {
		if err := w.warmUp(life); err != nil {
			return v, err
		}
	}
	before := make(map[*world]map[string]int64)
	for _, w := range worlds {
		before[w] = w.measures()
	}

	chaos, calm := context.WithTimeout(life, r.length)
	defer calm()
	waiting, giveUp := context.WithCancel(life)
	defer giveUp()
	clients := r.clients(worlds, times{chaos, waiting, r.o.think})
	keepUp, stopKeeping := context.WithCancel(life)
	defer stopKeeping()
	var services sync.WaitGroup
	for _, w := range worlds {
		for _, p := range w.pools {
			services.Go(func() { p.keepUp(keepUp) })
		}
	}
	if !r.o.peace {
		err = r.torment(chaos, calm, worlds)
	}
	<-chaos.Done()
	s.note("quiet")
	for _, w := range worlds {
		if herr := w.heal(); herr != nil && err == nil {
			err = herr
		}
	}
	late := time.AfterFunc(quietFor, giveUp)
	defer late.Stop()
	clients.Wait()
	s.note("clients have ended")
	giveUp()
	if err == nil {
		err = r.collect(life, worlds, rec)
	}
	stopKeeping()
	services.Wait()
	h := rec.history()
	r.jobs = len(h.Jobs)
	for _, w := range worlds {
		h.Measures = append(h.Measures, w.compare(before[w], len(h.Jobs), 200+int(r.length.Seconds())*4)...)
		for _, p := range w.pools {
			acts, broken, terr := judge.ReadTruthFile(p.truth, p.name)
			if terr != nil && err == nil {
				err = terr
			}
			h.Acts, h.Broken = append(h.Acts, acts...), append(h.Broken, broken...)
			if _, serr := os.Stat(p.canary); serr == nil {
				h.Canaries = append(h.Canaries, p.canary+" is there: something was evaluated")
			}
			p.mu.Lock()
			if p.agent != nil {
				p.look()
			}
			p.mu.Unlock()
		}
	}
	for _, trace := range rec.history().Canaries {
		if !slices.Contains(h.Canaries, trace) {
			h.Canaries = append(h.Canaries, trace)
		}
	}
	slices.SortFunc(h.Measures, func(a, b judge.Measure) int { return strings.Compare(a.Name, b.Name) })
	return judge.Judge(h, rules), err
}

// torment has every world tormented in all ways at once, until chaos ends. It
// calls calm where the bench itself is broken.
func (r *round) torment(chaos context.Context, calm func(), worlds []*world) (err error) {
	begun := 0
	faults := make(chan error)
	for _, w := range worlds {
		server, pace := w.serverDeeds(r.length)
		for _, way := range []struct {
			name  string
			deeds []deed
			calm  [2]time.Duration
		}{{"processes", w.processDeeds(), r.o.calm}, {"network", w.networkDeeds(), r.o.calm}, {"server", server, pace}} {
			begun++
			go func() {
				faults <- testserver.Guard(func() error {
					w.torment(chaos, r.rand(w.broker.Name+way.name), way.deeds, way.calm)
					return nil
				})
			}()
		}
	}
	for range begun {
		if ferr := <-faults; ferr != nil && err == nil {
			err = ferr
			calm()
		}
	}
	return err
}

// warmUp waits until every pool is served, and has it do what is done once.
func (w *world) warmUp(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 60*time.Second)
	defer cancel()
	for _, p := range w.pools {
		c, done, err := p.session(ctx, "warm up")
		if err != nil {
			return fmt.Errorf("reaching %s: %w", p.name, err)
		}
		for range 4 {
			_, err = c.Run(ctx, client.Job{Command: "bls", Args: []cbsdmq.Arg{{Name: "header", Value: "0"}}}, nil)
			if err != nil {
				break
			}
		}
		done()
		if err != nil {
			return fmt.Errorf("warming %s up: %w", p.name, err)
		}
		// What ran until now is of no job of the run.
		if err := os.Truncate(p.truth, 0); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("warming %s up: %w", p.name, err)
		}
	}
	return nil
}

// clients starts the clients of all pools.
func (r *round) clients(worlds []*world, t times) *sync.WaitGroup {
	wg := new(sync.WaitGroup)
	for _, w := range worlds {
		for _, p := range w.pools {
			for i := range r.o.clients {
				name := fmt.Sprintf("l%d", i)
				wg.Go(func() { p.library(t, r.rand(p.name+name), name) })
			}
			wg.Go(func() { p.programs(t, r.rand(p.name+"prog"), "p") })
			for name, f := range map[string]func(*raw, *rand.Rand){"o": (*raw).legacy, "m": (*raw).modern, "h": (*raw).hostile} {
				wg.Go(func() {
					rw, done, err := p.raw(t, r.rand(p.name+name), name)
					if err != nil {
						w.note("client of %s: %v", p.name, err)
						return
					}
					defer done()
					f(rw, r.rand(p.name+name+"2"))
				})
			}
		}
	}
	return wg
}

// summary writes what a round did.
func (r *round) summary(w io.Writer, v judge.Verdict, took time.Duration) {
	names := make([]string, len(r.o.brokers))
	for i, b := range r.o.brokers {
		names[i] = b.Name
	}
	say(w, "seed %d, %s: %d jobs in %v, %d convictions", r.seed, strings.Join(names, ","), r.jobs, took.Round(time.Second), v.Convicted())
}
