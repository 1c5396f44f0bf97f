package agent

import "github.com/cbsd/cbsdmq/cbsd"

// A node is a job's place among those that touch the same guests.
type node struct {
	lanes []string
	waits int // jobs before it that have not left
	next  []*node
	job   *job
}

// lanes keeps jobs that name the same guest in the order in which they
// entered. A node may run when nothing that it waits for is left; nodes of
// different guests never wait for each other.
type lanes struct {
	last map[string]*node // of each lane, the node that entered last and has not left
	all  *node            // the last node that took the whole pool
}

// enter puts n behind every node that it shares a lane with, and returns those.
func (l *lanes) enter(n *node) (behind map[*node]bool) {
	if l.last == nil {
		l.last = make(map[string]*node)
	}
	behind = make(map[*node]bool, len(n.lanes))
	for _, lane := range n.lanes {
		if lane == cbsd.WholePool {
			for _, p := range l.last {
				behind[p] = true
			}
			if l.all != nil {
				behind[l.all] = true
			}
			l.last, l.all = make(map[string]*node), n
			break
		}
		if p := l.last[lane]; p != nil {
			behind[p] = true
		} else if l.all != nil {
			behind[l.all] = true
		}
	}
	delete(behind, n)
	for p := range behind {
		p.next = append(p.next, n)
	}
	n.waits = len(behind)
	if l.all == n {
		return behind
	}
	for _, lane := range n.lanes {
		l.last[lane] = n
	}
	return behind
}

// leave takes n out and returns the nodes that wait for nothing any more.
func (l *lanes) leave(n *node) (free []*node) {
	for _, m := range n.next {
		if m.waits--; m.waits == 0 {
			free = append(free, m)
		}
	}
	n.next = nil
	for _, lane := range n.lanes {
		if l.last[lane] == n {
			delete(l.last, lane)
		}
	}
	if l.all == n {
		l.all = nil
	}
	return free
}
