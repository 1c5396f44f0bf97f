package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/cbsd/cbsdmq"
	"github.com/cbsd/cbsdmq/cbsd"
	"github.com/cbsd/cbsdmq/client"
)

func newResolveCommand(g *globals) *cobra.Command {
	var t target
	var done, failed bool
	var reason string
	cmd := &cobra.Command{
		Use:   "resolve ID --done|--failed",
		Short: "Settle a job whose end is unknown",
		Long: `Note what you have found out about a job that ended unknown: that it did what it
was to do, or that it did not. The verdict is kept with your name beside the end
of the job, and shown by jobs, follow and log. The end itself stays unknown, and
so does the exit status of follow: nobody is told that it had been otherwise.
A later verdict takes the place of an earlier one; log shows both.`,
		Example: `  cbsdmq jobs --state unknown
  cbsdmq resolve pool1/01K9ZQ6V4S8H2M0W3C5D7E9F1G --done --reason looked
  cbsdmq resolve --failed --by anna pool1/01K9ZQ6V4S8H2M0W3C5D7E9F1G`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: g.completeJob,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, cancel := t.within(cmd.Context())
			defer cancel()
			s, err := g.openJob(ctx, &t, args[0])
			if err != nil {
				return err
			}
			defer s.Close()
			state := cbsdmq.Done
			if failed {
				state = cbsdmq.Failed
			}
			if err := s.Resolve(ctx, args[0], state, t.sender, reason); err != nil {
				return err
			}
			j, _, err := s.Job(ctx, args[0])
			if err != nil {
				return err
			}
			if g.json() {
				return g.print(j)
			}
			_, err = fmt.Fprintf(g.stdout, "%s %s\n", j.ID, stateOf(j))
			return err
		},
	}
	t.flags(cmd)
	t.senderFlag(cmd)
	cmd.Flags().BoolVar(&done, "done", false, "it did what it was to do")
	cmd.Flags().BoolVar(&failed, "failed", false, "it did not")
	cmd.Flags().StringVar(&reason, "reason", "", "how you know: `text` on one line")
	cmd.MarkFlagsMutuallyExclusive("done", "failed")
	cmd.MarkFlagsOneRequired("done", "failed")
	return cmd
}

func newRetryCommand(g *globals) *cobra.Command {
	var t target
	var force bool
	cmd := &cobra.Command{
		Use:   "retry ID [key=value ...]",
		Short: "Submit the command of a job that has ended once more",
		Long: `Submit the command and the arguments of a job that has ended as a new job, and
print its id. Arguments that are given here stand in place of those of the old
job: passwords have to be given, because they are not shown to anybody.

A job that has not ended is refused. One that ended unknown may have done its work:
look at the guest and settle it with ` + "`cbsdmq resolve`" + `, or say --force.`,
		Example: `  cbsdmq retry pool1/01K9ZQ6V4S8H2M0W3C5D7E9F1G
  cbsdmq retry pool1/01K9ZQ6V4S8H2M0W3C5D7E9F1G imgsize=20g
  id=$(cbsdmq retry pool1/01K9ZQ6V4S8H2M0W3C5D7E9F1G) && cbsdmq follow $id`,
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: g.completeJob,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, cancel := t.within(cmd.Context())
			defer cancel()
			s, err := g.openJob(ctx, &t, args[0])
			if err != nil {
				return err
			}
			defer s.Close()
			old, _, err := s.Job(ctx, args[0])
			if err != nil {
				return err
			}
			job, err := again(old, args[1:], force)
			if err != nil {
				return err
			}
			id, err := s.Submit(ctx, job)
			if err != nil {
				return err
			}
			if g.json() {
				return asSubmitted(id, g.print(struct {
					ID    string `json:"id"`
					Pool  string `json:"pool"`
					Retry string `json:"retry"` // of this job
				}{id, s.pool.Name, old.ID}))
			}
			_, err = fmt.Fprintln(g.stdout, id)
			return asSubmitted(id, err)
		},
	}
	t.flags(cmd)
	t.senderFlag(cmd)
	cmd.Flags().BoolVar(&force, "force", false, "also a job whose end is unknown: it may have done its work")
	return cmd
}

// again makes a job of one that has ended; changes are key=value.
func again(old cbsdmq.JobInfo, changes []string, force bool) (client.Job, error) {
	job := client.Job{Command: old.Command}
	refuse := func(hint, format string, args ...any) (client.Job, error) {
		return job, cbsdmq.Errorf(cbsdmq.CodeRefused, "", format, args...).WithHint("%s", hint)
	}
	switch {
	case !old.State.Ended():
		return refuse("wait for its end with `cbsdmq follow "+old.ID+"`, or cancel it", "%s has not ended: it is %s", old.ID, stateOf(old))
	case old.State == cbsdmq.Unknown && old.Verdict == nil && !force:
		return refuse("look at the guest. Then settle it with `cbsdmq resolve "+old.ID+" --done` or `--failed`, or retry it with --force",
			"%s ended unknown: it may have done its work", old.ID)
	case old.ArgsLost:
		return refuse("submit it again with its arguments", "the arguments of %s are not kept", old.ID)
	}
	given := make(map[string]string, len(changes))
	for _, c := range changes {
		name, value, ok := strings.Cut(c, "=")
		if _, twice := given[name]; !ok || name == "" || twice {
			return job, usage("%q is not key=value, or comes twice", c)
		}
		given[name] = value
	}
	var hidden []string
	for _, a := range old.Args {
		name, value, ok := strings.Cut(a, "=")
		if !ok {
			job.Words = append(job.Words, a)
			continue
		}
		if _, is := given[name]; is {
			continue
		}
		if value == cbsd.Hidden {
			hidden = append(hidden, name)
		}
		job.Args = append(job.Args, cbsdmq.Arg{Name: name, Value: value})
	}
	for _, c := range changes {
		name, value, _ := strings.Cut(c, "=")
		job.Args = append(job.Args, cbsdmq.Arg{Name: name, Value: value})
	}
	if len(hidden) > 0 {
		return refuse("give them anew: `cbsdmq retry "+old.ID+" "+strings.Join(hidden, "=... ")+"=...`", "secret arguments are not told to anybody: %s", strings.Join(hidden, ", "))
	}
	return job, nil
}
