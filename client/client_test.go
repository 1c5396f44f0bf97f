package client_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cbsd/cbsdmq"
	"github.com/cbsd/cbsdmq/bus"
	"github.com/cbsd/cbsdmq/bus/mem"
	"github.com/cbsd/cbsdmq/client"
)

var _ client.Bus = (*bus.Bus)(nil)

// bubble runs a test in a bubble with a broker that keeps messages for ever, as
// beanstalkd does: what is left behind shows.
func bubble(t *testing.T, f func(t *testing.T, b *mem.Broker)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { f(t, mem.New(mem.Options{NoTTL: true})) })
}

func wantCode(t *testing.T, err error, code cbsdmq.Code, text string) {
	t.Helper()
	if cbsdmq.CodeOf(err) != code || !strings.Contains(fmt.Sprint(err), text) {
		t.Errorf("error %v (code %q), want %q with code %s", err, cbsdmq.CodeOf(err), text, code)
	}
}

func TestRun(t *testing.T) {
	bubble(t, func(t *testing.T, b *mem.Broker) {
		a := (&agent{onJob: func(a *agent, j *job) {
			if j.Command != "jls" || len(j.Args) != 1 || j.Meta.Pool != pool || j.Meta.Sender != "test" || j.Meta.Stream || j.JobID < 1<<52 || j.JobID >= 1<<53 {
				t.Errorf("job: %+v %+v", j.Job, j.Meta)
			}
			a.printSilently(j, "jail1 On\n")
			a.end(j, 3, 100)
		}}).start(t, b)
		w := open(t, b)
		for range 3 {
			got, err := w.c.Run(t.Context(), ls, nil)
			if err != nil || got.ErrCode != 3 || got.Message != "jail1 On\n" || got.State != cbsdmq.Failed {
				t.Errorf("got %+v, %v", got, err)
			}
		}
		w.close()
		a.stop()
		if n := b.Tubes(); n != 0 {
			t.Errorf("%d tubes are left", n)
		}
	})
}

func TestStream(t *testing.T) {
	bubble(t, func(t *testing.T, b *mem.Broker) {
		a := (&agent{onJob: func(a *agent, j *job) {
			a.print(j, "one\n")
			time.Sleep(time.Minute)
			a.print(j, "two\xff\n")
			a.print(j, "three\n")
			a.printSilently(j, "last\n")
			a.end(j, 0, 5)
		}}).start(t, b)
		w := open(t, b)
		got := collector{t: t}
		start := time.Now()
		first := time.Duration(-1)
		final, err := w.c.Run(t.Context(), ls, func(r cbsdmq.Reply) error {
			if first < 0 {
				first = time.Since(start)
			}
			return got.piece(r)
		})
		if err != nil || final.Message != "last\n" || string(got.out) != "one\ntwo\xff\nthree\nlast\n" || got.holes != 0 {
			t.Errorf("final %+v, %v; output %q", final, err, got.out)
		}
		if first > time.Second {
			t.Errorf("the first piece came after %v", first)
		}
		w.close()
		a.stop()
	})
}

// Pieces that come doubled, in another order, or not at all join to the same
// output.
func TestStreamWithFaults(t *testing.T) {
	for seed := range uint64(40) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			bubble(t, func(t *testing.T, b *mem.Broker) {
				rnd := rand.New(rand.NewPCG(seed, 1))
				a := (&agent{onJob: func(a *agent, j *job) {
					type piece struct {
						offset int64
						text   string
					}
					var late []piece
					for i := range 30 {
						text := strings.Repeat(fmt.Sprintf("%d é ", i), rnd.IntN(200))
						p := piece{a.printSilently(j, text), text}
						switch rnd.IntN(6) {
						case 0: // lost
						case 1:
							late = append(late, p)
						case 2: // again, from the beginning: the agent was restarted
							a.push(j, 0, string(j.output[:min(len(j.output), 500)]))
							a.push(j, p.offset, p.text)
						default:
							a.push(j, p.offset, p.text)
						}
						if rnd.IntN(4) == 0 {
							for _, p := range late {
								a.push(j, p.offset, p.text)
							}
							late = nil
							time.Sleep(time.Duration(rnd.IntN(2000)) * time.Millisecond)
						}
					}
					a.end(j, 0, rnd.IntN(3000))
					a.reply(j, *j.final)
				}}).start(t, b)
				w := open(t, b)
				b.Hook(mem.Hooks{OnDeliver: func(d bus.Delivery) mem.Fate {
					switch rand.IntN(8) { // from several goroutines
					case 0:
						return mem.Duplicate
					case 1:
						if strings.HasPrefix(d.Tube, prefix) { // what nothing follows would not come at all
							return mem.Overtaken
						}
					}
					return mem.Deliver
				}})
				got := collector{t: t}
				final, err := w.c.Run(t.Context(), ls, got.piece)
				if err != nil || final.State != cbsdmq.Done || len(final.Warnings) > 0 {
					t.Errorf("error %v, state %s, warnings %q", err, final.State, final.Warnings)
				}
				a.mu.Lock()
				for _, j := range a.known {
					if !bytes.Equal(j.output, got.out) || got.holes != 0 {
						t.Errorf("%d bytes of %d, holes of %d", len(got.out), len(j.output), got.holes)
					}
				}
				a.mu.Unlock()
				b.Hook(mem.Hooks{})
				w.close()
				a.stop()
			})
		})
	}
}

