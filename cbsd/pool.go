package cbsd

import (
	"context"
	"log/slog"

	"github.com/cbsd/cbsdmq"
)

// DefaultCommand is where CBSD installs its command.
const DefaultCommand = "/usr/local/bin/cbsd"

// Config says which environment a Pool is and what may be run in it.
type Config struct {
	CBSD          string       // path of the cbsd command; "" = DefaultCommand
	Workdir       string       // the environment, such as /pool1
	RunDir        string       // where the working directory of commands is made
	Color         bool         // do not set NOCOLOR
	Allow         []string     // see Policy; nil = every non-interactive command
	AllowWildcard bool         // permit * in a jname
	StrictArgs    bool         // refuse every unknown argument
	Log           *slog.Logger // nil = discard
}

// A Pool is one CBSD environment. Its methods may be called concurrently.
type Pool struct {
	cfg Config
}

// Open prepares a Pool. It needs no working CBSD: what is wrong with the
// environment is told by Probe.
func Open(ctx context.Context, cfg Config) (*Pool, error) { return &Pool{cfg: cfg}, nil }

// Close releases the databases that the pool keeps open.
func (p *Pool) Close() error { return nil }

// Env is the whole environment of the command of a job. job is its printed id,
// which the command and its children carry as CBSDMQ_JOB.
func (p *Pool) Env(job string, plan Plan) []string { return nil }

// Dir is the working directory of commands: empty and writable by nobody,
// since CBSD runs a file named CBSDfile there as shell.
func (p *Pool) Dir() string { return "" }

// Guests reads the inventory, in order of name.
func (p *Pool) Guests(ctx context.Context) ([]cbsdmq.Guest, error) { return nil, nil }

// Guest reads one guest; false where there is none of that name.
func (p *Pool) Guest(ctx context.Context, name string) (cbsdmq.Guest, bool, error) {
	return cbsdmq.Guest{}, false, nil
}

// Lookups returns the three fields of a reply that describe the guest: its zfs
// guid, that of its first disk and, after a start, the address of its VNC
// server, each as cbsd prints it, with a newline. See docs/WIRE.md.
func (p *Pool) Lookups(ctx context.Context, plan Plan, job cbsdmq.Job, exit int) (guid, dskGuid, vnc string) {
	return "0", "0", ""
}

// Unknown says in plain words what CBSD's state shows about the guest now, for
// a job whose end cannot be known.
func (p *Pool) Unknown(ctx context.Context, plan Plan) string { return "" }
