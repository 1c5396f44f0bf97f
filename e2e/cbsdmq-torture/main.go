// Command cbsdmq-torture runs cbsdmq with real brokers, agents, clients and a
// simulated cbsd, kills, freezes and cuts whatever it can, and has a judge
// compare what ran with what clients were told.
//
//	go run ./e2e/cbsdmq-torture --for 60s --seed 7 --broker beanstalkd,nats
//	go run ./e2e/cbsdmq-torture soak --jobs 100000
//
// It is to be started in the repository. It ends with 1 if a promise was broken
// and 2 if the bench itself could not go on. Everything happens in a directory
// below --dir, which stays if something was found, and on loopback.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/cbsd/cbsdmq/cbsd/cbsdsim"
	"github.com/cbsd/cbsdmq/e2e/judge"
	"github.com/cbsd/cbsdmq/internal/testserver"
)

func main() {
	if cbsdsim.Called(os.Args[0], os.Environ()) { // a guest that the simulator started
		os.Exit(cbsdsim.Main(os.Args[1:], os.Environ(), os.Stdout, os.Stderr))
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// options are the flags, and what was made of them.
type options struct {
	length  time.Duration
	round   time.Duration
	seed    uint64
	pools   int
	clients int
	dir     string
	keep    bool
	peace   bool
	json    bool
	list    string
	cbsdmq  string
	source  string

	brokers []testserver.Broker
	progs   programs
	think   [2]time.Duration
	calm    [2]time.Duration
}

const (
	found    = 1
	troubled = 2
)

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	if len(args) > 0 && args[0] == "soak" {
		return runSoak(ctx, args[1:], stdout, stderr)
	}
	o := options{calm: [2]time.Duration{50 * time.Millisecond, 1500 * time.Millisecond}}
	fs := flag.NewFlagSet("cbsdmq-torture", flag.ContinueOnError)
	fs.SetOutput(stderr)
	fs.DurationVar(&o.length, "for", 30*time.Second, "how long to torture, all rounds together")
	fs.DurationVar(&o.round, "round", time.Minute, "how long a round may be: each has fresh pools and ends with a verdict")
	fs.Uint64Var(&o.seed, "seed", 0, "of the first round; 0 takes one by chance")
	fs.StringVar(&o.list, "broker", "beanstalkd,nats", "brokers, separated by commas: "+testserver.BrokerNames())
	fs.IntVar(&o.pools, "pools", 2, "pools of each broker")
	fs.IntVar(&o.clients, "clients", 1, "library clients of each pool, beside the others")
	o.think = [2]time.Duration{40 * time.Millisecond, 400 * time.Millisecond}
	fs.DurationVar(&o.think[1], "think", o.think[1], "longest pause of a client between two jobs")
	fs.BoolVar(&o.peace, "peace", false, "have no nemesis: the bench itself is looked at")
	common(fs, &o)
	if fs.Parse(args) != nil || fs.NArg() > 0 {
		return troubled
	}
	o.think[0] = min(o.think[0], o.think[1])
	var err error
	if o.brokers, err = testserver.FindBrokers(o.list); err == nil {
		err = o.prepare()
	}
	if err != nil {
		say(stderr, "cbsdmq-torture: %v", err)
		return troubled
	}
	defer os.RemoveAll(filepath.Join(o.dir, "bin"))
	if o.seed == 0 {
		o.seed = rand.Uint64N(1_000_000) + 1
	}
	total, err := o.rounds(ctx, stdout)
	if o.json {
		if jerr := json.NewEncoder(stdout).Encode(total); jerr != nil && err == nil {
			err = jerr
		}
	}
	switch {
	case err != nil:
		say(stderr, "cbsdmq-torture: %v", err)
		return troubled
	case total.Verdict.Convicted() > 0:
		return found
	}
	os.Remove(o.dir)
	return 0
}

// common are the flags of all modes.
func common(fs *flag.FlagSet, o *options) {
	fs.StringVar(&o.dir, "dir", "", "directory of the run, without a bin in it; default: one below that for temporary files")
	fs.BoolVar(&o.keep, "keep", false, "keep the directory also if nothing was found")
	fs.StringVar(&o.cbsdmq, "cbsdmq", "", "program to torture; default: it is built from the source")
	fs.StringVar(&o.source, "source", ".", "the repository")
	fs.Func("o", "text or json", func(v string) error {
		if v != "text" && v != "json" {
			return errors.New("neither text nor json")
		}
		o.json = v == "json"
		return nil
	})
}

// prepare makes the directory and the programs.
func (o *options) prepare() (err error) {
	if o.dir == "" {
		if o.dir, err = os.MkdirTemp("", "cbsdmq-torture-"); err != nil {
			return fmt.Errorf("making a directory: %w", err)
		}
	}
	if o.dir, err = filepath.Abs(o.dir); err != nil {
		return fmt.Errorf("finding the directory: %w", err)
	}
	bin := filepath.Join(o.dir, "bin")
	if err := os.MkdirAll(o.dir, 0o755); err != nil {
		return fmt.Errorf("making a directory: %w", err)
	}
	if err := os.Mkdir(bin, 0o755); err != nil { // it is removed at the end: never /usr/bin
		return fmt.Errorf("-dir: making a directory of the run's own: %w", err)
	}
	o.progs, err = build(o.source, bin, o.cbsdmq)
	return err
}

// A result is the verdict over all rounds.
type result struct {
	Seed    uint64        `json:"seed"`
	Brokers string        `json:"brokers"`
	Rounds  int           `json:"rounds"`
	Jobs    int           `json:"jobs"`
	Verdict judge.Verdict `json:"verdict"`
}

// rounds runs rounds until the time is over or a promise was broken.
func (o *options) rounds(ctx context.Context, w io.Writer) (total result, err error) {
	total = result{Seed: o.seed, Brokers: o.list}
	if o.json {
		w = io.Discard
	}
	deadline := time.Now().Add(o.length)
	for seed := o.seed; ; seed++ {
		length := min(o.round, time.Until(deadline))
		if total.Rounds > 0 && length < 10*time.Second {
			break
		}
		r := &round{o: *o, seed: seed, length: length, dir: filepath.Join(o.dir, fmt.Sprintf("seed%d", seed))}
		begun := time.Now()
		v, rerr := r.run(ctx)
		r.summary(w, v, time.Since(begun))
		total.Rounds++
		total.Jobs += r.jobs
		total.Verdict.Add(v)
		if v.Convicted() > 0 || rerr != nil {
			say(w, "everything that was recorded is in %s", r.dir)
			say(w, "again: go run ./e2e/cbsdmq-torture --seed %d --for %v --broker %s --pools %d --clients %d", seed, length.Round(time.Second), o.list, o.pools, o.clients)
		}
		if rerr != nil {
			err = fmt.Errorf("round with seed %d: %w", seed, rerr)
			break
		}
		if v.Convicted() > 0 || ctx.Err() != nil {
			break
		}
	}
	const shown = 3
	if werr := total.Verdict.Write(w, shown); werr != nil && err == nil {
		err = werr
	}
	return total, err
}
