// Command bench measures cbsdmq against what the machine can do, as ratios
// within one run, since absolute figures of a shared machine mean little:
//
//	go run ./bench            the table of the README, about two minutes
//	go run ./bench -long      also memory over 200,000 jobs
//	go run ./bench -broker rabbitmq,activemq     what is to be reached on each
//
// Client, broker, agent, runner and commands share the machine's cores, but that
// with -broker servers have half of them to themselves, unless -shared is
// given. The command is /bin/true in place of cbsd; the journal lies in -dir,
// which should be on a real disk, and is synced as always. Each rate is the median
// of -n interleaved runs.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime/pprof"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/cbsd/cbsdmq/internal/testserver"
	"github.com/cbsd/cbsdmq/runner"
)

func main() { os.Exit(run()) }

func run() int {
	var o options
	flag.StringVar(&o.dir, "dir", "/var/tmp", "`directory` on a real disk for journals and brokers")
	flag.IntVar(&o.repeats, "n", 3, "repeats of each measurement")
	flag.DurationVar(&o.length, "t", 3*time.Second, "length of one measurement")
	flag.BoolVar(&o.long, "long", false, "also run 200,000 jobs for their memory")
	flag.BoolVar(&o.verbose, "v", false, "print each repeat")
	flag.StringVar(&o.only, "only", "", "measure only what has this `text` in its name, and print no table")
	flag.StringVar(&o.profile, "cpuprofile", "", "write a profile of this process to `file`: with the in-memory bus, of the agent")
	flag.StringVar(&o.brokers, "broker", "", "measure these `brokers`, separated by commas, and not the table of the README: "+testserver.BrokerNames())
	flag.StringVar(&o.serversIn, "servers-in", "", "`directory` for what servers keep: in memory, where three of a cluster would share a disk; default: -dir")
	flag.BoolVar(&o.shared, "shared", false, "with -broker: let servers run on the same processors as all else, and measure jobs a second only")
	flag.StringVar(&o.apart, "apart", "", "start servers on these `processors` (used by bench itself)")
	runnerDir := flag.String("runner", "", "be the runner of this `directory` (used by bench itself)")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	var err error
	switch {
	case *runnerDir != "":
		err = runner.Serve(ctx, runner.Config{Dir: *runnerDir})
	case o.toBeApart():
		err = apart(os.Args[1:])
	default:
		err = measure(ctx, o, os.Stdout)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		return 1
	}
	return 0
}

type options struct {
	dir           string
	repeats       int
	length        time.Duration
	long, verbose bool
	only, profile string
	brokers       string
	serversIn     string
	shared        bool
	apart         string
	out           io.Writer
}

var quiet = slog.New(slog.DiscardHandler)

// A sample is one thing that is measured again and again.
type sample struct {
	name    string
	measure func(context.Context) (float64, error)
	got     []float64
}

func (s *sample) median() float64 {
	got := slices.Clone(s.got)
	slices.Sort(got)
	return got[len(got)/2]
}

