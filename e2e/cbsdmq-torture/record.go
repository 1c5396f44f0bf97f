package main

import (
	"slices"
	"sync"
	"time"

	"github.com/cbsd/cbsdmq"
	"github.com/cbsd/cbsdmq/e2e/judge"
)

// A record is what clients and the nemesis write down.
type record struct {
	mu      sync.Mutex
	jobs    []*judge.Job
	replies []judge.Reply
	outputs []judge.Output
	events  []judge.Event
	canary  []string
	ids     map[string]string // printed ids by the ID of a job, where a program printed them
}

// submitted notes a job that is about to be submitted to address; done is
// called with what became of that.
func (r *record) submitted(j judge.Job, address string) (job *judge.Job, done func(confirmed bool)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	job = &j
	r.jobs = append(r.jobs, job)
	return job, r.again(job, address)
}

// repeated is submitted for one more submit of the same job.
func (r *record) repeated(job *judge.Job, address string) (done func(confirmed bool)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.again(job, address)
}

func (r *record) again(job *judge.Job, address string) (done func(confirmed bool)) {
	n := len(job.Submits)
	job.Submits = append(job.Submits, judge.Submit{At: time.Now(), Address: address})
	return func(confirmed bool) {
		r.mu.Lock()
		defer r.mu.Unlock()
		job.Submits[n].Done, job.Submits[n].Confirmed = time.Now(), confirmed
	}
}

// address notes where the replies go, where that is known only afterwards.
func (r *record) address(job *judge.Job, address string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	job.Submits[len(job.Submits)-1].Address = address
}

// left notes that nobody waits at the address any more.
func (r *record) left(job *judge.Job, address string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range job.Submits {
		if job.Submits[i].Address == address {
			job.Submits[i].Left = true
		}
	}
}

func (r *record) accepted(job *judge.Job) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if job.Accepted.IsZero() {
		job.Accepted = time.Now()
	}
}

func (r *record) cancelling(job *judge.Job) (done func(confirmed bool)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := len(job.Cancels)
	job.Cancels = append(job.Cancels, judge.Cancel{At: time.Now()})
	return func(confirmed bool) {
		r.mu.Lock()
		defer r.mu.Unlock()
		job.Cancels[n].Done, job.Cancels[n].Confirmed = time.Now(), confirmed
	}
}

// reply notes a reply; change says what is not in it.
func (r *record) reply(reply cbsdmq.Reply, change func(*judge.Reply)) {
	j := judge.FromReply(reply, time.Now())
	change(&j)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.replies = append(r.replies, j)
}

func (r *record) output(o judge.Output) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.outputs = append(r.outputs, o)
}

// event notes what is about to be done.
func (r *record) event(e judge.Event) {
	if e.At.IsZero() {
		e.At = time.Now()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, e)
}

// named notes the printed id of a job whose ID is another name.
func (r *record) named(job *judge.Job, printed string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ids == nil {
		r.ids = make(map[string]string)
	}
	r.ids[job.ID] = printed
}

func (r *record) found(what string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.canary = append(r.canary, what)
}

// history is what was written down so far, without the truth.
func (r *record) history() *judge.History {
	r.mu.Lock()
	defer r.mu.Unlock()
	h := &judge.History{
		Replies: slices.Clone(r.replies), Outputs: slices.Clone(r.outputs),
		Events: slices.Clone(r.events), Canaries: slices.Clone(r.canary),
	}
	for _, j := range r.jobs {
		one := *j
		one.Submits, one.Cancels = slices.Clone(j.Submits), slices.Clone(j.Cancels)
		h.Jobs = append(h.Jobs, one)
	}
	return h
}
