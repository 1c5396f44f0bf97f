package agent

import (
	"context"
	"encoding/json"
	"slices"
	"strconv"
	"strings"

	"github.com/cbsd/cbsdmq"
	"github.com/cbsd/cbsdmq/cbsd"
	"github.com/cbsd/cbsdmq/internal/senders"
	"github.com/cbsd/cbsdmq/journal"
)

// A right is what a request asks of the key that signed it.
type right int

const (
	wholePool right = iota // the key is for all guests and commands
	ofJob                  // it has signed the job, or might submit it
	ofGuest                // it is for the guest; without one it needs all of them
	ofLists                // it is for the pool; it is shown what it has the right of
)

// rights says what each request needs. One that is missing here needs the whole
// pool. A request with a command needs that among the key's commands, too: it is
// the request's own name, since it is no command of CBSD.
var rights = map[cbsdmq.Op]struct {
	right   right
	changes bool
	command string
}{
	cbsdmq.OpStatus:  {ofJob, false, ""}, // without a job: of the agent, which every key of the pool may see
	cbsdmq.OpOutput:  {ofJob, false, ""},
	cbsdmq.OpCancel:  {ofJob, true, ""},
	cbsdmq.OpResolve: {ofJob, true, "resolve"},
	cbsdmq.OpPause:   {ofGuest, true, "pause"},
	cbsdmq.OpResume:  {ofGuest, true, "resume"},
	cbsdmq.OpWhy:     {ofLists, false, ""},
	cbsdmq.OpJobs:    {ofLists, false, ""},
	cbsdmq.OpGuests:  {ofLists, false, ""},
	cbsdmq.OpImages:  {ofLists, false, ""}, // profiles and files of the pool; whose guests were made of them is hidden
	cbsdmq.OpPauses:  {ofLists, false, ""},
	cbsdmq.OpActs:    {ofLists, false, ""},
	cbsdmq.OpHeld:    {wholePool, true, ""},
}

func changes(op cbsdmq.Op) bool {
	r, known := rights[op]
	return r.changes || !known
}

// answerTo is answer for who signed the request with key, nil for who need not.
func (s *Server) answerTo(ctx context.Context, key *senders.Key, r cbsdmq.Request) (cbsdmq.Response, error) {
	if key == nil {
		return s.answer(ctx, r)
	}
	if err := s.permitRequest(ctx, key, &r); err != nil {
		return cbsdmq.Response{}, err
	}
	if changes(r.Op) {
		r.By = strings.TrimSuffix(key.Name+": "+r.By, ": ") // what follows the name is only said
	}
	if r.Op == cbsdmq.OpJobs && !key.All() {
		return s.listFor(ctx, key, r)
	}
	resp, err := s.answer(ctx, r)
	last := ""
	if n := len(resp.Acts); n > 0 && resp.More {
		last = strconv.FormatInt(resp.Acts[n-1].Seq, 10)
	}
	onlyIts(key, &resp)
	if len(resp.Acts) == 0 {
		resp.Next = last
	}
	return resp, err
}

// pagesMax bounds how many pages of jobs are looked through in one request for
// those that a key may see. Where that is not enough the client goes on.
const (
	pagesMax = 10
	pageSize = 1000
)

// listFor is list of the jobs that a key may see.
func (s *Server) listFor(ctx context.Context, key *senders.Key, r cbsdmq.Request) (cbsdmq.Response, error) {
	limit := listLimit(r.Limit)
	var resp cbsdmq.Response
	after := r.After
	for range pagesMax {
		rows, err := s.cfg.Journal.Reader().Search(ctx, pageSize, journal.Search{State: r.State, Before: after, Guest: r.Guest, Since: r.Since})
		if err != nil {
			return resp, err
		}
		for _, row := range rows {
			after = row.ID
			if !mayAsk(key, row) {
				continue
			}
			if resp.More = len(resp.Jobs) == limit; resp.More {
				return resp, nil
			}
			resp.Jobs = append(resp.Jobs, s.info(ctx, row))
		}
		if len(rows) < pageSize {
			return resp, nil
		}
	}
	resp.More = true
	if len(resp.Jobs) == 0 {
		resp.Next = after
	}
	return resp, nil
}

// permitRequest refuses a request that key has no right to make.
func (s *Server) permitRequest(ctx context.Context, key *senders.Key, r *cbsdmq.Request) error {
	refuse := func(what string) error {
		return cbsdmq.Errorf(cbsdmq.CodeRefused, "signer", "the key of %s is not for %s", key.Name, what).
			WithHint("its line in the agent's file of senders says what it may do")
	}
	need := rights[r.Op]
	switch {
	case !key.MayPool(s.cfg.Pool):
		return refuse("pool " + s.cfg.Pool)
	case need.command != "" && !key.MayCommand(need.command):
		return refuse(need.command)
	case key.All(): // also a job that has not come yet
		return nil
	case need.right == wholePool:
		return refuse("what concerns the whole pool")
	case need.right == ofGuest && r.Guest == "" && !key.AllGuests():
		return refuse("the whole pool")
	case r.Guest != "" && !key.MayGuests(r.Guest):
		return refuse(printable(r.Guest))
	case r.Job == "":
		return nil
	}
	row, err := s.row(ctx, r.Job)
	if err == nil && !mayAsk(key, row) {
		err = refuse("this job")
	}
	return err
}

// onlyIts takes out of an answer what key has no right of. Of jobs listFor has
// done so.
func onlyIts(key *senders.Key, r *cbsdmq.Response) {
	if key.All() {
		return
	}
	other := func(guest string) bool { return !key.AllGuests() && (guest == "" || !key.MayGuests(guest)) }
	r.Guests = slices.DeleteFunc(r.Guests, func(g cbsdmq.Guest) bool { return other(g.Name) })
	r.Pauses = slices.DeleteFunc(r.Pauses, func(p cbsdmq.Pause) bool { return p.Guest != "" && other(p.Guest) })
	r.Acts = slices.DeleteFunc(r.Acts, func(a cbsdmq.Act) bool { return other(a.Guest) })
	for i := range r.Images {
		r.Images[i].Used = r.Images[i].Used && key.AllGuests()
	}
	r.Waits = slices.DeleteFunc(r.Waits, func(w cbsdmq.Wait) bool { return other(w.Guest) || !key.MayCommand(w.Command) })
}

// mayAsk reports whether a key may ask about a job, or end it.
func mayAsk(key *senders.Key, row *journal.Job) bool {
	if key == nil || key.All() || row.Signer == key.Name {
		return true
	}
	plan := cbsd.Plan{Class: cbsd.Change}
	if row.Flags&journal.Reads != 0 {
		plan.Class = cbsd.Read
	}
	if len(row.Plan) > 0 && json.Unmarshal(row.Plan, &plan) != nil {
		return false
	}
	plan.Guest = row.Guest
	guests, others := guestsOf(&plan)
	return key.MayCommand(row.Command) && key.MayGuests(guests...) && (!others || key.AllGuests())
}