// A slow caller costs no more memory than an inbox, and misses nothing.
func TestSlowCaller(t *testing.T) {
	bubble(t, func(t *testing.T, b *mem.Broker) {
		a := (&agent{onJob: func(a *agent, j *job) {
			for i := range 400 {
				a.print(j, fmt.Sprintf("line %d\n", i))
			}
			time.Sleep(10 * time.Minute) // the rest must not wait for the end
			a.end(j, 0, 0)
		}}).start(t, b)
		w := open(t, b)
		got := collector{t: t}
		start := time.Now()
		var last time.Duration
		if _, err := w.c.Run(t.Context(), ls, func(r cbsdmq.Reply) error {
			time.Sleep(100 * time.Millisecond)
			last = time.Since(start)
			return got.piece(r)
		}); err != nil {
			t.Fatal(err)
		}
		if !bytes.HasSuffix(got.out, []byte("line 399\n")) || got.holes != 0 || last > 5*time.Minute {
			t.Errorf("%d bytes, holes of %d, the last piece after %v", len(got.out), got.holes, last)
		}
		w.close()
		a.stop()
	})
}

func TestLostConfirmation(t *testing.T) {
	for name, stored := range map[string]bool{"stored": true, "not stored": false} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, b *mem.Broker) {
				a := (&agent{onJob: func(a *agent, j *job) { a.end(j, 0, 0) }}).start(t, b)
				w := open(t, b)
				var lost atomic.Bool
				b.Hook(mem.Hooks{OnPut: func(m bus.Message) (bool, error) {
					if m.Tube.Name == tube && lost.CompareAndSwap(false, true) {
						return stored, errors.New("connection reset by peer")
					}
					return true, nil
				}})
				final, err := w.c.Run(t.Context(), ls, nil)
				if err != nil || final.State != cbsdmq.Done {
					t.Errorf("got %+v, %v", final, err)
				}
				if _, known := a.counts(); known != 1 || !lost.Load() {
					t.Errorf("the agent has %d jobs, want 1", known)
				}
				w.close()
				a.stop()
			})
		})
	}
}

// A broker that says that it has no room has not stored the job: nobody has to
// be asked.
func TestBrokerFull(t *testing.T) {
	bubble(t, func(t *testing.T, b *mem.Broker) {
		w := open(t, b)
		var puts atomic.Int32
		b.Hook(mem.Hooks{OnPut: func(bus.Message) (bool, error) {
			puts.Add(1)
			return false, fmt.Errorf("%w: OUT_OF_MEMORY", bus.ErrFull)
		}})
		id, err := w.c.Submit(t.Context(), ls)
		wantCode(t, err, cbsdmq.CodeUnreachable, "the job was not submitted: the broker takes no messages: OUT_OF_MEMORY")
		if id != "" || puts.Load() != 1 || cbsdmq.HintOf(err) == "" {
			t.Errorf("id %q, %d puts, hint %q", id, puts.Load(), cbsdmq.HintOf(err))
		}
		w.close()
	})
}

// With nobody to ask, a job whose confirmation was lost is not put again: an
// original agent would run it twice.
func TestLostConfirmationWithoutAgent(t *testing.T) {
	bubble(t, func(t *testing.T, b *mem.Broker) {
		w := open(t, b)
		var puts atomic.Int32
		b.Hook(mem.Hooks{OnPut: func(m bus.Message) (bool, error) {
			if m.Tube.Name == tube {
				puts.Add(1)
				return true, errors.New("connection reset by peer")
			}
			return true, nil
		}})
		id, err := w.c.Submit(t.Context(), ls)
		wantCode(t, err, cbsdmq.CodeGaveUp, "it is not known whether the broker has the job")
		_, bare, splitErr := cbsdmq.SplitID(id)
		if splitErr != nil || !strings.Contains(cbsdmq.HintOf(err), bare) || puts.Load() != 1 {
			t.Errorf("id %q, hint %q, %d puts", id, cbsdmq.HintOf(err), puts.Load())
		}
		b.Hook(mem.Hooks{})
		// The way out of the hint: under the same id, it runs once.
		a := (&agent{onJob: func(a *agent, j *job) { a.end(j, 0, 0) }}).start(t, b)
		again := ls
		again.ID = bare
		if final, err := w.c.Run(t.Context(), again, nil); err != nil || final.State != cbsdmq.Done {
			t.Errorf("again: %+v, %v", final, err)
		}
		synctest.Wait()
		if arrived, known := a.counts(); arrived != 2 || known != 1 {
			t.Errorf("%d arrivals of %d jobs", arrived, known)
		}
		w.close()
		a.stop()
	})
}

