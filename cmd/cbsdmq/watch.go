package main

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/cbsd/cbsdmq"
	"github.com/cbsd/cbsdmq/config"
)

// secondThoughts is how long after a Ctrl-C another one cancels the job.
const secondThoughts = 2 * time.Second

// A watch waits for the end of a job with a person at the terminal: Ctrl-C
// leaves the job, a second one cancels it, a third one leaves it at once.
type watch struct {
	g    *globals
	s    *session
	id   string // as it is printed
	have int64  // bytes of output that were printed

	mute     bool   // print no output
	progress bool   // print how far it is as JSON, and no output
	meter    *meter // else where it is shown to people; nil: nowhere

	quiet   sync.Mutex // of the meter: output comes on another goroutine than signals
	signals chan os.Signal
}

// clear makes room on the terminal for something to be printed.
func (w *watch) clear() {
	if w.meter != nil {
		w.meter.clear()
	}
}

// listen takes Ctrl-C from now on; it is counted when run is called.
func (w *watch) listen() (stop func()) {
	w.signals = make(chan os.Signal, 3)
	signal.Notify(w.signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	return func() { signal.Stop(w.signals) }
}

type ended struct {
	reply cbsdmq.Reply
	err   error
}

// run prints the job's output from w.have on, and returns its last reply. The
// error of a job that was left is an exitError. listen comes first.
func (w *watch) run(ctx context.Context, print bool) (cbsdmq.Reply, error) {
	ctx, leave := context.WithCancel(ctx)
	defer leave()
	var f func(cbsdmq.Reply) error
	if print {
		f = w.print
	}
	if !w.g.json() {
		w.meter = newMeter(w.g, w.id)
		defer w.meter.clear()
	}
	end := make(chan ended, 1)
	go func() {
		r, err := w.s.Follow(ctx, w.id, w.have, f)
		end <- ended{r, err}
	}()
	waiting := make(chan []string)
	if !w.g.json() {
		go w.s.waits(ctx, w.id, waiting)
	}
	var detach <-chan time.Time
	cancelled := make(chan error, 1)
	interrupts, left := 0, false
	for {
		select {
		case e := <-end:
			if e.err != nil && left {
				return e.reply, exit(cbsdmq.ExitGaveUp)
			}
			return e.reply, e.err
		case sig := <-w.signals:
			if sig == os.Interrupt {
				interrupts++
			}
			w.quiet.Lock()
			w.clear()
			w.quiet.Unlock()
			switch {
			case sig != os.Interrupt, interrupts > 2:
				w.comeBack("the job goes on")
				left = true
				leave()
			case interrupts == 1:
				w.comeBack(fmt.Sprintf("the job goes on; Ctrl-C again within %s cancels it", secondThoughts))
				detach = time.After(secondThoughts)
			default:
				detach = nil
				warn(w.g.stderr, "cancelling %s", w.id)
				go func() { cancelled <- w.s.Cancel(ctx, w.id) }()
			}
		case causes := <-waiting:
			w.quiet.Lock()
			w.clear()
			for _, cause := range causes {
				warn(w.g.stderr, "the job waits: %s", cause)
			}
			w.quiet.Unlock()
		case <-detach:
			left = true
			leave()
		case err := <-cancelled:
			if err != nil && ctx.Err() == nil {
				printError(w.g.stderr, fmt.Errorf("not cancelled: %w", err))
			}
		}
	}
}

func (w *watch) comeBack(why string) {
	warn(w.g.stderr, "%s", why)
	fmt.Fprintf(w.g.stderr, "hint: come back with `%s`\n", w.s.again("follow", w.id))
}

// print prints the next piece of output, or how far the job is.
func (w *watch) print(r cbsdmq.Reply) error {
	w.quiet.Lock()
	defer w.quiet.Unlock()
	switch {
	case r.Work != nil && w.progress:
		return w.g.print(step{w.id, cbsdmq.Running, r.Progress, r.Work})
	case r.Work != nil:
		if w.meter != nil {
			w.meter.show(r.Work)
		}
		return nil
	case w.progress, w.mute:
		w.have = r.Offset + int64(len(r.Output()))
		return nil
	}
	w.clear()
	if r.Offset > w.have {
		warn(w.g.stderr, "%d bytes of output are left out here: they were not kept", r.Offset-w.have)
	}
	p := r.Output()
	w.have = r.Offset + int64(len(p))
	_, err := w.g.stdout.Write(p)
	return err
}

// lineFor is the command line of a subcommand about a job of pool, which need not
// be where pools are looked for.
func (g *globals) lineFor(pool config.Found, command, id string) string {
	line := []string{"cbsdmq", command}
	if found, err := config.Find(g.places()).Get(pool.Name); err != nil || !sameFile(found.File, pool.File) {
		line = append(line, "--config", pool.File)
	} else if g.pools != "" {
		line = append(line, "--pools", g.pools)
	}
	return strings.Join(append(line, id), " ")
}

func sameFile(a, b string) bool {
	one, err := os.Stat(a)
	other, e := os.Stat(b)
	return err == nil && e == nil && os.SameFile(one, other)
}

// A job that was just submitted may still be on its way to the agent.
const (
	freshJob  = 10 * time.Minute
	askAgain  = 200 * time.Millisecond
	mostAsked = 30 * time.Second
)

// arrived waits until the agent has a job that was submitted not long ago. An
// older one that it does not know is not there, and the next request says so.
func (s *session) arrived(ctx context.Context, id string) error {
	_, bare, _ := strings.Cut(id, "/")
	made := cbsdmq.ULIDTime(cmp.Or(bare, id))
	if time.Since(made) > freshJob {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, mostAsked)
	defer cancel()
	for {
		_, _, err := s.Job(ctx, id)
		if cbsdmq.CodeOf(err) != cbsdmq.CodeNotFound {
			return err
		}
		select {
		case <-time.After(askAgain):
		case <-ctx.Done():
			return err
		}
	}
}
