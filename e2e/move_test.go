package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/cbsd/cbsdmq"
	"github.com/cbsd/cbsdmq/bus"
	"github.com/cbsd/cbsdmq/bus/all"
	"github.com/cbsd/cbsdmq/client"
	"github.com/cbsd/cbsdmq/config"
	"github.com/cbsd/cbsdmq/internal/testserver"
)

// A side is one broker of a pool that is served on several.
type side struct {
	w    *world
	bus  *bus.Bus
	to   config.Section
	asks *client.Client
}

// side opens a broker of the pool's file, whether the agent serves it or not.
func (w *world) side(name string) *side {
	w.t.Helper()
	cfg, _, err := config.Load(w.file)
	if err != nil {
		w.t.Fatal(err)
	}
	cfg.Broker = config.Names{name}
	s := &side{w: w, to: cfg.Buses()[0]}
	b, closer, err := (&all.Opener{ClientOnly: true}).Open(w.t.Context(), s.to.Kind, s.to.Config)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { closer.Close() })
	s.bus = b
	ctx, cancel := context.WithTimeout(w.t.Context(), 60*time.Second)
	defer cancel()
	s.asks, err = client.Open(ctx, client.Options{Bus: b, Pool: "pool1", Tube: s.to.Tube, ReplyPrefix: s.to.ReplyTubePrefix})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { s.asks.Close() })
	return s
}

// put puts a job that is answered to the mailbox n of this broker.
func (s *side) put(n uint64, command string, args ...string) (id string) {
	s.w.t.Helper()
	j := cbsdmq.Job{Command: command, JobID: n, Meta: &cbsdmq.Meta{V: cbsdmq.MetaVersion, ID: ulid.Make().String(), Pool: "pool1"}}
	for _, a := range args {
		name, value, _ := strings.Cut(a, "=")
		j.Args = append(j.Args, cbsdmq.Arg{Name: name, Value: value})
	}
	body, err := json.Marshal(j)
	if err != nil {
		s.w.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(s.w.t.Context(), 30*time.Second)
	defer cancel()
	if err := s.bus.Put(ctx, bus.Message{Tube: bus.Tube{Name: s.to.Tube}, Body: body})[0].Err; err != nil {
		s.w.t.Fatalf("putting %s: %v", command, err)
	}
	return cbsdmq.PrintedID("pool1", j.Meta.ID)
}

// reply waits for the last reply in the mailbox n of this broker; false where none
// comes in time, which begins when the broker has agreed.
func (s *side) reply(n uint64, limit time.Duration) (r cbsdmq.Reply, came bool) {
	s.w.t.Helper()
	opening, opened := context.WithTimeout(s.w.t.Context(), 2*patience)
	defer opened()
	in, err := s.bus.Consume(opening, bus.ConsumeOptions{Tubes: []bus.Tube{{Name: bus.MailboxName(s.to.ReplyTubePrefix, n), Kind: bus.Mailbox}}})
	if err != nil {
		s.w.t.Fatal(err)
	}
	defer in.Close()
	ctx, cancel := context.WithTimeout(s.w.t.Context(), limit)
	defer cancel()
	for !r.Final() {
		ds, err := in.Receive(ctx, 1)
		if errors.Is(err, context.DeadlineExceeded) {
			return r, false
		}
		if err != nil {
			s.w.t.Fatal(err)
		}
		if err := in.Ack(opening, ds...); err != nil {
			s.w.t.Fatal(err)
		}
		if r, err = cbsdmq.ParseReply(ds[0].Body); err != nil {
			s.w.t.Fatal(err)
		}
	}
	return r, true
}

// knows checks that the control lane of this broker answers, from the one journal
// of all: whatever was put, and wherever.
func (s *side) knows(ids []string) {
	s.w.t.Helper()
	ctx, cancel := context.WithTimeout(s.w.t.Context(), 30*time.Second)
	defer cancel()
	for _, id := range ids {
		if _, _, err := s.asks.Job(ctx, id); err != nil {
			s.w.t.Errorf("asking on %s for %s: %v", s.to.Name, id, err)
		}
	}
}

// serveOn changes the brokers of a pool that is served, and waits until it is
// served on them.
func (w *world) serveOn(agent *process, brokers ...string) {
	w.t.Helper()
	w.configure(map[string]any{"broker": brokers})
	said := func() int {
		log, _ := os.ReadFile(w.config["logfile"].(string))
		return strings.Count(string(log), "msg=serving")
	}
	before := said()
	if err := agent.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		w.t.Fatal(err)
	}
	testserver.Eventually(w.t, 60*time.Second, func() error {
		if said() == before {
			return fmt.Errorf("the pool is not served on %s", brokers)
		}
		return nil
	})
}