func TestAgentAway(t *testing.T) {
	bubble(t, func(t *testing.T, b *mem.Broker) {
		w := open(t, b)
		start := time.Now()
		_, err := w.c.Run(t.Context(), ls, nil)
		wantCode(t, err, cbsdmq.CodeGaveUp, "no cbsdmq agent serves pool pool1")
		if took := time.Since(start); took != 30*time.Second {
			t.Errorf("gave up after %v", took)
		}
		if !strings.Contains(cbsdmq.HintOf(err), "cbsdmq follow pool1/") {
			t.Errorf("hint: %s", cbsdmq.HintOf(err))
		}
		start = time.Now()
		_, err = w.c.Status(t.Context())
		wantCode(t, err, cbsdmq.CodeGaveUp, "no cbsdmq agent serves pool pool1")
		if took := time.Since(start); took != 10*time.Second {
			t.Errorf("no answer after %v", took)
		}
		_, err = w.c.Follow(t.Context(), "pool1/17", 0, nil)
		wantCode(t, err, cbsdmq.CodeGaveUp, "no cbsdmq agent serves")
		info, err := w.bus.Inspect(t.Context(), bus.Tube{Name: tube + cbsdmq.ControlSuffix})
		if err != nil || info.Ready != 0 {
			t.Errorf("%d requests are left behind, %v", info.Ready, err)
		}
		w.close()
		if n := b.Tubes(); n != 1 {
			t.Errorf("%d tubes are left, want the one of the job", n)
		}
	})
}

// Who waits is told of each request that has no answer after a second; one for
// output may take as long as it asks for.
func TestUnanswered(t *testing.T) {
	bubble(t, func(t *testing.T, b *mem.Broker) {
		var told atomic.Int32
		var at atomic.Value
		w := open(t, b, func(o *client.Options) {
			o.Unanswered = func() { told.Add(1); at.Store(time.Now()) }
		})
		start := time.Now()
		if _, err := w.c.Status(t.Context()); err == nil || told.Load() != 1 || at.Load().(time.Time).Sub(start) != time.Second {
			t.Errorf("told %d times after a request without an answer, %v", told.Load(), err)
		}
		told.Store(0)
		a := (&agent{onJob: func(a *agent, j *job) {
			time.Sleep(time.Hour)
			a.end(j, 0, 0)
		}}).start(t, b)
		id, err := w.c.Submit(t.Context(), ls)
		synctest.Wait() // the agent has it
		if err == nil {
			other := open(t, b, func(o *client.Options) { o.Unanswered = func() { told.Add(1) } })
			_, err = other.c.Follow(t.Context(), id, 0, nil)
			other.close()
		}
		if err != nil || told.Load() != 0 {
			t.Errorf("told %d times of requests that were answered, %v", told.Load(), err)
		}
		w.close()
		a.stop()
	})
}

// The job waits on the tube, the agent comes late, and a follower of another
// session is there for the end.
func TestAgentComesLate(t *testing.T) {
	bubble(t, func(t *testing.T, b *mem.Broker) {
		w := open(t, b, func(o *client.Options) { o.AcceptTimeout = -1 })
		var a *agent
		go func() {
			time.Sleep(2 * time.Hour)
			a = (&agent{onJob: func(a *agent, j *job) {
				time.Sleep(time.Hour)
				a.end(j, 0, 0)
			}}).start(t, b)
		}()
		start := time.Now()
		final, err := w.c.Run(t.Context(), ls, nil)
		if err != nil || final.State != cbsdmq.Done || time.Since(start) < 3*time.Hour {
			t.Errorf("got %+v, %v after %v", final, err, time.Since(start))
		}
		w.close()
		a.stop()
	})
}

func TestAgentDoesNotTakeTheJob(t *testing.T) {
	bubble(t, func(t *testing.T, b *mem.Broker) {
		a := (&agent{}).start(t, b)
		w := open(t, b)
		id, err := w.c.Submit(t.Context(), ls)
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		a.update(func() { clear(a.known) }) // as if it were still on the tube
		_, err = w.c.Follow(t.Context(), id, 0, nil)
		wantCode(t, err, cbsdmq.CodeGaveUp, "has not taken the job yet")
		if arrived, _ := a.counts(); arrived != 1 {
			t.Errorf("the job was submitted %d times", arrived)
		}
		w.close()
		a.stop()
	})
}

func TestAgentFallsSilent(t *testing.T) {
	bubble(t, func(t *testing.T, b *mem.Broker) {
		var mute atomic.Bool
		a := (&agent{mute: func(cbsdmq.Request) bool { return mute.Load() }}).start(t, b)
		w := open(t, b)
		id, err := w.c.Submit(t.Context(), ls)
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			time.Sleep(10 * time.Minute)
			mute.Store(true)
		}()
		start := time.Now()
		_, err = w.c.Follow(t.Context(), id, 0, nil)
		wantCode(t, err, cbsdmq.CodeGaveUp, "does not answer any more")
		if took := time.Since(start); took < 11*time.Minute || took > 13*time.Minute {
			t.Errorf("gave up after %v", took)
		}
		// The same for one who follows from elsewhere.
		mute.Store(false)
		other := open(t, b)
		go func() {
			time.Sleep(10 * time.Minute)
			mute.Store(true)
		}()
		_, err = other.c.Follow(t.Context(), id, 0, func(cbsdmq.Reply) error { return nil })
		wantCode(t, err, cbsdmq.CodeGaveUp, "does not answer any more")
		w.close()
		other.close()
		a.stop()
	})
}

