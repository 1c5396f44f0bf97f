package client

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/cbsd/cbsdmq"
)

// A watch follows an own job: by the replies that are pushed, and by asking
// where they stay away.
type watch struct {
	*stream
	box *inbox

	ahead    map[int64]cbsdmq.Reply // pieces behind a gap, by Offset
	missed   int64                  // end of the last piece for which there was no room
	accepted bool                   // the agent has the job
	silent   int                    // unanswered requests in a row
	last     error                  // of the last request
	asking   bool
}

type answer struct {
	resp     cbsdmq.Response
	err      error
	accepted bool // what was known when it was asked for
}

func (w *watch) run(ctx context.Context) (cbsdmq.Reply, error) {
	outer := ctx
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	answers := make(chan answer, 1)
	ask := time.NewTimer(firstAsk)
	defer ask.Stop()
	gap := time.NewTimer(time.Hour)
	gap.Stop()
	defer gap.Stop()
	var closing bool // gap runs
	var accept <-chan time.Time
	if w.c.o.AcceptTimeout > 0 {
		t := time.NewTimer(w.c.o.AcceptTimeout)
		defer t.Stop()
		accept = t.C
	}
	w.box.poke() // for what came before
	for {
		var final *cbsdmq.Reply
		var err error
		select {
		case <-w.box.wake:
			n := w.box.take()
			if final, err = n.final, n.err; err != nil {
				return cbsdmq.Reply{}, err
			}
			if len(n.pieces) > 0 {
				w.accepted, w.silent = true, 0
				ask.Reset(statusEvery)
			}
			for _, r := range n.pieces {
				if err := w.piece(r); err != nil {
					return cbsdmq.Reply{}, err
				}
			}
			w.missed = max(w.missed, n.missed)
			if w.gap() && !closing {
				closing = true
				gap.Reset(gapWait)
			}
		case <-ask.C:
			if !w.asking {
				w.asking = true
				go func(accepted bool) {
					resp, err := w.c.ask(ctx, cbsdmq.Request{Op: cbsdmq.OpStatus, Job: w.id})
					if !accepted && cbsdmq.CodeOf(err) == cbsdmq.CodeNotFound {
						w.c.lost(ctx, w.box)
					}
					answers <- answer{resp, err, accepted}
				}(w.accepted)
			}
		case a := <-answers:
			w.asking = false
			if final, err = w.answered(a); err != nil {
				return cbsdmq.Reply{}, w.leave(err)
			}
			if w.accepted {
				ask.Reset(statusEvery)
			} else {
				ask.Reset(askAgain)
			}
		case <-gap.C:
			had := w.have
			if err := w.closeGap(ctx); err != nil {
				return cbsdmq.Reply{}, err
			}
			if closing = w.gap(); closing && w.have > had {
				gap.Reset(gapWait)
			} else if closing {
				gap.Reset(statusEvery)
			}
		case <-accept:
			if !w.accepted {
				return cbsdmq.Reply{}, w.notTaken()
			}
		case <-outer.Done():
			return cbsdmq.Reply{}, w.leave(w.c.stopped(outer))
		case <-w.c.life.Done():
			return cbsdmq.Reply{}, w.leave(w.c.stopped(outer))
		}
		if final != nil {
			return w.complete(ctx, *final)
		}
	}
}

// piece takes a reply with the next output; one behind a gap waits.
func (w *watch) piece(r cbsdmq.Reply) error {
	if w.f == nil {
		return nil
	}
	if r.Work != nil && len(r.Output()) == 0 {
		return w.moved(r.Work)
	}
	if r.Offset > w.have {
		if w.ahead == nil {
			w.ahead = make(map[int64]cbsdmq.Reply)
		}
		if len(w.ahead) < maxPieces {
			w.ahead[r.Offset] = r
		} else {
			w.missed = max(w.missed, end(&r))
		}
		return nil
	}
	if err := w.emit(r.Offset, r.Output()); err != nil {
		return err
	}
	return w.advance()
}

