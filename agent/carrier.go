package agent

import (
	"context"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cbsd/cbsdmq"
	"github.com/cbsd/cbsdmq/cbsd"
)

// cuts are the verbs after which a guest does not answer at its address.
var cuts = []cbsd.Verb{cbsd.Stop, cbsd.Remove, cbsd.Restart, cbsd.Pause, cbsd.Rename, cbsd.Unregister}

// checkCarrier refuses what would take away the guest in which the pool's own
// broker runs: nobody could be told how it ended, nor give a job that starts it
// again.
func (s *Server) checkCarrier(ctx context.Context, plan cbsd.Plan) error {
	if !slices.Contains(cuts, plan.Verb) {
		return nil
	}
	for _, g := range s.stopped(ctx, plan) {
		for _, e := range s.cfg.Endpoints {
			if Carries(g, e.Bus.Addr()) {
				return cbsdmq.Errorf(cbsdmq.CodeRefused, "CommandArgs.jname", "%s carries the pool's own broker, %s at %s", g.Name, e.Name, e.Bus.Addr()).
					WithHint("with --force (cbsdmq.force on the wire) it is done, and the pool is cut off until `cbsd` starts it on the host")
			}
		}
		s.bystanders.note(g.Name, time.Now())
	}
	return nil
}

// stopped are the guests that a command takes away, but for those that carried no
// broker a moment ago. What is wrong with the inventory, the command will tell.
func (s *Server) stopped(ctx context.Context, plan cbsd.Plan) []cbsdmq.Guest {
	if slices.Contains(plan.Lanes, cbsd.WholePool) {
		all, _ := s.cfg.CBSD.Guests(ctx)
		return all
	}
	var guests []cbsdmq.Guest
	for _, name := range plan.Lanes {
		if s.bystanders.has(name, time.Now()) {
			continue
		}
		if g, ok, err := s.cfg.CBSD.Guest(ctx, name); ok && err == nil {
			guests = append(guests, g)
		}
	}
	return guests
}

// bystanders are the guests that carried no broker when they were looked at.
type bystanders struct {
	mu   sync.Mutex
	seen map[string]time.Time
}

const (
	bystandersMax = 4096
	bystanderFor  = 10 * time.Second // a guest seldom gets the broker's address
)

func (b *bystanders) has(guest string, now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	at, ok := b.seen[guest]
	return ok && now.Sub(at) < bystanderFor
}

func (b *bystanders) note(guest string, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.seen == nil || len(b.seen) >= bystandersMax {
		b.seen = make(map[string]time.Time)
	}
	b.seen[guest] = now
}

// Carries reports whether a broker at addr is in the guest: it has the address.
func Carries(g cbsdmq.Guest, addr string) bool {
	for part := range strings.SplitSeq(addr, ",") {
		host := brokerHost(strings.TrimSpace(part))
		if host == "" {
			continue
		}
		if strings.EqualFold(host, g.Hostname) {
			return true
		}
		at, err := netip.ParseAddr(host)
		if err != nil {
			continue
		}
		for own := range strings.SplitSeq(g.IP4, ",") {
			own, _, _ = strings.Cut(strings.TrimSpace(own), "/")
			if ip, err := netip.ParseAddr(own); err == nil && ip.Unmap() == at.Unmap() {
				return true
			}
		}
	}
	return false
}

// brokerHost is the host of an address: of a URL, host:port, or a host alone.
func brokerHost(addr string) string {
	if strings.Contains(addr, "://") {
		if u, err := url.Parse(addr); err == nil {
			return u.Hostname()
		}
	}
	if host, _, err := net.SplitHostPort(addr); err == nil {
		return host
	}
	return strings.Trim(addr, "[]")
}