// An answer that was given before the agent had the job comes after the first
// piece of its output.
func TestLateAnswer(t *testing.T) {
	bubble(t, func(t *testing.T, b *mem.Broker) {
		var the *job
		var once sync.Once
		a := &agent{}
		a.onJob = func(a *agent, j *job) {
			the = j
			a.update(func() { delete(a.known, j.id) }) // it is on the tube yet
		}
		a.mute = func(r cbsdmq.Request) bool {
			once.Do(func() {
				a.print(the, "one\n")
				go func() {
					time.Sleep(10 * time.Second)
					a.update(func() { a.known[the.id] = the })
					a.printSilently(the, "two\n")
					a.end(the, 0, 100)
				}()
				time.Sleep(time.Second)
			})
			return false
		}
		a.start(t, b)
		w := open(t, b)
		got := collector{t: t}
		final, err := w.c.Run(t.Context(), ls, got.piece)
		if err != nil || final.State != cbsdmq.Done || string(got.out) != "one\ntwo\n" {
			t.Errorf("final %+v, %v, output %q", final, err, got.out)
		}
		w.close()
		a.stop()
	})
}

// The last reply is lost for good: the agent is asked.
func TestLostFinal(t *testing.T) {
	bubble(t, func(t *testing.T, b *mem.Broker) {
		a := (&agent{onJob: func(a *agent, j *job) {
			a.print(j, "one\n")
			time.Sleep(5 * time.Second)
			a.printSilently(j, "two\nthree\n")
			a.endSilently(j, 0, 6)
		}}).start(t, b)
		w := open(t, b)
		got := collector{t: t}
		start := time.Now()
		final, err := w.c.Run(t.Context(), ls, got.piece)
		if err != nil || final.Message != "three\n" || string(got.out) != "one\ntwo\nthree\n" {
			t.Errorf("final %+v, %v, output %q", final, err, got.out)
		}
		if took := time.Since(start); took > time.Minute {
			t.Errorf("took %v", took)
		}
		w.close()
		a.stop()
	})
}

func TestFollowFromElsewhere(t *testing.T) {
	bubble(t, func(t *testing.T, b *mem.Broker) {
		a := (&agent{}).start(t, b)
		w := open(t, b)
		id, err := w.c.Submit(t.Context(), ls)
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		a.mu.Lock()
		_, bare, _ := cbsdmq.SplitID(id)
		j := a.known[bare]
		a.mu.Unlock()
		long := strings.Repeat("0123456789", 1000)
		a.printSilently(j, long)
		w.close()

		other := open(t, b)
		go func() {
			time.Sleep(40 * time.Minute)
			a.printSilently(j, "more\n")
			time.Sleep(40 * time.Minute)
			a.end(j, 0, 5) // its session is gone: the reply stays unread
		}()
		got := collector{t: t}
		got.holes = 5 // it had those
		final, err := other.c.Follow(t.Context(), id, 5, got.piece)
		if err != nil || final.State != cbsdmq.Done || string(got.out) != long[5:]+"more\n" || got.holes != 5 {
			t.Errorf("final %+v, %v; %d bytes, holes %d", final, err, len(got.out), got.holes)
		}
		// Again, after the end, where the beginning is not kept any more.
		a.update(func() { j.dropped = 10 })
		got = collector{t: t}
		final, err = other.c.Follow(t.Context(), bare, 0, got.piece)
		if err != nil || final.State != cbsdmq.Done || string(got.out) != long[10:]+"more\n" || got.holes != 10 {
			t.Errorf("after the end: %+v, %v; %d bytes, holes %d", final, err, len(got.out), got.holes)
		}
		if final, err = other.c.Follow(t.Context(), id, 0, nil); err != nil || final.State != cbsdmq.Done {
			t.Errorf("without output: %+v, %v", final, err)
		}
		var out bytes.Buffer
		dropped, err := other.c.Output(t.Context(), id, &out)
		if err != nil || dropped != 10 || out.String() != long[10:]+"more\n" {
			t.Errorf("output: %d bytes, %d dropped, %v", out.Len(), dropped, err)
		}
		other.close()
		a.stop()
	})
}

func TestOriginalAgent(t *testing.T) {
	bubble(t, func(t *testing.T, b *mem.Broker) {
		a := (&agent{original: true, onJob: func(a *agent, j *job) {
			time.Sleep(10 * time.Second)
			a.printSilently(j, "jail1 On\n")
			a.end(j, 0, 100)
		}}).start(t, b)
		w := open(t, b)
		got := collector{t: t}
		final, err := w.c.Run(t.Context(), ls, got.piece)
		if err != nil || final.Message != "jail1 On\n" || string(got.out) != "jail1 On\n" || !final.Final() {
			t.Errorf("final %+v, %v, output %q", final, err, got.out)
		}
		// A second one after the first is no difficulty, a second one beside it is.
		if _, err = w.c.Run(t.Context(), ls, nil); err != nil {
			t.Error(err)
		}
		errs := make(chan error)
		for range 2 {
			go func() {
				_, err := w.c.Run(t.Context(), ls, nil)
				errs <- err
			}()
		}
		for range 2 {
			wantCode(t, <-errs, cbsdmq.CodeInternal, "does not say which of 2 jobs")
		}
		w.close()
		a.stop()
	})
}

// A job that was submitted before under the same key is answered with the id
// that it had then.
func TestKey(t *testing.T) {
	bubble(t, func(t *testing.T, b *mem.Broker) {
		a := (&agent{onJob: func(a *agent, j *job) { a.end(j, 0, 0) }}).start(t, b)
		first, second := open(t, b), open(t, b)
		order := ls
		order.Key = "ORDER-4711"
		one, err := first.c.Run(t.Context(), order, nil)
		if err != nil {
			t.Fatal(err)
		}
		two, err := second.c.Run(t.Context(), order, nil)
		if err != nil || two.ID != one.ID {
			t.Errorf("got %s, %v; want %s", two.ID, err, one.ID)
		}
		first.close()
		second.close()
		a.stop()
	})
}

