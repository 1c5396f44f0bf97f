package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/cbsd/cbsdmq"
	"github.com/cbsd/cbsdmq/cbsd"
	"github.com/cbsd/cbsdmq/config"
)

// initFlags are those of init.
type initFlags struct {
	cbsd.Environment
	etc   string // directory of the pool's file
	limit timeFlag
	quiet bool
}

func newInitCommand(g *globals) *cobra.Command {
	o := initFlags{limit: timeFlag(10 * time.Minute)}
	cmd := &cobra.Command{
		Use:   "init POOL DIR",
		Short: "Make a CBSD environment and the pool's configuration",
		Long: `Make a CBSD environment in DIR with CBSD's initenv, without a question, and write
the configuration of the pool POOL.

Nothing else of the host is to change: all switches of initenv that would change
rc.conf, sysctl.conf, sudoers or the home of the user cbsd are off, and so is NAT;
on Linux it finds neither systemctl nor usermod. These files, those of services and
those of cron are compared before and after. What initenv changed all the same is
named, and the exit status is 1, though the environment can be used. Whether it is
whole is read from its files: initenv ends with status 0 in most failures.

DIR must be empty or not there; on ZFS let it be a dataset of its own. A second run
on a whole environment changes nothing, one after a crash goes on.`,
		Example: `  zfs create -o mountpoint=/pool1 tank/pool1 && cbsdmq init pool1 /pool1
  cbsdmq init --nodename pool2.example.org pool2 /pool2
  cbsdmq init --set jnameserver=192.0.2.53 pool3 /pool3`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return g.initPool(cmd.Context(), o, args[0], args[1])
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.Nodename, "nodename", "", "`name` of the environment's node (default POOL and the name of the host)")
	f.StringVar(&o.etc, "etc", "", "`directory` of the pool's configuration file (default "+config.DefaultPools+", or where --pools or "+config.PoolsEnv+" say)")
	f.StringArrayVar(&o.Set, "set", nil, "a further `NAME=VALUE` for initenv, as in its initenv.conf; may be given several times")
	f.StringVar(&o.Initenv, "initenv", cbsd.DefaultInitenv, "CBSD's `script`")
	f.Var(&o.limit, "timeout", "end initenv after this time")
	f.BoolVarP(&o.quiet, "quiet", "q", false, "do not show what initenv prints")
	return cmd
}

// An initReport is what init did, as JSON.
type initReport struct {
	Pool     string   `json:"pool"`
	Dir      string   `json:"dir"`
	Nodename string   `json:"nodename"`
	ZFS      bool     `json:"zfs"`
	Made     bool     `json:"made"` // false: it was there
	File     string   `json:"file"`
	Written  bool     `json:"written"`      // false: the file was there
	Host     []string `json:"host_changed"` // files of the host that initenv changed
}

func (g *globals) initPool(ctx context.Context, o initFlags, pool, dir string) error {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	o.Dir, o.Limit = dir, time.Duration(o.limit)
	if o.Limit == 0 {
		return usage("--timeout: initenv needs a limit: it may ask for ever")
	}
	if !cbsdmq.ValidPool(pool) {
		return cbsdmq.Errorf(cbsdmq.CodeRefused, "POOL", "%q is not the name of a pool", pool).WithHint("a-z, 0-9, _ and -, at most 32")
	}
	if o.etc == "" {
		o.etc = g.places().Dirs[0]
	}
	file := filepath.Join(o.etc, pool+".json")
	if err := g.freeForPool(pool, dir, file); err != nil {
		return err
	}
	if o.Nodename == "" {
		host, err := os.Hostname()
		if err != nil {
			return fmt.Errorf("the name of this host: %w", err)
		}
		o.Nodename = strings.ReplaceAll(pool, "_", "-") + "." + host
	}
	if !o.quiet {
		o.Out = g.stderr
	}
	made, err := cbsd.Init(ctx, o.Environment)
	g.hostChanged(made.Changed)
	if err != nil {
		return err
	}
	written, err := writePool(file, pool, dir)
	if err != nil {
		return err
	}
	r := initReport{Pool: pool, Dir: dir, Nodename: made.Node, ZFS: made.ZFS, Made: !made.Already, File: file, Written: written, Host: made.Changed}
	if err := g.reportInit(r); err != nil {
		return err
	}
	if len(made.Changed) > 0 {
		return &exitError{status: cbsdmq.ExitFailure, err: errors.New("the environment is whole and can be used; status 1 only says that initenv changed the files of the host above")}
	}
	return nil
}

// freeForPool refuses what would make two pools of one environment, or one pool
// of two.
func (g *globals) freeForPool(pool, dir, file string) error {
	places := g.places()
	places.Dirs = append(places.Dirs, filepath.Dir(file))
	for _, found := range config.Find(places).Found {
		env := filepath.Clean(found.Config.CBSDEnv)
		switch {
		case env == dir && found.Name != pool:
			return cbsdmq.Errorf(cbsdmq.CodeRefused, "DIR", "%s is the environment of pool %s: %s", dir, found.Name, found.File).
				WithHint("name another directory")
		case env != dir && found.Name == pool:
			return cbsdmq.Errorf(cbsdmq.CodeRefused, "POOL", "pool %s has the environment %s: %s", pool, env, found.File).
				WithHint("name another pool, or remove its file first")
		}
	}
	return nil
}

// hostChanged says loudly that the host is not as it was.
func (g *globals) hostChanged(files []string) {
	if len(files) == 0 {
		return
	}
	warn(g.stderr, "INITENV CHANGED FILES OF THIS HOST:")
	for _, f := range files {
		warn(g.stderr, "  %s", f)
	}
	fmt.Fprintln(g.stderr, "hint: put them back from your backup if you do not want that; the pool does not need it, but CBSD wants a file /etc/rc.conf")
}

// writePool writes the configuration file of a pool, unless there is one.
func writePool(file, pool, dir string) (written bool, err error) {
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return false, fmt.Errorf("writing the configuration: %w", err)
	}
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, os.ErrExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("writing the configuration: %w", err)
	}
	_, err = io.WriteString(f, config.ExampleFor(pool, dir))
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		_ = os.Remove(file)
		return false, fmt.Errorf("writing the configuration: %w", err)
	}
	return true, nil
}

func (g *globals) reportInit(r initReport) error {
	if g.json() {
		return g.print(r)
	}
	fs := "no ZFS: no snapshots"
	if r.ZFS {
		fs = "on ZFS"
	}
	w := &strings.Builder{}
	switch {
	case !r.Made && !r.Written:
		fmt.Fprintf(w, "%s is a whole environment, node %s, %s; its configuration is %s: nothing was changed\n", r.Dir, r.Nodename, fs, r.File)
	case !r.Made:
		fmt.Fprintf(w, "%s is a whole environment, node %s, %s: it was not changed\n", r.Dir, r.Nodename, fs)
	default:
		fmt.Fprintf(w, "%s: made, node %s, %s\n", r.Dir, r.Nodename, fs)
	}
	if r.Written {
		fmt.Fprintf(w, "%s: written, with every key explained; the broker is beanstalkd at 127.0.0.1:11300\n", r.File)
	}
	if r.Made || r.Written {
		fmt.Fprintf(w, `next:
  cbsdmq check --config %s
  service cbsdmq_runner start; service cbsdmq restart
  cbsdmq run %s jls
  cbsdmq warm %s
`, r.File, r.Pool, r.Pool)
	}
	_, err := io.WriteString(g.stdout, w.String())
	return err
}
