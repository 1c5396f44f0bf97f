package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/cbsd/cbsdmq"
	"github.com/cbsd/cbsdmq/agent"
	"github.com/cbsd/cbsdmq/bus"
	"github.com/cbsd/cbsdmq/cbsd"
	"github.com/cbsd/cbsdmq/client"
	"github.com/cbsd/cbsdmq/config"
	"github.com/cbsd/cbsdmq/journal"
)

// A waiting is what is said of a guest, a pool or a job.
type waiting struct {
	Pool   string        `json:"pool"`
	Guest  string        `json:"guest,omitempty"`
	State  string        `json:"state,omitempty"` // of the guest
	Paused *cbsdmq.Pause `json:"paused,omitempty"`
	Waits  []cbsdmq.Wait `json:"waits"`
	More   bool          `json:"more,omitempty"`
	Notes  []string      `json:"notes,omitempty"` // about the pool
}

func newWhyCommand(g *globals) *cobra.Command {
	var t target
	cmd := &cobra.Command{
		Use:   "why POOL | GUEST | POOL GUEST | ID",
		Short: "Say what jobs wait for, and since when",
		Long: `Say what the jobs of a guest wait for, or those of a pool, or one job: another job
on the guest, a free worker, a command that is not ours, a pause, a journal that
cannot be written, a person's word after a rollback, the runner, the agent or the
broker.

The name of a pool is always the pool's; a guest of that name is asked for by POOL
GUEST. On the pool's host it also tells what waits while the agent or the
broker is away, from the journal.`,
		Example: `  cbsdmq why web7
  cbsdmq why pool1
  cbsdmq why pool1/01K9ZQ6V4S8H2M0W3C5D7E9F1G
  cbsdmq why -o json web7 | jq -r '.waits[].causes[].text'`,
		Args:              cobra.RangeArgs(0, 2),
		ValidArgsFunction: g.completeSubject,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, cancel := t.within(cmd.Context())
			defer cancel()
			id := ""
			var what subject
			var err error
			if len(args) == 1 && strings.Contains(args[0], "/") {
				id = args[0]
				what.pool, err = t.ofJob(g, id)
			} else {
				what, err = g.whySubject(ctx, &t, args)
			}
			if err != nil {
				return err
			}
			w, err := g.why(ctx, what, id, &t)
			if err != nil {
				return err
			}
			w.Notes = append(w.Notes, keptFor(what, id)...)
			if g.json() {
				return g.print(w)
			}
			return g.sayWhy(what, w)
		},
	}
	t.flags(cmd)
	return cmd
}

// whySubject is subject; where a pool cannot be asked it looks for the guest
// among the jobs of its journal, if that is on this host.
func (g *globals) whySubject(ctx context.Context, t *target, args []string) (subject, error) {
	if len(args) == 1 && t.file == "" {
		for _, pool := range config.Find(g.places()).Found {
			if pool.Name == args[0] {
				return subject{pool: pool}, g.usable(pool) // a look does no harm: a guest of that name is not looked for
			}
		}
	}
	what, err := t.subject(ctx, g, "why", args, nil)
	if err == nil || len(args) != 1 || t.file != "" {
		return what, err
	}
	var has []config.Found
	for _, pool := range config.Find(g.places()).Found {
		if waits, err := g.localWaits(ctx, pool, args[0], "", ""); err == nil && len(waits) > 0 {
			has = append(has, pool)
		}
	}
	if code := cbsdmq.CodeOf(err); len(has) == 1 && (code == cbsdmq.CodeGaveUp || code == cbsdmq.CodeUnreachable) {
		return subject{has[0], args[0]}, nil
	}
	return what, err
}

// why asks the agent; where it is away, the journal on this host.
func (g *globals) why(ctx context.Context, what subject, id string, t *target) (waiting, error) {
	w := waiting{Pool: what.pool.Name, Guest: what.guest, Waits: []cbsdmq.Wait{}}
	o := client.Options{Sender: t.who(), Log: g.log()}
	if _, err := os.Stat(what.pool.Config.Journal); err == nil {
		o.ConnectTimeout, o.RequestTimeout, o.Log = jobsWait, jobsWait, nil
	}
	s, err := g.dial(ctx, what.pool, o)
	if err == nil {
		defer s.Close()
		if err = g.askWhy(ctx, s, what, id, &w); err == nil {
			return w, nil
		}
	}
	code := cbsdmq.CodeOf(err)
	if code != cbsdmq.CodeGaveUp && code != cbsdmq.CodeUnreachable {
		return w, err
	}
	w.Notes = append(w.Notes, err.Error())
	cause := "no agent"
	if code == cbsdmq.CodeUnreachable {
		cause = "the broker is out of reach"
	}
	waits, fromJournal := g.localWaits(ctx, what.pool, what.guest, id, cause)
	if fromJournal != nil {
		return w, errors.Join(err, fromJournal)
	}
	w.Waits = waits
	if dir := what.pool.Config.RunDir; noRunner(ctx, dir) { // an agent that waits for it does not answer yet
		w.Notes = append(w.Notes, "there is no runner in "+dir+"; where it is a service agents wait for that: "+runnerHint)
	}
	return w, nil
}