// The broker loses what it had confirmed.
func TestBrokerForgets(t *testing.T) {
	bubble(t, func(t *testing.T, b *mem.Broker) {
		w := open(t, b)
		id, err := w.c.Submit(t.Context(), ls)
		if err != nil {
			t.Fatal(err)
		}
		b.Restart(false)
		a := (&agent{onJob: func(a *agent, j *job) { a.end(j, 0, 0) }}).start(t, b)
		final, err := w.c.Follow(t.Context(), id, 0, nil)
		if err != nil || final.State != cbsdmq.Done {
			t.Errorf("got %+v, %v", final, err)
		}
		w.close()
		a.stop()
	})
}

func TestBrokerAway(t *testing.T) {
	bubble(t, func(t *testing.T, b *mem.Broker) {
		a := (&agent{onJob: func(a *agent, j *job) {
			for i := range 60 {
				a.print(j, fmt.Sprintln("line", i))
				time.Sleep(time.Second)
			}
			a.end(j, 0, 10)
		}}).start(t, b)
		w := open(t, b)
		go func() {
			time.Sleep(10 * time.Second)
			b.Cut()
			time.Sleep(10 * time.Second)
			b.Stop()
			time.Sleep(10 * time.Second)
			b.Start(true)
		}()
		got := collector{t: t}
		final, err := w.c.Run(t.Context(), ls, got.piece)
		if err != nil || final.State != cbsdmq.Done || !bytes.HasSuffix(got.out, []byte("line 59\n")) || got.holes != 0 {
			t.Errorf("final %+v, %v; %d bytes, holes %d", final, err, len(got.out), got.holes)
		}
		a.stop()

		b.Stop()
		_, err = w.c.Submit(t.Context(), ls)
		wantCode(t, err, cbsdmq.CodeUnreachable, "memory")
		_, err = w.c.Status(t.Context())
		wantCode(t, err, cbsdmq.CodeUnreachable, "memory")
		start := time.Now()
		_, err = client.Open(t.Context(), client.Options{Bus: w.bus, Tube: tube, ReplyPrefix: prefix})
		wantCode(t, err, cbsdmq.CodeUnreachable, "memory")
		if took := time.Since(start); took != 30*time.Second {
			t.Errorf("gave up after %v", took)
		}
		w.close()
	})
}

func TestWrongPassword(t *testing.T) {
	bubble(t, func(t *testing.T, b *mem.Broker) {
		b.Hook(mem.Hooks{OnDial: func() error { return &bus.Permanent{Err: errors.New("wrong password")} }})
		bb := bus.New(b.Driver(), bus.Options{})
		start := time.Now()
		_, err := client.Open(t.Context(), client.Options{Bus: bb, Tube: tube, ReplyPrefix: prefix})
		wantCode(t, err, cbsdmq.CodeUnreachable, "wrong password")
		if time.Since(start) > time.Second {
			t.Error("it tried again")
		}
		bb.Close()
	})
}

func TestRefusedBeforeItIsSent(t *testing.T) {
	bubble(t, func(t *testing.T, b *mem.Broker) {
		w := open(t, b)
		for name, tt := range map[string]struct {
			job  client.Job
			text string
		}{
			"nothing":       {client.Job{}, "Command: missing"},
			"NUL":           {client.Job{Command: "jls", Words: []string{"a\x00"}}, "NUL"},
			"not UTF-8":     {client.Job{Command: "jls", Args: []cbsdmq.Arg{{Name: "jname", Value: "\xff"}}}, "UTF-8"},
			"twice":         {client.Job{Command: "jls", Args: []cbsdmq.Arg{{Name: "jname", Value: "a"}, {Name: "jname", Value: "b"}}}, "CommandArgs.jname: the key comes twice"},
			"id":            {client.Job{Command: "jls", ID: "17"}, "not a ULID"},
			"large":         {client.Job{Command: "jls", Words: []string{strings.Repeat("x", cbsdmq.JobMax)}}, "more than 65535"},
			"too late ever": {client.Job{Command: "jls", Expires: time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)}, "year"},
		} {
			id, err := w.c.Submit(t.Context(), tt.job)
			if id != "" {
				t.Errorf("%s: id %q", name, id)
			}
			wantCode(t, err, cbsdmq.CodeRefused, tt.text)
		}
		_, err := w.c.Follow(t.Context(), "pool2/17", 0, nil)
		wantCode(t, err, cbsdmq.CodeRefused, "pool2/17 is a job of pool pool2")
		_, err = w.c.Follow(t.Context(), "x", 0, nil)
		wantCode(t, err, cbsdmq.CodeRefused, "is not the id of a job")
		w.close()
	})
	bubble(t, func(t *testing.T, _ *mem.Broker) {
		b := mem.New(mem.Options{MaxBody: 100})
		w := open(t, b)
		_, err := w.c.Submit(t.Context(), client.Job{Command: "jls", Words: []string{strings.Repeat("x", 100)}})
		wantCode(t, err, cbsdmq.CodeRefused, "larger than the broker takes")
		w.close()
	})
}