// measure runs every sample in turn, several times over, and prints the table.
func measure(ctx context.Context, o options, w io.Writer) error {
	dir, err := os.MkdirTemp(o.dir, "cbsdmq-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	o.out = w
	b := &bench{o: o, dir: dir, binary: filepath.Join(dir, "cbsdmq")}
	if out, err := exec.CommandContext(ctx, "go", "build", "-o", b.binary, "./cmd/cbsdmq").CombinedOutput(); err != nil {
		return fmt.Errorf("building cbsdmq: %w\n%s", err, out)
	}

	if o.brokers != "" {
		return b.brokers(ctx, o.brokers, w)
	}
	raw := &sample{name: "raw fork+exec+wait, 4 workers", measure: b.raw}
	mem := &sample{name: "in-memory bus, 16 in flight", measure: b.rate(b.memory, 16, false)}
	bean16 := &sample{name: "beanstalkd, 16 in flight", measure: b.rate(b.on("beanstalkd-nobinlog"), 16, false)}
	bean64 := &sample{name: "beanstalkd, 64 in flight", measure: b.rate(b.on("beanstalkd-nobinlog"), 64, false)}
	named := &sample{name: "beanstalkd, 16 in flight, a guest each", measure: b.rate(b.on("beanstalkd-nobinlog"), 16, true)}
	f50 := &sample{name: "beanstalkd -f50, 16 in flight", measure: b.rate(b.on("beanstalkd"), 16, false)}
	nats := &sample{name: "embedded NATS, 16 in flight", measure: b.rate(b.on("embedded"), 16, false)}
	own := &sample{name: "embedded NATS alone: put, get, ack, reply, with 2 synced writes", measure: b.natsAlone}
	floor := &sample{name: "floor of the latency, s", measure: b.floor}
	single := &sample{name: "latency p50 with 1 in flight, s", measure: latency(b.on("beanstalkd-nobinlog"))}
	memNamed := &sample{name: "in-memory bus, 16 in flight, a guest each", measure: b.rate(b.memory, 16, true)}
	all := []*sample{raw, mem, memNamed, bean16, bean64, named, f50, nats, own, floor, single}
	if o.profile != "" {
		f, err := os.Create(o.profile)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := pprof.StartCPUProfile(f); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	if err := b.take(ctx, all, w); err != nil || o.only != "" {
		return err
	}
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	row := func(name string, v, must, aim float64, atMost bool) {
		verdict := "ok"
		if v < must && !atMost || v > must && atMost {
			verdict = "MISSED"
		}
		fmt.Fprintf(t, "%s\t%.2f\t%.2f\t%.2f\t%s\n", name, v, must, aim, verdict)
	}
	fmt.Fprintf(t, "measure\tmeasured\tmust\taim\t\n")
	row("beanstalkd without binlog, 16 in flight, share of raw", bean16.median()/raw.median(), 0.5, 0.55, false)
	row("beanstalkd without binlog, 64 in flight, share of raw", bean64.median()/raw.median(), 0.5, 0.65, false)
	row("in-memory bus, 16 in flight, share of raw", mem.median()/raw.median(), 0.65, 0.75, false)
	row("beanstalkd -f50, share of the run without binlog", f50.median()/bean16.median(), 0.85, 0.95, false)
	row("embedded NATS that syncs, share of the smaller of beanstalkd and NATS alone", nats.median()/min(bean16.median(), own.median()), 0.85, 0.95, false)
	row("latency p50 with 1 in flight, multiple of the floor", single.median()/floor.median(), 2.2, 1.8, true)
	row("a guest for each job, share of no guest", named.median()/bean16.median(), 0.9, 0.95, false)
	mb, err := b.bigOutput(ctx)
	if err != nil {
		return fmt.Errorf("a job that prints 50 MB: %w", err)
	}
	row("agent and runner, MB more after a job that printed 50 MB", mb, 8, 8, true)
	v, err := b.openNamed("embedded")
	if err != nil {
		return err
	}
	defer v.close()
	core, lines, err := b.idle(ctx, v)
	if err != nil {
		return fmt.Errorf("idle agent: %w", err)
	}
	row("idle agent with 10 pools, % of a core", core, 1, 1, true)
	row("idle agent with 10 pools, log lines", float64(lines), 0, 0, true)
	if o.long {
		growth, err := b.growth(ctx)
		if err != nil {
			return fmt.Errorf("memory over many jobs: %w", err)
		}
		row("agent and runner, MB after 200,000 jobs minus after 1,000", growth, 4, 0, true)
	}
	t.Flush()
	fmt.Fprintf(w, "\nraw %.0f/s, beanstalkd %.0f/s and %.0f/s, memory %.0f/s, nats %.0f/s (alone %.0f/s), latency %.2f ms over a floor of %.2f ms\n",
		raw.median(), bean16.median(), bean64.median(), mem.median(), nats.median(), own.median(), 1e3*single.median(), 1e3*floor.median())
	return nil
}