// An operator moves a pool from broker to broker, with the agent and jobs running:
// first both serve it, then the new one alone. Each job is answered on the broker
// that it came by, those that the old broker still owes an answer when it is
// served again.
func TestMoveToAnotherBroker(t *testing.T) {
	t.Parallel()
	way := []string{"beanstalkd", "nats", "rabbitmq"}
	place := testserver.Place{Dir: t.TempDir()}
	keys := map[string]any{"broker": way[:1]}
	brokers, err := testserver.FindBrokers(strings.Join(way, ","))
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range brokers {
		addr, _ := b.Run(t, place)
		section := b.Keys(addr, place)
		section["publish_timeout"], section["reserve_timeout"], section["reconnect_timeout"] = 5, 1, 1
		keys[b.Section] = section
	}
	w := newWorld(t, keys)
	agent := w.agent("")
	sides := make(map[string]*side)
	for _, name := range way {
		sides[name] = w.side(name)
	}
	old := sides[way[0]]
	ends := make(map[string]cbsdmq.Reply)
	var ids []string
	changes := 0 // reads are not in the truth
	number := uint64(1 << 52)
	put := func(on, command string, args ...string) (n uint64, id string) {
		t.Helper()
		number++
		id = sides[on].put(number, command, args...)
		ids = append(ids, id)
		if command != "jget" {
			changes++
		}
		return number, id
	}
	answered := func(on string, n uint64, id string) {
		t.Helper()
		r, came := sides[on].reply(n, 60*time.Second)
		if !came || r.ID != id || r.State != cbsdmq.Done {
			t.Fatalf("on %s for %s: %+v, %v", on, id, r, came)
		}
		ends[id] = r
	}
	n, id := put(way[0], "jcreate", "jname=jail1", "ver=empty")
	answered(way[0], n, id)

	var owedN uint64
	var owedID string
	for i, next := range way[1:] {
		last := way[i]
		// One runs while the new broker is added.
		letGo := w.hold("jset")
		slowN, slow := put(last, "jset", "jname=jail1", fmt.Sprintf("host_hostname=a%d.example", i))
		w.begun(changes)
		w.serveOn(agent, last, next)
		newN, fresh := put(next, "jset", "jname=jail1", fmt.Sprintf("host_hostname=b%d.example", i)) // waits for the other one
		letGo()
		oldN, stale := put(last, "jget", "jname=jail1", "host_hostname")
		answered(last, slowN, slow)
		answered(last, oldN, stale)
		answered(next, newN, fresh)
		sides[last].knows(ids)
		sides[next].knows(ids)

		// One runs while the old broker is taken out.
		letGo = w.hold("jset")
		owedN, owedID = put(last, "jset", "jname=jail1", fmt.Sprintf("host_hostname=c%d.example", i))
		w.begun(changes)
		w.serveOn(agent, next)
		letGo()
		ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
		r, err := sides[next].asks.Follow(ctx, owedID, 0, nil) // who asks on the new one is told
		cancel()
		if err != nil || r.State != cbsdmq.Done {
			t.Fatalf("following %s on %s: %+v, %v", owedID, next, r, err)
		}
		ends[owedID] = r
		if r, came := sides[last].reply(owedN, time.Second); came {
			t.Errorf("%s is not served, and has a reply: %+v", last, r)
		}
		if i == 0 { // it is given back to the list for its last answer
			w.serveOn(agent, next, last)
			answered(last, owedN, owedID)
			w.serveOn(agent, next)
		}
	}

	// What is put on a broker that is not served stays there, until it is again.
	lateN, late := put(way[0], "jget", "jname=jail1", "host_hostname")
	if r, came := old.reply(lateN, time.Second); came {
		t.Errorf("a job on a broker that is not served has a reply: %+v", r)
	}
	w.serveOn(agent, way...)
	answered(way[0], lateN, late)
	answered(way[1], owedN, owedID)
	for _, s := range sides {
		s.knows(ids)
	}
	if agent.gone() {
		t.Error("the agent has ended")
	}
	w.judge(ends, false)
}
