package agent

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/cbsd/cbsdmq"
	"github.com/cbsd/cbsdmq/cbsd"
	"github.com/cbsd/cbsdmq/internal/senders"
	"github.com/cbsd/cbsdmq/journal"
)

const signHint = "make a key with `cbsdmq keygen`, have its public line put into the agent's file of senders, and send with --sign-key FILE; " +
	"original clients cannot sign: `cbsdmq run` in their place can"

// proveJob finds the key that signed a job. Nil without an error: it is not
// signed, and need not be.
func (s *Server) proveJob(job *cbsdmq.Job, now time.Time) (*senders.Key, error) {
	m := job.Meta
	switch {
	case s.cfg.Senders == nil:
		return nil, nil
	case m == nil && s.cfg.RequireSigned:
		return nil, cbsdmq.Errorf(cbsdmq.CodeRefused, "cbsdmq.sig", "missing: this pool takes signed jobs only, not those of original clients").WithHint(signHint)
	case m == nil:
		return nil, nil
	case m.Sig == "" && m.Signer == "":
		if s.cfg.RequireSigned {
			return nil, cbsdmq.Errorf(cbsdmq.CodeRefused, "cbsdmq.sig", "missing: this pool takes signed jobs only").WithHint(signHint)
		}
		return nil, nil
	case m.Pool != s.cfg.Pool:
		return nil, s.otherPool(m.Pool)
	}
	text, err := job.SignedText()
	if err != nil {
		return nil, err
	}
	return s.cfg.Senders.Verify("cbsdmq.", m.Signer, m.Sig, text, now)
}

func (s *Server) otherPool(pool string) error {
	return cbsdmq.Errorf(cbsdmq.CodeRefused, "cbsdmq.pool", "the job is for pool %q, this is %q", pool, s.cfg.Pool).
		WithHint("put it on the tube of its own pool")
}

// unproven gives a job that somebody may only pretend to send an identity of its
// own: under the id that it claims it could take the place of the real one, or get
// the answer to it. The refusal names the claimed id, for a client of ours that
// waits for it, unless the journal has a job of that id: whoever waits for that one
// is not to take this for its end.
func (s *Server) unproven(ctx context.Context, row *journal.Job, err error) *journal.Finish {
	claimed := row.ID
	row.ID = ulid.Make().String()
	row.Ident, row.Key, row.Signer, row.SignKey = row.ID, "", "", ""
	row.Flags &^= journal.Stream
	end := refusal(err)
	if known, e := s.cfg.Journal.Reader().Job(ctx, claimed); e != nil || known != nil {
		return end
	}
	var r cbsdmq.Reply
	if json.Unmarshal(end.Result, &r) == nil {
		r.ID = cbsdmq.PrintedID(s.cfg.Pool, claimed)
		end.Result, _ = json.Marshal(r) // it was JSON before
	}
	return end
}

// disown turns a delivery that the journal has under somebody else's name into a
// refusal: nobody gets the answer to a job that another one has signed.
func (l *loop) disown(j *job) {
	a := j.arrival
	j.arrival = nil
	l.drop(j)
	field, what := "cbsdmq.id", "another sender has submitted a job under this id"
	if a.accept.Known.ID != a.accept.Job.ID {
		field, what = "cbsdmq.key", "another sender has submitted a job under this key"
	}
	err := cbsdmq.Errorf(cbsdmq.CodeRefused, field, "%s", what).WithHint("make a new one")
	row := *a.accept.Job
	row.Before, row.Plan = nil, nil // no secrets of what is refused
	end := l.s.unproven(context.Background(), &row, err)
	a.accept = &journal.Accept{Job: &row, Address: a.accept.Address, End: end}
	if !l.arrive(a) {
		a.done(errNotNow)
	}
}

// permit refuses what key may not do. Without a key there is nothing to refuse.
func (s *Server) permit(key *senders.Key, command string, plan *cbsd.Plan) error {
	if key == nil {
		return nil
	}
	refuse := func(format string, args ...any) *cbsdmq.Error {
		return cbsdmq.Errorf(cbsdmq.CodeRefused, "cbsdmq.signer", format, args...).
			WithHint("its line in the agent's file of senders says what it may do")
	}
	switch guests, others := guestsOf(plan); {
	case !key.MayPool(s.cfg.Pool):
		return refuse("the key of %s is not for pool %s", key.Name, s.cfg.Pool)
	case !key.MayCommand(command):
		return refuse("the key of %s is not for the command %s", key.Name, printable(command))
	case others && !key.AllGuests():
		return refuse("the key of %s is for some guests only, and this command is not about one", key.Name)
	case !key.MayGuests(guests...):
		return refuse("the key of %s is not for %s", key.Name, strings.Join(guests, ", "))
	}
	return nil
}

