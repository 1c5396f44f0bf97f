package mem

import (
	"slices"

	"github.com/cbsd/cbsdmq/bus"
)

// Hooks decide about faults. A nil hook lets things go their way. Hooks are
// called without locks: they may call the broker's methods.
type Hooks struct {
	// OnDial fails a connection attempt with the error that it returns.
	OnDial func() error
	// OnPut decides, per message, whether it is stored and what the sender is
	// told. (true, error) is the lost confirmation, after which the sender
	// cannot know. With an error other than bus.ErrTooLarge the connection
	// breaks.
	OnPut func(bus.Message) (stored bool, err error)
	// OnDeliver decides what happens to a message on its way to a consumer.
	OnDeliver func(bus.Delivery) Fate
	// OnAck decides, per delivery, whether the broker forgets it and what the
	// consumer is told. (false, nil) is an acknowledgement lost on the way: the
	// message comes again when the consumer's connection ends. With an error
	// the connection breaks.
	OnAck func(bus.Delivery) (applied bool, err error)
}

// A Fate is what happens to a delivery.
type Fate int

const (
	Deliver   Fate = iota
	Lose           // it does not arrive; the message comes again when the connection ends
	Duplicate      // it arrives twice
	Overtaken      // it arrives after the one behind it
)

// Hook sets the hooks.
func (b *Broker) Hook(h Hooks) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.hooks = h
}

// fault lets OnDeliver have its way with ds.
func (n *consumer) fault(ds []bus.Delivery) []bus.Delivery {
	hook := n.conn.b.hook().OnDeliver
	if hook == nil || len(ds) == 0 {
		return ds
	}
	var out []bus.Delivery
	for _, d := range ds {
		fate := hook(d)
		if fate == Overtaken && n.late == nil {
			n.late = &d
			continue
		}
		if fate != Lose {
			out = append(out, d)
		}
		if fate == Duplicate {
			out = append(out, d)
		}
		if n.late != nil {
			out = append(out, *n.late)
			n.late = nil
		}
	}
	return out
}

// Cut breaks all connections, in the order in which they were made.
func (b *Broker) Cut() {
	b.mu.Lock()
	var cs []*conn
	for c := range b.conns {
		cs = append(cs, c)
	}
	b.mu.Unlock()
	slices.SortFunc(cs, func(a, b *conn) int { return a.n - b.n })
	for _, c := range cs {
		c.cut(errCut)
	}
}

// Freeze makes the broker answer nothing until Thaw, as SIGSTOP does.
// Connections stay open.
func (b *Broker) Freeze() {
	b.mu.Lock()
	defer b.mu.Unlock()
	select {
	case <-b.thawed:
		b.thawed = make(chan struct{})
	default:
	}
}

// Thaw ends Freeze.
func (b *Broker) Thaw() {
	b.mu.Lock()
	defer b.mu.Unlock()
	select {
	case <-b.thawed:
	default:
		close(b.thawed)
	}
}

// Stop breaks all connections and refuses new ones until Start.
func (b *Broker) Stop() {
	b.mu.Lock()
	b.stopped = true
	b.mu.Unlock()
	b.Cut()
}

// Start ends Stop. With keep the messages are still there and ids go on;
// without, they are gone and ids begin at 1 again, as with a beanstalkd that
// has no binlog.
func (b *Broker) Start(keep bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.stopped = false
	b.starts++
	if !keep {
		b.tubes = map[string]*tube{}
		b.lastID = 0
	}
	b.base = b.lastID + 1
}

// Restart is Stop and Start.
func (b *Broker) Restart(keep bool) {
	b.Stop()
	b.Start(keep)
}
