package nats

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/cbsd/cbsdmq/bus"
)

// surveyTimeout bounds dialling where ctx has no deadline.
const surveyTimeout = 10 * time.Second

// member is what Survey finds at one address.
type member struct {
	addr string
	conn *conn
	err  error
}

func (m member) name() string { return m.conn.nc.ConnectedServerName() }

// Survey dials each server of the list, and asks the leaders of the streams of
// tubes how their copies are. Of a server that is alone it has nothing to say.
func (d *Driver) Survey(ctx context.Context, tubes ...bus.Tube) ([]bus.Finding, error) {
	targets, err := d.targets()
	if err != nil {
		return nil, err
	}
	members := make([]member, len(targets))
	var wg sync.WaitGroup
	for i, e := range targets {
		wg.Go(func() {
			within := surveyTimeout
			if end, ok := ctx.Deadline(); ok {
				within = time.Until(end) / 2 // the other half is for the streams
			}
			one, cancel := context.WithTimeout(ctx, within)
			defer cancel()
			c, err := e.dial(one, within)
			members[i] = member{e.addr, c, err}
		})
	}
	wg.Wait()
	defer func() {
		for _, m := range members {
			if m.conn != nil {
				m.conn.Close()
			}
		}
	}()
	there := slices.DeleteFunc(slices.Clone(members), func(m member) bool { return m.err != nil })
	if len(there) == 0 {
		return nil, members[0].err
	}
	if len(members) == 1 && there[0].conn.cluster == "" {
		return nil, nil
	}
	found := meet(members, there)
	c := there[0].conn
	c.replicas = d.replicas
	if c.cluster == "" {
		return found, nil
	}
	seen := map[string]bool{}
	for _, t := range tubes {
		p, err := placeOf(t)
		if err != nil || seen[p.stream] {
			continue
		}
		seen[p.stream] = true
		for _, f := range c.copiesOf(ctx, p, there) {
			if !slices.Contains(found, f) { // as of another stream
				found = append(found, f)
			}
		}
	}
	return found, nil
}

// meet says which of the servers answer, and whether they are of one cluster.
func meet(all, there []member) (found []bus.Finding) {
	var names []string
	for _, m := range there {
		names = append(names, fmt.Sprintf("%s at %s", m.name(), m.addr))
	}
	cluster := there[0].conn.cluster
	if cluster != "" {
		found = append(found, bus.Finding{Text: fmt.Sprintf("cluster %s: %d of %d servers answer: %s", cluster, len(there), len(all), strings.Join(names, ", "))})
	}
	for _, m := range all {
		if m.err != nil {
			found = append(found, bus.Finding{Warning: true, Text: m.err.Error(), Hint: "a cluster of three goes on without one of them, and stops without two: start it"})
		}
	}
	for _, m := range there {
		if m.conn.cluster != cluster {
			found = append(found, bus.Finding{
				Warning: true,
				Text:    fmt.Sprintf("%s is of cluster %q, %s of %q: they keep different messages", there[0].addr, cluster, m.addr, m.conn.cluster),
				Hint:    "the key uri names the servers of one cluster",
			})
		}
	}
	if len(there) > 1 && cluster == "" {
		found = append(found, bus.Finding{Warning: true, Text: "the servers of the list are not in a cluster: each keeps messages of its own",
			Hint: "name one of them in uri, or make them a cluster"})
	}
	return found
}

// copiesOf says how the copies of a stream are.
func (c *conn) copiesOf(ctx context.Context, p place, there []member) []bus.Finding {
	var si *jetstream.StreamInfo
	err := c.persist(ctx, func(ctx context.Context) error {
		s, err := c.js.Stream(ctx, p.stream)
		if err == nil {
			si = s.CachedInfo()
		}
		return err
	})
	switch {
	case errors.Is(err, jetstream.ErrStreamNotFound):
		return []bus.Finding{{Text: fmt.Sprintf("stream %s does not exist yet; it will have %d copies", p.stream, c.copies())}}
	case err != nil:
		return []bus.Finding{{Warning: true, Text: fmt.Sprintf("stream %s does not answer: %v", p.stream, err), Hint: "more than half of the servers that keep it must run"}}
	case si.Cluster == nil:
		return nil
	}
	found := []bus.Finding{{Text: fmt.Sprintf("stream %s: %d copies, led by %s%s", p.stream, si.Config.Replicas, si.Cluster.Leader, others(si.Cluster.Replicas))}}
	if si.Config.Replicas < c.copies() {
		found = append(found, bus.Finding{
			Warning: true,
			Text:    fmt.Sprintf("stream %s has %d of %d copies: what waits in it is out of reach, or lost, with its server", p.stream, si.Config.Replicas, c.copies()),
			Hint:    fmt.Sprintf("an agent or client that uses it makes them when all servers are there; by hand: nats stream edit %s --replicas %d", p.stream, c.copies()),
		})
	}
	for _, r := range si.Cluster.Replicas {
		if why := behind(r); why != "" {
			found = append(found, bus.Finding{Warning: true, Text: fmt.Sprintf("stream %s: the copy on %s is %s", p.stream, r.Name, why), Hint: "stop no other server before it has caught up"})
		} else if !slices.ContainsFunc(there, func(m member) bool { return m.name() == r.Name }) {
			found = append(found, bus.Finding{Warning: true, Text: fmt.Sprintf("the key uri does not name server %s, which is there", r.Name), Hint: "name all servers, with commas: nobody tries one that is not named"})
		}
	}
	return found
}

func others(replicas []*jetstream.PeerInfo) string {
	var names []string
	for _, r := range replicas {
		names = append(names, r.Name)
	}
	if len(names) == 0 {
		return ""
	}
	return ", followed by " + strings.Join(names, " and ")
}

// behind says in what way a copy is not whole, "" if it is.
func behind(r *jetstream.PeerInfo) string {
	switch {
	case r.Offline:
		return "away"
	case !r.Current && r.Lag > 0:
		return fmt.Sprintf("%d operations behind", r.Lag)
	case !r.Current:
		return fmt.Sprintf("not current; its last word was %v ago", r.Active.Round(time.Second))
	}
	return ""
}
