package rabbitmq

import (
	"fmt"

	amqp "github.com/rabbitmq/amqp091-go"
)

// subscribe has the broker send what is in the tubes, and may wait for its word.
// k.mu is held.
func (k *consumer) subscribe(wait bool) error {
	k.subs++
	for i, t := range k.o.Tubes {
		came, err := k.ch.Consume(t.Name, k.tag(i), false, false, false, !wait, nil)
		if err != nil {
			return fmt.Errorf("consuming %s: %w", t.Name, err)
		}
		k.streams++
		k.collecting.Go(func() { k.collect(came) })
	}
	k.on = true
	return nil
}

func (k *consumer) tag(i int) string { return fmt.Sprintf("cbsdmq-%d-%d", k.subs, i) }

func (k *consumer) tags() []string {
	tags := make([]string, len(k.o.Tubes))
	for i := range tags {
		tags[i] = k.tag(i)
	}
	return tags
}

// unsubscribe ends the subscription with these tags; collect sees its end. The next
// one has the given window. Both wait for the broker, behind what is on its way.
func (k *consumer) unsubscribe(tags []string, window int) {
	var err error
	k.mu.Lock()
	change := window != k.window
	k.window = window
	k.mu.Unlock()
	if change {
		err = k.ch.Qos(window, 0, false)
	}
	for _, tag := range tags {
		if err == nil {
			err = k.ch.Cancel(tag, false)
		}
	}
	if err != nil {
		_ = k.conn.Fail(fmt.Errorf("ending a subscription: %w", err))
	}
}

// collect takes the deliveries of one subscription until it has ended.
func (k *consumer) collect(came <-chan amqp.Delivery) {
	for d := range came {
		k.mu.Lock()
		k.ready = append(k.ready, d)
		k.signal()
		k.mu.Unlock()
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.streams--; k.streams > 0 {
		return
	}
	k.on = false
	if !k.closed && (!k.calls || len(k.back) > 0) {
		k.giveBack()
	}
	k.signal()
}

func (k *consumer) signal() {
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// rest is called when nobody has asked for a while.
func (k *consumer) rest() {
	k.mu.Lock()
	if k.calls || k.closed || !k.on || k.conn.Failed() != nil {
		k.mu.Unlock()
		return
	}
	k.on = false
	tags, window := k.tags(), max(prefetch, len(k.unacked)+prefetch/2)
	k.mu.Unlock()
	k.unsubscribe(tags, window)
}

// giveBack returns what is ready, and what was to go back, to its tubes: each
// message has its place there again. k.mu is held. An error means the end of the
// connection, which does the same.
func (k *consumer) giveBack() {
	for _, d := range k.ready {
		k.back = append(k.back, d.DeliveryTag)
	}
	_ = k.nack(k.back)
	k.back, k.ready = nil, nil
}
