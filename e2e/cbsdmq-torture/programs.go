package main

import (
	"math/rand/v2"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/cbsd/cbsdmq"
	"github.com/cbsd/cbsdmq/e2e/judge"
)

var leftOut = regexp.MustCompile(`(\d+) bytes of output are left out here`)

var gotID = regexp.MustCompile(`(?m)^got id: \d+,callback queue name: .*$`)

// programs are clients that are processes: `cbsdmq run`, `cbsdmq submit` and
// bs_router-client. Some are killed, some are stopped for a while.
func (p *pool) programs(t times, rnd *rand.Rand, name string) {
	l := p.workload(rnd, name)
	for wait(t.chaos, between(rnd, 3*t.think[0], 3*t.think[1])) {
		j, know := l.next()
		know.Legacy, know.InOrder = true, false
		know.ID = name + " " + know.Token
		args := append([]string{j.Command}, know.Args...)
		kind := rnd.IntN(3)
		know.Asks = kind < 2 // bs_router-client only waits
		var pr *process
		var err error
		job, done := p.w.rec.submitted(know, know.ID)
		switch kind {
		case 0:
			pr, err = p.w.stage.start(p.w.progs.cbsdmq, append([]string{"run", "--config", p.user, "--accept-timeout", "0"}, args...)...)
		case 1:
			pr, err = p.w.stage.start(p.w.progs.cbsdmq, append([]string{"submit", "--config", p.user}, args...)...)
		default:
			know.Args = know.Args[:len(know.Args)-len(j.Words)]
			job.Args = know.Args
			var text []byte
			if text, err = body(j, 0, nil); err == nil {
				pr, err = p.w.stage.start(p.w.progs.client, "-config", p.user, "-body", string(text))
			}
		}
		if err != nil {
			p.w.note("%s: %v", name, err)
			done(false)
			continue
		}
		killed := false
		var kill <-chan time.Time
		if rnd.IntN(4) == 0 {
			kill = time.After(between(rnd, 0, 1200*time.Millisecond))
		}
		if rnd.IntN(6) == 0 {
			pr.signal(syscall.SIGSTOP)
			wait(t.life, between(rnd, 0, 800*time.Millisecond))
			pr.signal(syscall.SIGCONT)
		}
		select {
		case <-pr.done:
		case <-kill:
			killed = true
			pr.kill()
		case <-t.life.Done():
			p.w.note("%s still waits at the end: %s", know.ID, pr.stderr.String())
			pr.kill()
			if !p.w.broker.Forgets {
				done(true) // nobody disturbs it any more: it has to end, whatever came of its submit
				continue
			}
		}
		p.ended(job, done, kind, killed, pr)
	}
}

// ended records what a program has printed and its exit status.
func (p *pool) ended(job *judge.Job, done func(bool), kind int, killed bool, pr *process) {
	code := pr.cmd.ProcessState.ExitCode()
	stdout := pr.stdout.String()
	killed = killed && code < 0 // it may have ended by itself at that moment
	left := killed
	switch kind {
	case 0: // run says nothing of its id before the end
		answered := code >= 0 && code != cbsdmq.ExitUnreachable && code != cbsdmq.ExitGaveUp
		done(answered)
		left = !answered
	case 1:
		id := strings.TrimSpace(stdout)
		_, _, err := cbsdmq.SplitID(id)
		done(err == nil)
		if err == nil {
			p.w.rec.named(job, id)
		}
		p.w.rec.left(job, job.Submits[0].Address)
		return
	default:
		at := gotID.FindStringIndex(stdout)
		done(at != nil)
		if at == nil {
			left = true
			break
		}
		stdout = strings.TrimPrefix(stdout[at[1]:], "\n")
	}
	if said := pr.stderr.String(); said != "" && !killed {
		p.w.note("%s ended with %d: %s", job.ID, code, said)
	}
	if left {
		p.w.rec.left(job, job.Submits[0].Address)
	}
	if killed || left || code < 0 {
		return
	}
	if code == cbsdmq.ExitGaveUp || code == cbsdmq.ExitUnreachable {
		return
	}
	r := cbsdmq.Reply{ErrCode: code, State: stateOf(code), Progress: 100}
	p.w.rec.reply(r, func(r *judge.Reply) {
		r.For, r.Address, r.Short = job.ID, job.Submits[0].Address, true
		r.Reason = "exit status of a program"
	})
	const certainlyWhole = 20 << 10
	if kind == 0 && !strings.Contains(pr.stderr.String(), "missing") {
		o := judge.Output{Job: job.ID, By: judge.StreamedBy + " to cbsdmq run", Data: []byte(stdout)}
		if m := leftOut.FindStringSubmatch(pr.stderr.String()); m != nil {
			o.Missing, _ = strconv.ParseInt(m[1], 10, 64)
		}
		p.w.rec.output(o)
	}
	if kind == 2 && len(stdout) < certainlyWhole && code != cbsdmq.ExitRefused {
		p.w.rec.output(judge.Output{Job: job.ID, By: "bs_router-client", Data: []byte(strings.TrimSuffix(stdout, "\n"))})
	}
}

// stateOf is the state that an exit status stands for.
func stateOf(code int) cbsdmq.State {
	switch code {
	case cbsdmq.ExitOK:
		return cbsdmq.Done
	case cbsdmq.ExitRefused:
		return cbsdmq.Refused
	case cbsdmq.ExitTimeout:
		return cbsdmq.Timeout
	case cbsdmq.ExitUnknown:
		return cbsdmq.Unknown
	case cbsdmq.ExitCancelled:
		return cbsdmq.Cancelled
	}
	return cbsdmq.Failed
}
