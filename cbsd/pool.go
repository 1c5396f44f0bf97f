package cbsd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/cbsd/cbsdmq"
)

// DefaultCommand is where CBSD installs its command.
const DefaultCommand = "/usr/local/bin/cbsd"

// Config says which environment a Pool is and what may be run in it.
//
// Allow names what may be run. Nil, or with "all", it is every command that
// this host's CBSD has, but those that need a terminal or run other programs.
// A command such as "jexec" permits it even so, and "bset:jconf" an argument
// that names a file which CBSD would run, with its command. A list without
// "all" permits nothing else, and an empty one nothing.
type Config struct {
	CBSD          string       // absolute path of the cbsd command; "" = DefaultCommand
	Workdir       string       // absolute path of the environment, such as /pool1
	RunDir        string       // where the working directory of commands is made; "" = use /var/empty
	Color         bool         // do not set NOCOLOR
	Allow         []string     // commands and arguments, see above
	AllowWildcard bool         // permit * in a jname; such a job has the lane WholePool
	StrictArgs    bool         // refuse every argument that the command does not know
	Log           *slog.Logger // nil = discard
}

// A Pool is one CBSD environment. Its methods may be called concurrently.
type Pool struct {
	cfg   Config
	allow allowance
	dir   string
	host  *host
	store *store
	scan  *scanner
	fit   fitness
}

// Open prepares a Pool. It needs no working CBSD: what is wrong with the
// environment is told by Probe. The error is of cbsdmq.CodeBadConfig.
func Open(ctx context.Context, cfg Config) (*Pool, error) {
	if cfg.CBSD == "" {
		cfg.CBSD = DefaultCommand
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	for field, path := range map[string]string{"cbsd": cfg.CBSD, "cbsdenv": cfg.Workdir} {
		if !filepath.IsAbs(path) {
			return nil, cbsdmq.Errorf(cbsdmq.CodeBadConfig, field, "%q is not an absolute path", path)
		}
	}
	allow, err := parseAllow(cfg.Allow)
	if err != nil {
		return nil, err
	}
	dir, err := emptyDir(cfg.RunDir)
	if err != nil {
		e := cbsdmq.Errorf(cbsdmq.CodeBadConfig, "run_dir", "working directory of commands: %w", err).
			WithHint("CBSD runs a file named CBSDfile there as shell: it must be empty and ours")
		if _, ok := errors.AsType[*os.PathError](err); ok {
			e.Hint = `name a directory that the agent can make and write with the key "run_dir" or "state_dir"`
		}
		return nil, e
	}
	p := &Pool{cfg: cfg, allow: allow, dir: dir, store: newStore(), scan: new(scanner)}
	p.host = &host{
		cbsd: cfg.CBSD, dist: distDir, modules: p.path("modules"),
		env: func() []string { return p.environ() }, dir: p.Dir, now: time.Now,
		files: make(map[string]found), names: make(map[string]answer),
	}
	return p, nil
}

// Close releases the databases that the pool keeps open. Until then they keep
// its file system busy.
func (p *Pool) Close() error { return p.store.close() }

// Dir is the working directory of commands: empty and writable by nobody.
func (p *Pool) Dir() string { return p.dir }

// Env is the whole environment of the command of a plan. job is the printed id,
// which the command and its children carry as CBSDMQ_JOB.
func (p *Pool) Env(job string, plan Plan) []string {
	env := append(p.environ(), "CBSDMQ_JOB="+job)
	if cmd, ok := catalogue()[plan.Command]; ok && cmd.yes {
		env = append(env, "ALWAYS_YES=1")
	}
	return env
}

// environ is what every cbsd gets. Nothing is inherited: variables named
// H_CBSD_* would preset arguments.
func (p *Pool) environ() []string {
	env := []string{
		"PATH=/sbin:/bin:/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin",
		"HOME=/root", "LANG=C",
		"workdir=" + p.cfg.Workdir, "cbsd_workdir=" + p.cfg.Workdir, "NOINTER=1",
	}
	if !p.cfg.Color {
		env = append(env, "NOCOLOR=1")
	}
	return env
}

// path is a path below the workdir.
func (p *Pool) path(elem ...string) string {
	return filepath.Join(append([]string{p.cfg.Workdir}, elem...)...)
}

// emptyDir makes the directory empty below runDir, or looks for it.
func emptyDir(runDir string) (string, error) {
	dir := "/var/empty"
	if runDir != "" {
		dir = filepath.Join(runDir, "empty")
		if err := os.MkdirAll(runDir, 0o700); err != nil {
			return "", err
		}
		if err := os.Mkdir(dir, 0o555); err != nil && !errors.Is(err, os.ErrExist) {
			return "", err
		}
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return "", err
	}
	if !info.IsDir() {
		return "", fmt.Errorf("%s is not a directory", dir)
	}
	if uid := owner(info); uid != 0 && uid != os.Geteuid() {
		return "", fmt.Errorf("%s belongs to user %d", dir, uid)
	}
	if runDir != "" && info.Mode().Perm() != 0o555 {
		if err := os.Chmod(dir, 0o555); err != nil {
			return "", err
		}
	} else if info.Mode().Perm()&0o022 != 0 {
		return "", fmt.Errorf("%s is writable by others", dir)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "", err
	}
	if len(entries) > 0 {
		return "", fmt.Errorf("%s is not empty: it has %s", dir, entries[0].Name())
	}
	return dir, nil
}
