package rabbitmq

import (
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

const (
	// renewal is after how long a mailbox is used once more.
	renewal = time.Hour

	choresMax  = 1024 // that wait; more are left undone
	renewedMax = 4096 // mailboxes that are remembered
)

// shadowTTL is in milliseconds without use; tests make it longer.
var shadowTTL = int64(100)

// doChores does what need not be waited for, on a channel of its own: the broker
// closes the channel over what it refuses, and a user without the right to do a
// chore can do without it.
func (c *conn) doChores() {
	var ch *amqp.Channel
	for {
		select {
		case <-c.Dead():
			return
		case do := <-c.chores:
			if ch == nil || ch.IsClosed() {
				var err error
				if ch, err = c.amqp.Channel(); err != nil {
					ch = nil
					continue // the connection has ended
				}
			}
			_ = do(ch)
		}
	}
}

// chore reports whether do is going to be done.
func (c *conn) chore(do func(*amqp.Channel) error) bool {
	select {
	case c.chores <- do:
		return true
	default:
		return false
	}
}

// used is called when something was put into a mailbox. To RabbitMQ that is no use
// of it, nor is a declaration that waits for no answer (seen with 3.10.8): one that
// nobody reads would go MailboxMaxAge after it was made, with what came a moment
// ago.
func (c *conn) used(mailbox string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Since(c.renewed[mailbox]) < renewal {
		return
	}
	if !c.chore(func(ch *amqp.Channel) error {
		_, err := ch.QueueDeclarePassive(mailbox, true, false, false, false, nil)
		return err
	}) {
		return // with the next message
	}
	if len(c.renewed) >= renewedMax {
		clear(c.renewed)
	}
	c.renewed[mailbox] = time.Now()
}

// made is called when a queue was made. A RabbitMQ that is killed a moment later
// may have forgotten the one that was made last, with what it has confirmed of it
// (3.10.8: once in some 25 kills), but not those before. So another is made behind
// it, which goes by itself. No tube can have its name.
func (c *conn) made(queue string) {
	c.chore(func(ch *amqp.Channel) error {
		_, err := ch.QueueDeclare(queue+"!made", true, false, false, false, amqp.Table{"x-expires": shadowTTL})
		return err
	})
}