// advance hands out the pieces that are not behind a gap any more.
func (w *watch) advance() error {
	for again := true; again; {
		again = false
		for offset, r := range w.ahead {
			if offset > w.have {
				continue
			}
			delete(w.ahead, offset)
			if err := w.emit(offset, r.Output()); err != nil {
				return err
			}
			again = true
		}
	}
	return nil
}

// gap reports whether output is missing that others came after.
func (w *watch) gap() bool { return w.f != nil && (len(w.ahead) > 0 || w.missed > w.have) }

// closeGap asks for what is missing before the first piece that waits. Where
// nobody answers it stays missing for now.
func (w *watch) closeGap(ctx context.Context) error {
	first := int64(endless)
	for offset := range w.ahead {
		first = min(first, offset)
	}
	if len(w.ahead) == 0 {
		first = w.missed
	}
	err := w.fill(ctx, first)
	if own, ok := errors.AsType[*callerError](err); ok {
		return own.err
	}
	if err != nil {
		w.c.log.Debug("output is missing for now", "job", w.id, "err", err)
		return nil
	}
	if w.have < first {
		w.have = first // dropped
	}
	return w.advance()
}

// answered takes the answer to a status request.
func (w *watch) answered(a answer) (*cbsdmq.Reply, error) {
	w.last = a.err
	switch {
	case a.err == nil:
		w.accepted, w.silent = true, 0
		return a.resp.Final, nil
	case cbsdmq.CodeOf(a.err) == cbsdmq.CodeNotFound && !a.accepted:
		return nil, nil // the agent may have taken it since
	case !silent(a.err):
		return nil, a.err
	}
	if !w.accepted || w.c.o.AcceptTimeout < 0 {
		return nil, nil
	}
	if w.silent++; w.silent >= maxSilent {
		return nil, w.away(a.err)
	}
	return nil, nil
}

// notTaken says why the agent does not have the job in time.
func (w *watch) notTaken() error {
	const stays = "the job stays on the tube: come back with `%s`"
	switch {
	case cbsdmq.CodeOf(w.last) == cbsdmq.CodeNotFound:
		return cbsdmq.Errorf(cbsdmq.CodeGaveUp, "", "the agent of %s has not taken the job yet", w.c.pool()).
			WithHint(stays, w.c.o.Follow(w.printed()))
	case w.last == nil || cbsdmq.CodeOf(w.last) == cbsdmq.CodeGaveUp:
		return cbsdmq.Errorf(cbsdmq.CodeGaveUp, "", "no cbsdmq agent serves %s", w.c.pool()).
			WithHint("on its host, `service cbsdmq status` says whether it runs, and `cbsdmq check` what is wrong; "+stays+". An original agent says nothing before the job has ended: wait with --accept-timeout", w.c.o.Follow(w.printed()))
	}
	return w.last
}

// complete hands out what is left of the output.
func (w *watch) complete(ctx context.Context, final cbsdmq.Reply) (cbsdmq.Reply, error) {
	if w.f == nil {
		return final, nil
	}
	err := w.fill(ctx, final.Offset)
	for try := 1; try < maxSilent && err != nil && silent(err) && ctx.Err() == nil; try++ {
		err = w.fill(ctx, final.Offset)
	}
	if own, ok := errors.AsType[*callerError](err); ok {
		return final, own.err
	}
	if err != nil {
		if ctx.Err() != nil || w.c.life.Err() != nil {
			return final, w.leave(err)
		}
		for _, offset := range slices.Sorted(maps.Keys(w.ahead)) {
			r := w.ahead[offset]
			if err := w.emit(offset, r.Output()); err != nil {
				return final, err
			}
		}
		final.Warnings = append(slices.Clip(final.Warnings),
			"some of the output is missing here; `cbsdmq output "+w.printed()+"` shows all of it")
	}
	return final, w.emit(final.Offset, final.Output())
}
