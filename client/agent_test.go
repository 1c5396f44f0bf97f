package client_test

import (
	"context"
	"encoding/json"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/cbsd/cbsdmq"
	"github.com/cbsd/cbsdmq/bus"
	"github.com/cbsd/cbsdmq/bus/mem"
	"github.com/cbsd/cbsdmq/client"
)

const (
	pool   = "pool1"
	tube   = "cbsd_pool1"
	prefix = "cbsd_pool1_result_id"
)

// job is what the scripted agent knows of a job.
type job struct {
	cbsdmq.Job
	id      string
	output  []byte
	dropped int64 // bytes at the beginning of output that are not kept
	final   *cbsdmq.Reply
}

// agent answers jobs and requests as its script says. The zero script accepts
// every job and says nothing.
type agent struct {
	t   *testing.T
	bus *bus.Bus

	// onJob is called for each job that is accepted, once. May be nil.
	onJob func(*agent, *job)
	// mute: requests are taken and not answered.
	mute func(cbsdmq.Request) bool
	// original: no control lane, no ids.
	original bool

	mu       sync.Mutex
	known    map[string]*job
	keys     map[string]*job
	arrived  int // deliveries of jobs, also repeated ones
	requests []cbsdmq.Request
	changed  chan struct{}
	wg       sync.WaitGroup
	stop     context.CancelFunc
}

// start serves the tube until stop or the end of the test.
func (a *agent) start(t *testing.T, b *mem.Broker) *agent {
	return a.startOn(t, bus.New(b.Driver(), bus.Options{}))
}

// startOn is start on any bus, which stop closes.
func (a *agent) startOn(t *testing.T, b *bus.Bus) *agent {
	a.t = t
	a.bus = b
	if a.known == nil {
		a.known, a.keys = make(map[string]*job), make(map[string]*job)
	}
	a.changed = make(chan struct{})
	ctx, cancel := context.WithCancel(context.Background())
	a.stop = func() { cancel(); a.wg.Wait(); a.bus.Close() }
	a.serve(ctx, tube, a.take)
	if !a.original {
		a.serve(ctx, tube+cbsdmq.ControlSuffix, a.request)
	}
	return a
}

func (a *agent) serve(ctx context.Context, name string, handle func(context.Context, bus.Delivery)) {
	c, err := a.bus.Consume(ctx, bus.ConsumeOptions{Tubes: []bus.Tube{{Name: name}}})
	if err != nil {
		a.t.Fatal(err)
	}
	a.wg.Go(func() {
		defer c.Close()
		for {
			ds, err := c.Receive(ctx, 1)
			if err != nil {
				if ctx.Err() != nil {
					return
				}
				continue
			}
			_ = c.Ack(ctx, ds...)
			for _, d := range ds {
				a.wg.Go(func() { handle(ctx, d) })
			}
		}
	})
}

func (a *agent) take(ctx context.Context, d bus.Delivery) {
	parsed, err := cbsdmq.ParseJob(d.Body)
	if err != nil {
		a.t.Errorf("the agent got a job that it refuses: %v", err)
		return
	}
	j := &job{Job: parsed, id: parsed.Meta.ID}
	a.mu.Lock()
	a.arrived++
	twin := a.known[j.id]
	if k := a.keys[parsed.Meta.Key]; parsed.Meta.Key != "" && k != nil {
		twin = k
		a.known[j.id] = k
	}
	if twin == nil || a.original {
		a.known[j.id] = j
		a.keys[parsed.Meta.Key] = j
	}
	var late *cbsdmq.Reply // is owed to another address of a job that has ended
	if twin != nil && !a.original && twin.final != nil && twin.JobID != j.JobID {
		twin.JobID, late = j.JobID, twin.final
	}
	a.mu.Unlock()
	if late != nil {
		a.reply(twin, *late)
	}
	if twin != nil && !a.original {
		return
	}
	if a.onJob != nil {
		a.onJob(a, j)
	}
}

func (a *agent) request(ctx context.Context, d bus.Delivery) {
	r, err := cbsdmq.ParseRequest(d.Body)
	if err != nil {
		a.t.Errorf("the agent got a request that it refuses: %v", err)
		return
	}
	a.mu.Lock()
	a.requests = append(a.requests, r)
	a.mu.Unlock()
	if a.mute != nil && a.mute(r) {
		return
	}
	resp, err := a.answer(ctx, r)
	if ctx.Err() != nil {
		return
	}
	resp.V, resp.Req, resp.Error = 1, r.Req, cbsdmq.NewProblem(err)
	a.put(bus.ControlMailbox(prefix, r.Reply), resp.Fit(4096)) // small, so that pages are needed
}