// The agent looks through so many jobs of others at one time.
func TestJobsBehindThoseOfOthers(t *testing.T) {
	bubble(t, func(t *testing.T, b *mem.Broker) {
		a := new(agent)
		a.mute = func(r cbsdmq.Request) bool {
			resp := cbsdmq.Response{V: 1, Req: r.Req, More: true}
			switch r.After { // looked through: those of others only, ours, the same
			case "":
				resp.Next = "20"
			case "20":
				resp.Jobs = []cbsdmq.JobInfo{{ID: "pool1/17"}}
			default:
				resp.Next = r.After
			}
			a.put(bus.ControlMailbox(prefix, r.Reply), resp)
			return true
		}
		defer a.start(t, b).stop()
		w := open(t, b)
		defer w.close()
		if jobs, err := w.c.Jobs(t.Context(), 10, ""); err != nil || len(jobs) != 1 || jobs[0].ID != "pool1/17" {
			t.Errorf("%+v, %v", jobs, err)
		}
	})
}

// An agent of an older version does not know all requests: its refusal is told
// as that, and what it answers with more than was asked for is cut.
func TestOlderAgent(t *testing.T) {
	bubble(t, func(t *testing.T, b *mem.Broker) {
		a := new(agent)
		at := time.Now().Add(-time.Hour)
		a.mute = func(r cbsdmq.Request) bool {
			resp := cbsdmq.Response{V: 1, Req: r.Req}
			switch r.Op {
			case cbsdmq.OpGuests:
				resp.Guests = []cbsdmq.Guest{{Name: "vm1"}, {Name: "vm2"}}
			case cbsdmq.OpJobs:
				for i := range 3 {
					resp.Jobs = append(resp.Jobs, cbsdmq.JobInfo{ID: fmt.Sprintf("pool1/%d", 9-i), Guest: fmt.Sprintf("vm%d", i%2), AcceptedAt: at.Add(-time.Duration(i) * time.Hour)})
				}
			default:
				resp.Error = cbsdmq.NewProblem(cbsdmq.Errorf(cbsdmq.CodeRefused, "op", "not known here"))
			}
			a.put(bus.ControlMailbox(prefix, r.Reply), resp)
			return true
		}
		defer a.start(t, b).stop()
		w := open(t, b)
		defer w.close()
		err := w.c.Pause(t.Context(), "vm1", "")
		wantCode(t, err, cbsdmq.CodeRefused, `the agent of pool pool1 is older: it does not know "pause"`)
		if g, found, err := w.c.Guest(t.Context(), "vm2"); err != nil || !found || g.Name != "vm2" {
			t.Errorf("%+v, %v, %v", g, found, err)
		}
		if _, found, err := w.c.Guest(t.Context(), "vm3"); err != nil || found {
			t.Errorf("a guest that is not there: %v, %v", found, err)
		}
		if jobs, err := w.c.Search(t.Context(), 10, client.Query{Guest: "vm0", Since: at.Add(-90 * time.Minute)}); err != nil || len(jobs) != 1 || jobs[0].ID != "pool1/9" {
			t.Errorf("%+v, %v", jobs, err)
		}
	})
}

func TestControl(t *testing.T) {
	bubble(t, func(t *testing.T, b *mem.Broker) {
		a := (&agent{mute: func(cbsdmq.Request) bool { return true }}).start(t, b)
		w := open(t, b)
		// The scripted agent's state machine is not what is tested here: answer by hand.
		var jobs []cbsdmq.JobInfo
		var guests []cbsdmq.Guest
		for i := range 150 {
			jobs = append(jobs, cbsdmq.JobInfo{ID: fmt.Sprintf("pool1/%d", 9999-i), Pool: pool})
			guests = append(guests, cbsdmq.Guest{Name: fmt.Sprintf("vm%03d", i)})
		}
		a.mute = func(r cbsdmq.Request) bool {
			resp := cbsdmq.Response{V: 1, Req: r.Req}
			switch r.Op {
			case cbsdmq.OpStatus:
				resp.Agent = &cbsdmq.AgentInfo{Pool: pool, Host: "h"}
			case cbsdmq.OpJobs:
				for _, j := range jobs {
					if r.After == "" || j.ID < "pool1/"+r.After {
						resp.Jobs = append(resp.Jobs, j)
					}
				}
				resp.More = len(resp.Jobs) > r.Limit
				resp.Jobs = resp.Jobs[:min(len(resp.Jobs), r.Limit)]
			case cbsdmq.OpGuests:
				for _, g := range guests {
					if g.Name > r.After {
						resp.Guests = append(resp.Guests, g)
					}
				}
			case cbsdmq.OpCancel:
				if r.Job == "17" {
					resp.Error = cbsdmq.NewProblem(cbsdmq.Errorf(cbsdmq.CodeNotFound, "job", "has ended before").WithHint("h"))
				}
			case cbsdmq.OpHeld:
				if r.Action != "drop" {
					t.Errorf("action %q", r.Action)
				}
			}
			other := resp
			other.Req = "somebody's"
			a.put(bus.ControlMailbox(prefix, r.Reply), other)
			a.put(bus.ControlMailbox(prefix, r.Reply), "not a response")
			a.put(bus.ControlMailbox(prefix, r.Reply), resp.Fit(4096))
			a.put(bus.ControlMailbox(prefix, r.Reply), resp.Fit(4096)) // twice
			return true
		}
		ctx := t.Context()
		if info, err := w.c.Status(ctx); err != nil || info.Host != "h" {
			t.Errorf("status: %+v, %v", info, err)
		}
		for limit, want := range map[int]int{0: 100, 7: 7, 1000: 150, 150: 150} {
			got, err := w.c.Jobs(ctx, limit, "")
			if err != nil || len(got) != want || got[len(got)-1].ID != jobs[want-1].ID {
				t.Errorf("jobs, limit %d: %d, %v", limit, len(got), err)
			}
		}
		if got, err := w.c.Guests(ctx); err != nil || len(got) != 150 || got[149].Name != "vm149" {
			t.Errorf("guests: %d, %v", len(got), err)
		}
		if err := w.c.Cancel(ctx, "pool1/16"); err != nil {
			t.Errorf("cancel: %v", err)
		}
		err := w.c.Cancel(ctx, "pool1/17")
		wantCode(t, err, cbsdmq.CodeNotFound, "job: has ended before")
		if cbsdmq.HintOf(err) != "h" {
			t.Errorf("hint %q", cbsdmq.HintOf(err))
		}
		if err := w.c.Held(ctx, "drop"); err != nil {
			t.Errorf("held: %v", err)
		}
		_, _, err = w.c.Job(ctx, "pool1/5")
		wantCode(t, err, cbsdmq.CodeInternal, "lacks what was asked for")
		synctest.Wait() // for what the agent sent twice
		w.close()
		a.stop()
		if n := b.Tubes(); n != 0 {
			t.Errorf("%d tubes are left", n)
		}
	})
}

