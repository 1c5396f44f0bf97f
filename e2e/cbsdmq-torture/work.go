package main

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/cbsd/cbsdmq"
	"github.com/cbsd/cbsdmq/client"
	"github.com/cbsd/cbsdmq/e2e/judge"
)

// A workload makes jobs.
type workload struct {
	p      *pool
	rnd    *rand.Rand
	sender string
	n      int
	clones []string // guests that were made and not removed
}

func (p *pool) workload(rnd *rand.Rand, sender string) *workload {
	return &workload{p: p, rnd: rnd, sender: p.name + "/" + sender}
}

// next is a job, and what the judge is to know of it. Its id is new.
func (l *workload) next() (client.Job, judge.Job) {
	l.n++
	token := fmt.Sprintf("t%s%08x", l.sender[len(l.p.name)+1:], l.rnd.Uint32())
	id := freshID(l.rnd)
	j := client.Job{ID: id}
	know := judge.Job{ID: cbsdmq.PrintedID(l.p.name, id), Token: token, Pool: l.p.name, Sender: l.sender}
	pick := func(list []string) string { return list[l.rnd.IntN(len(list))] }
	set := func(guest string) {
		j.Command, know.Changes, know.Guests = "bset", true, []string{guest}
		j.Args = []cbsdmq.Arg{{Name: "jname", Value: guest}, {Name: "tags", Value: token}}
	}
	read := func(guest string) {
		j.Command, know.Guests = "bget", []string{guest}
		j.Args = []cbsdmq.Arg{{Name: "jname", Value: guest}, {Name: "mode", Value: "quiet"}, {Name: "torturetoken", Value: token}}
		j.Words = []string{"vm_ram"}
	}
	switch n := l.rnd.IntN(100); {
	case n < 45:
		set(pick(guests.plain))
	case n < 50:
		set(pick(guests.fails))
	case n < 55:
		set(pick(guests.lies))
		know.Ends = []cbsdmq.State{cbsdmq.Failed, cbsdmq.Cancelled, cbsdmq.Unknown, cbsdmq.Timeout} // where nobody saw its end
	case n < 59:
		set(pick(guests.slow))
	case n < 61:
		set(pick(guests.stuck))
		know.Ends = []cbsdmq.State{cbsdmq.Timeout, cbsdmq.Done, cbsdmq.Failed, cbsdmq.Cancelled, cbsdmq.Unknown} // done, where no agent was there to stop it
	case n < 67:
		set(pick(guests.talks))
	case n < 80:
		read(pick(allGuests()))
	case n < 90:
		read(pick(guests.plain))
		j.InOrder, know.InOrder = true, true
	case n < 95 || len(l.clones) == 0:
		old, clone := pick(guests.plain), fmt.Sprintf("c%s%06x", l.sender[len(l.p.name)+1:], l.rnd.Uint32()&0xffffff)
		l.clones = append(l.clones, clone)
		j.Command, know.Changes, know.Guests = "bclone", true, []string{old, clone}
		j.Args = []cbsdmq.Arg{{Name: "old", Value: old}, {Name: "new", Value: clone}, {Name: "host_hostname", Value: token}}
	default:
		clone := l.clones[0]
		l.clones = l.clones[1:]
		j.Command, know.Changes, know.Guests = "bremove", true, []string{clone}
		j.Args = []cbsdmq.Arg{{Name: "jname", Value: clone}, {Name: "torturetoken", Value: token}}
	}
	know.Command = j.Command
	for _, a := range j.Args {
		know.Args = append(know.Args, a.Name+"="+a.Value)
	}
	know.Args = append(know.Args, j.Words...)
	return j, know
}

// expires gives some jobs a time by which they must have begun.
func (l *workload) expires(j *client.Job, know *judge.Job) {
	if l.rnd.IntN(20) == 0 {
		j.Expires = time.Now().Add(between(l.rnd, time.Second, 5*time.Second)).UTC().Truncate(time.Second)
		know.Expires = j.Expires
		if know.Ends != nil {
			know.Ends = append(know.Ends, cbsdmq.Refused)
		}
	}
}

// body is the job on the wire, an original client's where meta is nil.
func body(j client.Job, jobID uint64, meta *cbsdmq.Meta) ([]byte, error) {
	return cbsdmq.Job{Command: j.Command, Args: j.Args, JobID: jobID, Meta: meta}.MarshalJSON()
}

func freshID(r *rand.Rand) string { return ulid.MustNew(ulid.Now(), randomness{r}).String() }

// randomness reads a seeded generator.
type randomness struct{ *rand.Rand }

func (r randomness) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(r.Uint32())
	}
	return len(p), nil
}