func (a *agent) answer(ctx context.Context, r cbsdmq.Request) (cbsdmq.Response, error) {
	var resp cbsdmq.Response
	if r.Pool != "" && r.Pool != pool {
		return resp, cbsdmq.Errorf(cbsdmq.CodeRefused, "pool", "not mine")
	}
	deadline := time.After(r.Wait)
	for {
		a.mu.Lock()
		j, changed := a.known[r.Job], a.changed
		var out []byte
		var final *cbsdmq.Reply
		if j != nil {
			out, final = j.output, j.final
			resp.Job = &cbsdmq.JobInfo{ID: cbsdmq.PrintedID(pool, j.id), Pool: pool, Output: int64(len(out))}
		}
		a.mu.Unlock()
		if r.Job != "" && j == nil {
			return resp, cbsdmq.Errorf(cbsdmq.CodeNotFound, "job", "no such job")
		}
		if r.Op != cbsdmq.OpOutput {
			resp.Final = final
			return resp, nil
		}
		resp.Job = nil
		resp.Offset = max(r.Offset, j.dropped)
		if resp.Offset < int64(len(out)) {
			resp.Data = out[resp.Offset:min(resp.Offset+2000, int64(len(out)))]
			return resp, nil
		}
		if final != nil {
			resp.Offset, resp.End, resp.Final = r.Offset, true, final
			return resp, nil
		}
		select {
		case <-changed:
		case <-deadline:
			return resp, nil
		case <-ctx.Done():
			return resp, ctx.Err()
		}
	}
}

// update changes what the agent knows and wakes those who wait for it.
func (a *agent) update(f func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	f()
	close(a.changed)
	a.changed = make(chan struct{})
}

// print adds to a job's output and pushes the piece.
func (a *agent) print(j *job, text string) { a.push(j, a.printSilently(j, text), text) }

// printSilently adds to a job's output without a reply.
func (a *agent) printSilently(j *job, text string) (offset int64) {
	a.update(func() {
		offset = int64(len(j.output))
		j.output = append(j.output[:offset:offset], text...)
	})
	return offset
}

// push sends a piece of output.
func (a *agent) push(j *job, offset int64, text string) {
	r := cbsdmq.Reply{Guid: "0", DskGuid: "0", Offset: offset}
	r.SetOutput([]byte(text))
	a.reply(j, r)
}

// end ends a job; the final reply carries the last most bytes.
func (a *agent) end(j *job, code, most int) cbsdmq.Reply {
	r := a.endSilently(j, code, most)
	a.reply(j, r)
	return r
}

func (a *agent) endSilently(j *job, code, most int) cbsdmq.Reply {
	from := max(0, len(j.output)-most)
	r := cbsdmq.Reply{Guid: "0", DskGuid: "0", Progress: 100, ErrCode: code, State: cbsdmq.Done, Offset: int64(from), ID: cbsdmq.PrintedID(pool, j.id)}
	if code != 0 {
		r.State = cbsdmq.Failed
	}
	r.Key = j.Meta.Key
	r.SetOutput(j.output[from:])
	a.update(func() { j.final = &r })
	return r
}

// reply sends a reply to the job's mailbox.
func (a *agent) reply(j *job, r cbsdmq.Reply) {
	r.ID = cbsdmq.PrintedID(pool, j.id)
	if a.original {
		r.ID, r.State = "", ""
	}
	a.put(bus.MailboxName(prefix, j.JobID), r)
}

func (a *agent) put(name string, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		a.t.Error(err)
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for {
		err := a.bus.Put(ctx, bus.Message{Tube: bus.Tube{Name: name, Kind: bus.Mailbox}, Body: body, TTL: time.Hour})[0].Err
		if err == nil || errors.Is(err, bus.ErrClosed) || ctx.Err() != nil {
			return
		}
	}
}

// counts returns how many jobs arrived and how many of them are different.
func (a *agent) counts() (arrived, known int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.arrived, len(a.known)
}

// world is a broker with a client, in the time of a synctest bubble.
type world struct {
	broker *mem.Broker
	bus    *bus.Bus
	c      *client.Client
}

func open(t *testing.T, b *mem.Broker, change ...func(*client.Options)) *world {
	t.Helper()
	w := &world{broker: b, bus: bus.New(b.Driver(), bus.Options{})}
	o := client.Options{Bus: w.bus, Pool: pool, Tube: tube, ReplyPrefix: prefix, Sender: "test"}
	for _, f := range change {
		f(&o)
	}
	c, err := client.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	w.c = c
	return w
}

func (w *world) close() {
	w.c.Close()
	w.bus.Close()
}

// collector joins pieces of output and checks that they are in order.
type collector struct {
	t      *testing.T
	out    []byte
	holes  int64
	pieces int
}

func (c *collector) piece(r cbsdmq.Reply) error {
	at := int64(len(c.out)) + c.holes
	if r.Offset < at {
		c.t.Errorf("a piece at %d after %d bytes", r.Offset, at)
	}
	if r.Final() {
		c.t.Error("a piece with Progress 100")
	}
	c.holes += r.Offset - at
	c.out = append(c.out, r.Output()...)
	c.pieces++
	return nil
}

var ls = client.Job{Command: "jls", Args: []cbsdmq.Arg{{Name: "header", Value: "0"}}}
