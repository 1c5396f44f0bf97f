package agent

import (
	"context"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"

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
	guests, _ := s.cfg.CBSD.Guests(ctx) // what is wrong with the inventory, the command will tell
	for _, g := range guests {
		if !slices.Contains(plan.Lanes, g.Name) && !slices.Contains(plan.Lanes, cbsd.WholePool) {
			continue
		}
		for _, e := range s.cfg.Endpoints {
			if Carries(g, e.Bus.Addr()) {
				return cbsdmq.Errorf(cbsdmq.CodeRefused, "CommandArgs.jname", "%s carries the pool's own broker, %s at %s", g.Name, e.Name, e.Bus.Addr()).
					WithHint("with --force (cbsdmq.force on the wire) it is done, and the pool is cut off until `cbsd` starts it on the host")
			}
		}
	}
	return nil
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
