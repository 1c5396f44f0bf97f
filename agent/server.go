package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/cbsd/cbsdmq"
	"github.com/cbsd/cbsdmq/bus"
	"github.com/cbsd/cbsdmq/cbsd"
	"github.com/cbsd/cbsdmq/internal/senders"
	"github.com/cbsd/cbsdmq/journal"
	"github.com/cbsd/cbsdmq/runner"
)

// A Bus is what a Server needs of a broker; *bus.Bus is one.
type Bus interface {
	Put(ctx context.Context, ms ...bus.Message) []bus.Result
	PutDuring(ctx context.Context, outages int, ms ...bus.Message) []bus.Result
	Consume(ctx context.Context, o bus.ConsumeOptions) (bus.Consumer, error)
	Sweep(ctx context.Context, match func(tube string) bool, age time.Duration) (removed int, err error)
	Inspect(ctx context.Context, t bus.Tube) (bus.Info, error)
	Outages() int
	Caps() bus.Caps
	Addr() string
}

// An Endpoint is one broker on which a pool is served.
type Endpoint struct {
	Name    string // of its section in the configuration
	Bus     Bus
	Tube    string
	Prefix  string        // of reply tubes
	Timeout time.Duration // for the broker's confirmation
}

// A Runner starts commands; *runner.Client is one.
type Runner interface {
	Start(starts ...runner.Start) error
	Ack(keys ...runner.Key) error
	List(ctx context.Context, pool string) (runner.Snapshot, error)
	Kill(ctx context.Context, key runner.Key, sig syscall.Signal) error
	Output(ctx context.Context, key runner.Key) (stdout, stderr runner.File, err error)
	Next(ctx context.Context) ([]runner.Event, error)
	Close() error
}

// CBSD is what a Server needs to know of CBSD; *cbsd.Pool knows it.
type CBSD interface {
	Plan(job cbsdmq.Job) (cbsd.Plan, error)
	Env(job string, plan cbsd.Plan) []string
	Dir() string
	Guests(ctx context.Context) ([]cbsdmq.Guest, error)
	Guest(ctx context.Context, name string) (cbsdmq.Guest, bool, error)
	Images(ctx context.Context) (cbsdmq.Store, []cbsdmq.Image, error)
	Before(ctx context.Context, plan cbsd.Plan) (cbsd.Snapshot, error)
	After(ctx context.Context, plan cbsd.Plan, before cbsd.Snapshot, exit cbsd.Exit, tail []byte) cbsd.Verdict
	Lookups(ctx context.Context, plan cbsd.Plan, job cbsdmq.Job, now cbsd.Snapshot) (guid, dskGuid, vnc string)
	Unknown(ctx context.Context, plan cbsd.Plan) string
	Measure(ctx context.Context, plan cbsd.Plan, stdout, stderr []byte) cbsd.Moved
	Foreign(ctx context.Context, guests []string, own func(pid int) bool) (cbsd.Busy, bool)
}

// Config is everything a Server needs. The zero value of a limit means none.
type Config struct {
	Pool      string
	Host      string
	Boot      string // boot id of this host
	Version   string
	Command   string // path of cbsd
	Self      string // path of this program, for commands of its own
	Endpoints []Endpoint
	Journal   *journal.Journal
	CBSD      CBSD
	// Dial finds the runner, and may start one. While it fails it is called again,
	// and why jobs wait is its error with the hint.
	Dial func(ctx context.Context) (Runner, error)
	// RunDir is the runner's directory. The agent leaves a mark in it, to see
	// whether it was emptied: then the runner has forgotten what it started.
	RunDir string

	// Elsewhere names the other pool of this host that has a guest of that name,
	// "" where there is none; nil = there are no others. It is asked before a
	// guest is made, and Made is told when the job that was to make it has ended.
	Elsewhere func(ctx context.Context, guest string) (pool string)
	Made      func(guest string)

	// Fit says why changes must not begin with the CBSD that is installed now, ""
	// where they may; nil: they may. It is asked before each.
	Fit func(ctx context.Context) (unfit string)

	// Autostart reads what CBSD is to start after a boot of the host; nil: that is
	// not for this agent to do. StateDir is where it notes the boot.
	Autostart func(ctx context.Context) ([]cbsd.BootGuest, error)
	StateDir  string

	Workers       int // changing commands at once
	Readers       int // reading commands at once
	Backlog       int // accepted jobs that have not ended
	OutputMax     int64
	TimeLimit     time.Duration // of one command
	KillGrace     time.Duration // from SIGTERM to SIGKILL
	ForeignWait   time.Duration // for a command on the guest that is not ours
	LegacyExpires time.Duration // for jobs without an expiry of their own
	ReplyTTL      time.Duration // of unread replies
	Limits        journal.Limits

	CBSDVersion func() string // for people; nil: not known
	Workdir     string        // whose file system is told of; "": none

	Stats *Stats // nil: nothing is counted

	// Senders are those whose signatures count; nil: none is looked at. With
	// RequireSigned what is not signed is refused.
	Senders       *senders.Set
	RequireSigned bool

	// Crashed returns, once, the printed ids of jobs of this pool whose handling
	// crashed the agent before this one; nil: none did.
	Crashed func() []string

	Log *slog.Logger
	// Ready is called when the Server has the runner and the journal's open jobs,
	// and begins to take others; nil: it is not.
	Ready func()
}