// guestsOf are the guests that a plan names, and whether it may touch more: the
// whole pool, or the host.
func guestsOf(plan *cbsd.Plan) (guests []string, others bool) {
	for _, lane := range append(slices.Clone(plan.Lanes), plan.Guest) {
		switch {
		case lane == "", slices.Contains(guests, lane):
		case lane == cbsd.WholePool, strings.HasPrefix(lane, "!"):
			others = true
		default:
			guests = append(guests, lane)
		}
	}
	return guests, others || len(guests) == 0 && plan.Class == cbsd.Change
}

// revoked refuses a job that has not begun and that was signed by a key that is
// not good any more, or may not do it any more.
func (s *Server) revoked(j *job) error {
	if j.row.SignKey == "" || s.cfg.Senders == nil {
		return nil
	}
	key := s.cfg.Senders.Key(j.row.SignKey)
	if key == nil || key.Name != j.row.Signer {
		return cbsdmq.Errorf(cbsdmq.CodeRefused, "cbsdmq.sig", "the key of %s that signed it was revoked before it began", j.row.Signer).
			WithHint("submit it again, signed with a key that is good")
	}
	return s.permit(key, j.row.Command, &j.plan)
}

// withdraw ends a job that has not begun with the reason that its key gives.
func (l *loop) withdraw(j *job, err error) {
	l.endQueued(j, cbsdmq.Refused, cbsdmq.ExitRefused, err.Error(), cbsdmq.HintOf(err))
}

// A request that is signed says when it was made. One that is older than this, or
// as much ahead, is refused: longer than that nobody remembers that it came.
const requestAge = 10 * time.Minute

// requestsMax bounds the requests that are remembered.
const requestsMax = 1 << 16

// seen remembers the signed requests of a while, so that none is answered twice.
type seen struct {
	mu    sync.Mutex
	until map[string]time.Time
	swept time.Time
}

// first reports whether the request name comes for the first time; full: it
// cannot be known.
func (s *seen) first(name string, now time.Time) (first, full bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.until == nil {
		s.until = make(map[string]time.Time)
	}
	if now.Sub(s.swept) > time.Minute || len(s.until) >= requestsMax && now.Sub(s.swept) > time.Second {
		s.swept = now
		for name, until := range s.until {
			if now.After(until) {
				delete(s.until, name)
			}
		}
	}
	if _, again := s.until[name]; again {
		return false, false
	}
	if len(s.until) >= requestsMax {
		return false, true
	}
	s.until[name] = now.Add(2 * requestAge)
	return true, false
}

// proveRequest finds the key that signed a request, as proveJob does. again: it
// has come before, and is not to be answered a second time.
func (s *Server) proveRequest(r *cbsdmq.Request, now time.Time) (key *senders.Key, again bool, err error) {
	refuse := func(field, format string, args ...any) *cbsdmq.Error {
		return cbsdmq.Errorf(cbsdmq.CodeRefused, field, format, args...)
	}
	switch {
	case s.cfg.Senders == nil:
		return nil, false, nil
	case r.Sig == "" && r.Signer == "":
		if s.cfg.RequireSigned {
			return nil, false, refuse("sig", "missing: this pool answers signed requests only").WithHint(signHint)
		}
		return nil, false, nil
	case r.Pool != s.cfg.Pool:
		return nil, false, refuse("pool", "the request is for pool %q, this is %q", r.Pool, s.cfg.Pool)
	}
	text, err := r.SignedText()
	if err != nil {
		return nil, false, err
	}
	if key, err = s.cfg.Senders.Verify("", r.Signer, r.Sig, text, now); err != nil {
		return nil, false, err
	}
	clocks := func(e *cbsdmq.Error) *cbsdmq.Error {
		return e.WithHint("set the clocks of client and agent: here it is %s", now.UTC().Format(time.RFC3339))
	}
	switch age := now.Sub(r.Made); {
	case r.Made.IsZero():
		return nil, false, refuse("made", "missing: a signed request says when it was made")
	case age > requestAge:
		return nil, false, clocks(refuse("made", "%s ago by the sender's clock, more than %s", age.Round(time.Second), requestAge))
	case -age > requestAge:
		return nil, false, clocks(refuse("made", "%s in the future", (-age).Round(time.Second)))
	case changes(r.Op) && r.Made.Before(s.start.Truncate(time.Second)):
		return nil, false, clocks(refuse("made", "before this agent began, which cannot know whether it was answered by the one before")).
			WithHint("ask again; if that does not help, set the clocks: here it is %s", now.UTC().Format(time.RFC3339))
	}
	first, full := s.seen.first(strings.Join([]string{r.Signer, r.Reply, r.Req}, " "), now)
	if full {
		return nil, false, cbsdmq.Errorf(cbsdmq.CodeUnavailable, "", "more than %d signed requests within %s", requestsMax, 2*requestAge)
	}
	return key, !first, nil
}