func (g *globals) askWhy(ctx context.Context, s *session, what subject, id string, w *waiting) error {
	if id != "" {
		if err := s.arrived(ctx, id); err != nil {
			return err
		}
	}
	found, err := s.Why(ctx, what.guest, id)
	if err != nil {
		return err
	}
	w.Waits, w.More = append(w.Waits, found.Waits...), found.More
	if found.Guest != nil {
		w.State, w.Paused = found.Guest.Status, found.Guest.Paused
	}
	if found.Ended != nil {
		w.Notes = append(w.Notes, fmt.Sprintf("%s has ended: %s", found.Ended.ID, stateOf(*found.Ended)))
	}
	info, err := s.Status(ctx)
	if err != nil {
		return err
	}
	if what.guest == "" {
		w.Paused = cmp.Or(w.Paused, info.Paused)
	}
	w.Notes = append(w.Notes, takesNone(info)...)
	if b, err := s.bus.Inspect(ctx, bus.Tube{Name: s.section.Tube}); err == nil && b.Ready > 0 {
		w.Notes = append(w.Notes, fmt.Sprintf("%d jobs wait on the broker: the agent has not taken them yet", b.Ready))
	}
	return nil
}

// takesNone says why an agent takes or begins no jobs, where that is so.
func takesNone(info cbsdmq.AgentInfo) (causes []string) {
	if info.Trouble != "" {
		causes = append(causes, "the agent is in trouble: "+info.Trouble)
	}
	if open := info.Queued + info.Running + info.Held; info.Backlog > 0 && open >= info.Backlog {
		causes = append(causes, fmt.Sprintf("the agent takes no more jobs: %d have not ended, which is its backlog", open))
	}
	return causes
}

// localWaits reads the journal of a pool on this host.
func (g *globals) localWaits(ctx context.Context, pool config.Found, guest, id, cause string) ([]cbsdmq.Wait, error) {
	if _, err := os.Stat(pool.Config.Journal); err != nil {
		return nil, err
	}
	db, err := journal.OpenReader(pool.Config.Journal)
	if err != nil {
		return nil, err
	}
	defer db.Close()
	if i := strings.IndexByte(id, '/'); i >= 0 {
		id = id[i+1:]
	}
	return agent.WaitsWithoutAgent(ctx, pool.Name, journal.NewReader(db, pool.Config.Journal), guest, id, cause)
}

// When a person who waits for a job is told what it waits for itself.
const (
	firstWhy = 2 * time.Second
	nextWhy  = 15 * time.Second
)

// waits tells what a job waits for, again when that changes, until it has begun.
func (s *session) waits(ctx context.Context, id string, tell chan<- []string) {
	said := ""
	for every := firstWhy; ; every = nextWhy {
		select {
		case <-time.After(every):
		case <-ctx.Done():
			return
		}
		causes, waits := s.causes(ctx, id)
		if !waits {
			return
		}
		if now := strings.Join(causes, "\n"); now != said {
			said = now
			select {
			case tell <- causes:
			case <-ctx.Done():
				return
			}
		}
	}
}

// causes says what a job waits for, as far as is known; false: it does not wait,
// or nobody says.
func (s *session) causes(ctx context.Context, id string) (causes []string, waits bool) {
	found, err := s.Why(ctx, "", id)
	if cbsdmq.CodeOf(err) == cbsdmq.CodeNotFound { // it is on its way to the agent
		info, _ := s.Status(ctx) // Follow says what is wrong
		return takesNone(info), true
	}
	if err != nil || len(found.Waits) == 0 || found.Waits[0].State == cbsdmq.Running {
		return nil, false // Follow says what is wrong; an older agent does not know the question
	}
	for _, c := range found.Waits[0].Causes {
		text := c.Text
		if !c.Since.IsZero() {
			text += ", since " + moment(c.Since)
		}
		if c.Job != "" {
			text += ": " + c.Job
		}
		causes = append(causes, text)
	}
	return causes, true
}

// keptFor says what this user's spool holds of a subject: no agent knows of it.
func keptFor(what subject, id string) (notes []string) {
	sp, err := new(spoolFlags).open()
	if err != nil {
		return nil
	}
	kept, _ := sp.List() // `cbsdmq spool list` says what is wrong with it
	for _, e := range kept {
		job := cbsdmq.Job{Command: e.Command, Meta: &cbsdmq.Meta{Words: e.Words}}
		for _, a := range e.Args {
			job.Args = append(job.Args, cbsdmq.Arg(a))
		}
		guests, _ := cbsd.Named(job)
		if e.Pool != what.pool.Name || what.guest != "" && !slices.Contains(guests, what.guest) || id != "" && id != printedEntry(e) {
			continue
		}
		notes = append(notes, fmt.Sprintf("%s %s is kept on this machine since %s: `cbsdmq spool send` sends it", printedEntry(e), e.Command, moment(e.Kept)))
	}
	return notes
}

func (g *globals) sayWhy(what subject, w waiting) error {
	say := func(format string, args ...any) { fmt.Fprintln(g.stdout, plain(fmt.Sprintf(format, args...))) }
	head := what.String()
	if w.State != "" {
		head += " is " + w.State
	}
	if len(w.Waits) == 0 {
		say("%s: no job waits or runs", head)
	} else {
		say("%s", head)
	}
	if w.Paused != nil {
		say("  %s", pausedText(w.Paused))
	}
	for _, j := range w.Waits {
		verb := "waits"
		switch {
		case j.State == cbsdmq.Running:
			verb = "runs"
		case j.State == cbsdmq.Held:
			verb = "is held"
		case len(j.Causes) == 0:
			verb = "is about to begin, accepted"
		}
		say("  %s %s %s since %s (%s), sent by %s", j.Job, strings.TrimSpace(j.Command+" "+j.Guest), verb, moment(j.Since), age(j.Since), cmp.Or(j.Sender, "an original client"))
		for _, c := range j.Causes {
			line := "    " + c.Kind + ": " + c.Text
			if !c.Since.IsZero() {
				line += ", since " + moment(c.Since)
			}
			if c.Job != "" {
				line += ": " + c.Job
			}
			say("%s", line)
		}
	}
	if w.More {
		say("  and more")
	}
	for _, note := range w.Notes {
		say("  %s", note)
	}
	return nil
}
