package main

import (
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/cbsd/cbsdmq"
	"github.com/cbsd/cbsdmq/client"
)

// jobFlags are those of run and submit.
type jobFlags struct {
	target
	key     string
	inOrder bool
	force   bool
	expires timeFlag
}

func (o *jobFlags) flags(cmd *cobra.Command) {
	o.target.flags(cmd)
	f := cmd.Flags()
	f.StringVar(&o.sender, "sender", who(), "who asks; jobs lists it")
	f.StringVar(&o.key, "key", "", "your own `name` for the work: submitted twice, it runs once")
	f.BoolVar(&o.inOrder, "in-order", false, "have a command that only reads wait for those before it on its guest")
	f.BoolVar(&o.force, "force", false, "stop, remove or rename the guest that carries the pool's own broker all the same")
	f.Var(&o.expires, "expires", "refuse the job if it has not begun after this time; 0 never does")
}

// job makes a job of COMMAND [word | key=value ...].
func (o *jobFlags) job(args []string) (client.Job, error) {
	if len(args) == 0 || args[0] == "" {
		return client.Job{}, usage("COMMAND is missing")
	}
	job := client.Job{Command: args[0], Key: o.key, InOrder: o.inOrder, Force: o.force}
	if o.expires > 0 {
		job.Expires = time.Now().Add(time.Duration(o.expires)).UTC().Truncate(time.Second)
	}
	for _, arg := range args[1:] {
		name, value, ok := strings.Cut(arg, "=")
		switch {
		case !ok:
			job.Words = append(job.Words, arg)
		case name == "":
			return job, usage("%q has a value and no name", arg)
		default:
			job.Args = append(job.Args, cbsdmq.Arg{Name: name, Value: value})
		}
	}
	return job, nil
}

func newRunCommand(g *globals) *cobra.Command {
	var o jobFlags
	var noStream, progress bool
	accept := timeFlag(30 * time.Second)
	cmd := &cobra.Command{
		Use:   "run [POOL] COMMAND [word | key=value ...]",
		Short: "Run a command and wait for its end",
		Long: `Run a command of cbsd in a pool: print its output as it comes and exit with its
status. Arguments without = are words; they follow the others.

POOL may be left out where the guest that COMMAND names is in one pool only: all
pools are asked for it, and all have to answer. A word that is the name of a pool
is always the pool, never a command.

How far a command is that takes more than seconds is shown on stderr, where that
can be seen: from what it prints, or from the size of the file that it makes. At a
terminal it is a line at the bottom, else a line now and then. With -o json and
--progress stdout has an object for each step before the one of the end.

Ctrl-C leaves the job, which goes on, and says how to come back; a second one
cancels it.

The exit status is that of the command, but not 0 where what was asked for is
not there afterwards; 2 the job was refused, 75 the agent does not answer or the
job was left, 124 timed out, 125 its end cannot be known, 127 the agent has no
cbsd, 130 cancelled.`,
		Example: `  cbsdmq run pool1 jls
  cbsdmq run pool1 bcreate jname=vm1 vm_os_type=linux vm_os_profile=cloud-Debian-x86-12 imgsize=10g
  cbsdmq run pool1 bstart jname=vm1
  cbsdmq run bstart vm1
  cbsdmq run pool1 bget vm_ram vm_cpus jname=vm1
  cbsdmq run --key ORDER-4711 pool1 bremove jname=vm1
  cbsdmq run -o json --progress pool1 bexport jname=vm1
  cbsdmq run --config ./pool1.json bls`,
		ValidArgsFunction: g.completeCommand,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, cancel := o.within(cmd.Context())
			defer cancel()
			pool, args, err := o.poolOfJob(ctx, g, args)
			if err != nil {
				return err
			}
			job, err := o.job(args)
			if err != nil {
				return err
			}
			job.Stream = !noStream && (progress || !g.json())
			w := &watch{g: g, progress: progress && g.json()}
			defer w.listen()()
			w.s, w.id, err = g.submit(ctx, &o, job, accept, pool)
			if err != nil {
				return err
			}
			defer w.s.Close()
			final, err := w.run(ctx, job.Stream)
			if err != nil {
				return err
			}
			return g.finish(w.id, final, job.Stream && !w.progress)
		},
	}
	o.flags(cmd)
	cmd.Flags().BoolVar(&noStream, "no-stream", false, "print the output at the end, and no more of it than one reply holds")
	cmd.Flags().BoolVar(&progress, "progress", false, "with -o json: print how far the job is, too")
	cmd.Flags().Var(&accept, "accept-timeout", "give up if the agent does not have the job after this time; 0 never does")
	return cmd
}