func TestLostRequest(t *testing.T) {
	bubble(t, func(t *testing.T, b *mem.Broker) {
		a := (&agent{}).start(t, b)
		w := open(t, b)
		var n atomic.Int32
		b.Hook(mem.Hooks{OnPut: func(m bus.Message) (bool, error) {
			if m.Tube.Name == tube+cbsdmq.ControlSuffix && n.Add(1) < 3 {
				return n.Load() == 1, errors.New("connection reset by peer")
			}
			return true, nil
		}})
		if err := w.c.Cancel(t.Context(), "pool1/17"); cbsdmq.CodeOf(err) != cbsdmq.CodeNotFound {
			t.Errorf("got %v, want the agent's answer", err)
		}
		w.close()
		a.stop()
	})
}

func TestCallerLeaves(t *testing.T) {
	bubble(t, func(t *testing.T, b *mem.Broker) {
		a := (&agent{onJob: func(a *agent, j *job) { a.print(j, "one\n") }}).start(t, b)
		w := open(t, b)
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		_, err := w.c.Run(ctx, ls, func(cbsdmq.Reply) error { return nil })
		wantCode(t, err, cbsdmq.CodeGaveUp, "stopped waiting")
		if !strings.Contains(cbsdmq.HintOf(err), "cbsdmq follow pool1/") || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("hint %q, error %v", cbsdmq.HintOf(err), err)
		}
		full := errors.New("disk full")
		_, err = w.c.Run(t.Context(), ls, func(cbsdmq.Reply) error { return full })
		if !errors.Is(err, full) {
			t.Errorf("got %v, want the caller's own error", err)
		}
		w.close()
		a.stop()
		if n := b.Tubes(); n != 0 {
			t.Errorf("%d tubes are left", n)
		}
	})
}

// Close ends whoever waits and takes back what nobody has answered.
func TestClose(t *testing.T) {
	bubble(t, func(t *testing.T, b *mem.Broker) {
		w := open(t, b)
		errs := make(chan error, 3)
		go func() { _, err := w.c.Run(t.Context(), ls, nil); errs <- err }()
		go func() { _, err := w.c.Follow(t.Context(), "pool1/17", 0, nil); errs <- err }()
		go func() { _, err := w.c.Status(t.Context()); errs <- err }()
		time.Sleep(2 * time.Second)
		if err := w.c.Close(); err != nil {
			t.Error(err)
		}
		for range 3 {
			wantCode(t, <-errs, cbsdmq.CodeGaveUp, "the session was closed")
		}
		_, err := w.c.Status(t.Context())
		wantCode(t, err, cbsdmq.CodeGaveUp, "the session was closed")
		_, err = w.c.Submit(t.Context(), ls)
		wantCode(t, err, cbsdmq.CodeGaveUp, "the session was closed")
		w.bus.Close()
		if n := b.Tubes(); n != 1 {
			t.Errorf("%d tubes are left, want the one of the job", n)
		}
	})
}

// What a program submits and never follows does not add up.
func TestUnfollowedJobs(t *testing.T) {
	bubble(t, func(t *testing.T, b *mem.Broker) {
		a := (&agent{onJob: func(a *agent, j *job) { a.end(j, 0, 0) }}).start(t, b)
		w := open(t, b)
		var ids []string
		for range 600 {
			id, err := w.c.Submit(t.Context(), ls)
			if err != nil {
				t.Fatal(err)
			}
			ids = append(ids, id)
		}
		synctest.Wait()
		if n := client.Kept(w.c); n > 300 {
			t.Errorf("%d inboxes are kept", n)
		}
		for _, id := range []string{ids[0], ids[599]} {
			if final, err := w.c.Follow(t.Context(), id, 0, nil); err != nil || final.State != cbsdmq.Done {
				t.Errorf("%s: %+v, %v", id, final, err)
			}
		}
		w.close()
		a.stop()
	})
}