// A Server serves one pool.
type Server struct {
	cfg   Config
	log   *slog.Logger
	pool  string // uuid of the pool
	start time.Time
	inbox chan func(*loop)
	out   map[string]*outbox // by endpoint

	open    atomic.Int64  // jobs that have not ended
	room    chan struct{} // holds an element after a job ended
	trouble atomic.Pointer[string]
	unfit   atomic.Pointer[string] // why no change begins with the CBSD of now
	full    atomic.Bool            // the trouble is a full disk
	healthy chan struct{}          // holds an element after trouble ended
	running atomic.Int64
	held    atomic.Int64
	drain   atomic.Bool
	idle    chan struct{} // closed when drained and nothing runs
	live    liveOutputs
	looks   atomic.Int32 // at how far commands are
	runner  current

	pauses atomic.Pointer[pauses] // set by the loop
	disk   disk
	survey surveyor

	seen       seen // signed requests
	bystanders bystanders
	suspects   map[string]bool // printed ids: see countCrashes; not written once it serves

	life context.Context // ends after the loop
	end  context.CancelFunc
}

// New makes a Server. Its journal must be open; Serve does the rest.
func New(cfg Config) *Server {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	s := &Server{
		cfg:     cfg,
		log:     cfg.Log.With("pool", cfg.Pool),
		pool:    cfg.Journal.Meta().Pool,
		start:   time.Now(),
		inbox:   make(chan func(*loop), 256),
		out:     make(map[string]*outbox),
		room:    make(chan struct{}, 1),
		healthy: make(chan struct{}, 1),
		idle:    make(chan struct{}),
	}
	s.life, s.end = context.WithCancel(context.Background())
	for _, e := range cfg.Endpoints {
		s.out[e.Name] = newOutbox(s, e)
	}
	return s
}

// Serve runs until ctx ends, or until what it needs is gone for good. It leaves
// commands running: the next Server of the pool adopts them. Deliveries that
// are not in the journal by then go back to the broker.
func (s *Server) Serve(ctx context.Context) error {
	l := newLoop(s)
	if err := s.cfg.Journal.Sweep(ctx); err != nil {
		s.log.Warn("could not remove stray output", "err", err)
	}
	first, err := s.adopt(ctx, l)
	if err != nil {
		return fmt.Errorf("pool %s: %w", s.cfg.Pool, err)
	}
	if past := s.cfg.Journal.Past(); past != nil {
		switch {
		case past.Held > 0:
			s.log.Warn(past.String(), "hint",
				fmt.Sprintf("look at them with `cbsdmq jobs`, then `cbsdmq held release %[1]s` or `cbsdmq held drop %[1]s`", s.cfg.Pool))
		case past.Lost:
			s.log.Warn(past.String())
		default:
			s.log.Info(past.String())
		}
	}

	if s.cfg.Ready != nil {
		s.cfg.Ready()
	}

	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	tasks := []func(context.Context){
		func(ctx context.Context) { s.followRunner(ctx, first) },
		s.keep,
		s.boot,
	}
	for _, e := range s.cfg.Endpoints {
		tasks = append(tasks,
			func(ctx context.Context) { s.intake(ctx, e) },
			func(ctx context.Context) { s.control(ctx, e) },
			s.out[e.Name].run)
	}
	// The loop outlives the others, so that what they post last is written.
	loopCtx, stopLoop := context.WithCancel(context.WithoutCancel(ctx))
	done := make(chan struct{})
	go func() { defer close(done); l.run(loopCtx) }()
	for _, task := range tasks {
		wg.Go(func() { task(ctx) })
	}
	<-ctx.Done()
	wg.Wait()
	stopLoop()
	<-done
	s.end()
	if r := s.runner.swap(nil); r != nil {
		r.Close()
	}
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// Drain makes the Server accept and begin nothing more. The channel is closed
// when no command runs.
func (s *Server) Drain() <-chan struct{} {
	s.drain.Store(true)
	s.post(s.life, func(l *loop) { l.checkIdle() })
	return s.idle
}

// post hands f to the loop. It returns false when ctx ends first.
func (s *Server) post(ctx context.Context, f func(*loop)) bool {
	select {
	case s.inbox <- f:
		return true
	case <-ctx.Done():
		return false
	}
}

// Info says how the Server is.
func (s *Server) Info() cbsdmq.AgentInfo {
	in := cbsdmq.AgentInfo{
		Pool: s.cfg.Pool, Host: s.cfg.Host, Version: s.cfg.Version, PID: syscall.Getpid(), StartedAt: s.start,
		Running: int(s.running.Load()), Held: int(s.held.Load()), Workers: s.cfg.Workers, Readers: s.cfg.Readers,
	}
	in.Queued = int(s.open.Load()) - in.Running - in.Held
	if t := s.trouble.Load(); t != nil {
		in.Trouble = *t
	} else if t := s.runner.missing(); t != "" {
		in.Trouble = t
	} else if t := s.unfit.Load(); t != nil && *t != "" {
		in.Trouble = *t
	}
	return in
}

// current is the connection to the runner, nil while there is none.
type current struct {
	mu  sync.Mutex
	r   Runner
	err error // why there is none
}

func (c *current) get() Runner {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.r
}

func (c *current) swap(r Runner) (old Runner) {
	c.mu.Lock()
	defer c.mu.Unlock()
	old, c.r = c.r, r
	return old
}

// lose closes the connection that was lost, if there is one, and notes why there
// is none.
func (c *current) lose(err error) {
	c.mu.Lock()
	old := c.r
	c.r, c.err = nil, err
	c.mu.Unlock()
	if old != nil {
		old.Close()
	}
}

// missing says why no command can be started, "" while there is a runner.
func (c *current) missing() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.r != nil {
		return ""
	}
	text := "no command can be started"
	if c.err != nil {
		text += ": " + c.err.Error()
	}
	if hint := cbsdmq.HintOf(c.err); hint != "" {
		text += ": " + hint
	}
	return text
}

var _ Runner = (*runner.Client)(nil)
var _ CBSD = (*cbsd.Pool)(nil)
