package simulation

import (
	"flag"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"
	"testing/cryptotest"
	"testing/synctest"
	"time"

	"github.com/cbsd/cbsdmq/e2e/judge"
)

var (
	seedFlag   = flag.Uint64("seed", 0, "the schedule of TestSeed")
	fromFlag   = flag.Uint64("from", 1, "first seed of TestSeeds")
	seedsFlag  = flag.Int("seeds", 200, "how many seeds TestSeeds tries")
	digestFlag = flag.Bool("digest", false, "print a number for what happened under each seed of TestSeeds, to compare it with another run")
	warmFlag   = flag.Int("warm", 1, "how many schedules TestSeed plays before")
	liveFlag   = flag.Bool("live", false, "print what happens in TestSeed at once: where it does not come to its end")
	byFlag     = flag.String("by", "", "the check of the judge that TestConvict waits for")
	forFlag    = flag.Duration("for", 0, "how long TestRandom tries new seeds")
)

func TestMain(m *testing.M) {
	flag.Parse()
	debug.SetGCPercent(-1) // see play
	runtime.GOMAXPROCS(1)  // the fewer threads, the more alike are two runs of a seed
	hookDisk()
	os.Exit(m.Run())
}

var played int

// play runs the schedule of a seed and judges it.
func play(t *testing.T, seed uint64, verbose bool) (*world, judge.Verdict) {
	var w *world
	dir := makeDir(t)
	defer os.RemoveAll(dir)
	// Where somebody is always busy the time of the bubble stands still.
	defer time.AfterFunc(time.Minute, func() { panic(fmt.Sprintf("the schedule of seed %d does not come to its end", seed)) }).Stop()
	cryptotest.SetGlobalRandom(t, seed)
	if played++; played%16 == 0 {
		debug.FreeOSMemory() // and not while one runs
	}
	synctest.Test(t, func(t *testing.T) {
		w = newWorld(t, dir, seed, verbose)
		w.run()
	})
	return w, judge.Judge(&w.history, judge.Rules{Slack: w.plan.slack(), TimeLimit: w.plan.timeLimit})
}

func TestSeed(t *testing.T) {
	if *seedFlag == 0 {
		t.Skip("no -seed is given")
	}
	for seed := range uint64(*warmFlag) {
		play(t, seed+1, true)
	}
	w, v := play(t, *seedFlag, true)
	t.Logf("%+v\n%s\nseed %d: %016x", w.plan, strings.Join(w.lines, "\n"), *seedFlag, w.digest())
	report(t, *seedFlag, v)
}

// digest is a number for all that happened.
func (w *world) digest() uint64 {
	h := fnv.New64a()
	for _, line := range w.lines {
		fmt.Fprintln(h, line)
	}
	return h.Sum64()
}

func report(t *testing.T, seed uint64, v judge.Verdict) {
	t.Helper()
	if v.Convicted() == 0 {
		return
	}
	var b strings.Builder
	if err := v.Write(&b, 3); err != nil {
		t.Fatal(err)
	}
	t.Errorf("seed %d: run it again with -run Seed$ -seed %d\n%s", seed, seed, b.String())
}

func TestSeeds(t *testing.T) {
	begun := time.Now()
	var sum judge.Verdict
	tally := make(map[string]int)
	for seed := *fromFlag; seed < *fromFlag+uint64(*seedsFlag); seed++ {
		w, v := play(t, seed, *digestFlag)
		if *digestFlag {
			t.Logf("seed %d: %016x", seed, w.digest())
		}
		report(t, seed, v)
		sum.Add(v)
		for what, n := range w.tally {
			tally[what] += n
		}
	}
	took := time.Since(begun)
	t.Logf("%d schedules in %s, %.0f in a second", *seedsFlag, took.Round(time.Millisecond), float64(*seedsFlag)/took.Seconds())
	summary(t, sum)
	if *fromFlag == 1 && *seedsFlag >= 200 {
		covered(t, tally, *seedsFlag)
	}
}

func summary(t *testing.T, v judge.Verdict) {
	for i := range v.Checks {
		v.Checks[i].Violations = nil
	}
	var b strings.Builder
	if err := v.Write(&b, 0); err != nil {
		t.Fatal(err)
	}
	t.Log("\n" + b.String())
}

// TestRandom tries seeds that nobody has tried.
func TestRandom(t *testing.T) {
	if *forFlag == 0 {
		t.Skip("no -for is given")
	}
	first := rand.Uint64N(1 << 48)
	t.Logf("seeds from %d", first)
	var sum judge.Verdict
	n, begun := 0, time.Now()
	for ; time.Since(begun) < *forFlag && !t.Failed(); n++ {
		_, v := play(t, first+uint64(n), false)
		report(t, first+uint64(n), v)
		sum.Add(v)
	}
	t.Logf("%d schedules, %.0f in a second", n, float64(n)/time.Since(begun).Seconds())
	summary(t, sum)
}

// TestConvict tries seeds until the judge finds the check of -by broken. It is
// for programs that were broken on purpose: see e2e/mutations.
func TestConvict(t *testing.T) {
	if *byFlag == "" {
		t.Skip("no -by is given")
	}
	for n := range *seedsFlag {
		_, v := play(t, *fromFlag+uint64(n), false)
		if c := v.Check(*byFlag); len(c.Violations) > 0 {
			t.Logf("convicted after %d: %s", n+1, c.Violations[0].What)
			return
		}
	}
	t.Errorf("not convicted after %d", *seedsFlag)
}