func TestManyAtOnce(t *testing.T) {
	bubble(t, func(t *testing.T, b *mem.Broker) {
		a := (&agent{onJob: func(a *agent, j *job) {
			a.print(j, j.Meta.Words[0])
			time.Sleep(time.Second)
			a.end(j, 0, 0)
		}}).start(t, b)
		w := open(t, b)
		errs := make(chan error)
		for i := range 100 {
			go func() {
				got := collector{t: t}
				_, err := w.c.Run(t.Context(), client.Job{Command: "jls", Words: []string{fmt.Sprint(i)}}, got.piece)
				if string(got.out) != fmt.Sprint(i) {
					t.Errorf("job %d got %q", i, got.out)
				}
				errs <- err
			}()
		}
		for range 100 {
			if err := <-errs; err != nil {
				t.Error(err)
			}
		}
		if n := client.Kept(w.c); n != 0 {
			t.Errorf("%d inboxes are kept", n)
		}
		w.close()
		a.stop()
	})
}

// Output that nobody can give any more is a hole, and the result says so.
func TestMissingOutput(t *testing.T) {
	bubble(t, func(t *testing.T, b *mem.Broker) {
		a := (&agent{
			mute: func(r cbsdmq.Request) bool { return r.Op == cbsdmq.OpOutput },
			onJob: func(a *agent, j *job) {
				a.print(j, "one\n")
				a.printSilently(j, "two\n")
				a.print(j, "three\n")
				a.printSilently(j, "four\nfive\n")
				a.end(j, 0, 5)
			},
		}).start(t, b)
		w := open(t, b)
		got := collector{t: t}
		final, err := w.c.Run(t.Context(), ls, got.piece)
		if err != nil || string(got.out) != "one\nthree\nfive\n" || got.holes != 9 {
			t.Errorf("error %v, output %q, holes of %d", err, got.out, got.holes)
		}
		if len(final.Warnings) != 1 || !strings.Contains(final.Warnings[0], "cbsdmq output pool1/") {
			t.Errorf("warnings %q", final.Warnings)
		}
		w.close()
		a.stop()
	})
}

// The caller's error is returned from wherever the output came.
func TestCallerErrors(t *testing.T) {
	full := errors.New("disk full")
	for name, script := range map[string]func(*agent, *job){
		"a piece": func(a *agent, j *job) { a.print(j, "bad") },
		"a gap":   func(a *agent, j *job) { a.printSilently(j, "bad"); a.print(j, "x") },
		"the end": func(a *agent, j *job) { a.printSilently(j, "bad"); a.end(j, 0, 3) },
		"the gap before the end": func(a *agent, j *job) {
			a.printSilently(j, "bad")
			a.printSilently(j, "x")
			a.end(j, 0, 1)
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, b *mem.Broker) {
				a := (&agent{onJob: script}).start(t, b)
				w := open(t, b)
				_, err := w.c.Run(t.Context(), ls, func(r cbsdmq.Reply) error {
					if strings.Contains(r.Message, "bad") {
						return full
					}
					return nil
				})
				if !errors.Is(err, full) {
					t.Errorf("got %v, want the caller's own error", err)
				}
				w.close()
				a.stop()
			})
		})
	}
}

// The broker does not let us in any more.
func TestLockedOut(t *testing.T) {
	bubble(t, func(t *testing.T, b *mem.Broker) {
		w := open(t, b)
		go func() {
			time.Sleep(time.Second)
			b.Hook(mem.Hooks{OnDial: func() error { return &bus.Permanent{Err: errors.New("wrong password")} }})
			b.Cut()
		}()
		_, err := w.c.Run(t.Context(), ls, nil)
		wantCode(t, err, cbsdmq.CodeUnreachable, "wrong password")
		_, err = w.c.Submit(t.Context(), ls)
		wantCode(t, err, cbsdmq.CodeUnreachable, "wrong password")
		w.close()
	})
}

// A request is taken back by its age too: after a restart of the broker its id
// may be somebody else's.
func TestTakesBackItsOwn(t *testing.T) {
	bubble(t, func(t *testing.T, b *mem.Broker) {
		w := open(t, b)
		lane := bus.Tube{Name: tube + cbsdmq.ControlSuffix}
		go func() {
			time.Sleep(5 * time.Second)
			b.Restart(false)
			stranger := bus.New(b.Driver(), bus.Options{})
			r := stranger.Put(t.Context(), bus.Message{Tube: lane, Body: []byte("a stranger's")})[0]
			if r.Err != nil || r.ID != 1 {
				t.Errorf("put as %d, %v; want the id of the request", r.ID, r.Err)
			}
			stranger.Close()
		}()
		_, err := w.c.Status(t.Context())
		wantCode(t, err, cbsdmq.CodeGaveUp, "no cbsdmq agent serves")
		info, err := w.bus.Inspect(t.Context(), lane)
		if err != nil || info.Ready != 1 {
			t.Errorf("%d requests, %v; want the stranger's", info.Ready, err)
		}
		w.close()
	})
}
