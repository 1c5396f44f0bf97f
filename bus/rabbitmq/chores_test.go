package rabbitmq

import (
	"fmt"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// A broker that takes no time for chores holds nobody up and fills no memory, and
// a mailbox whose turn did not come is not taken for used.
func TestChoresAreBounded(t *testing.T) {
	c := &conn{chores: make(chan func(*amqp.Channel) error, choresMax), renewed: map[string]time.Time{}}
	for i := range renewedMax {
		c.used(fmt.Sprint("box", i))
		c.made(fmt.Sprint("queue", i))
	}
	if waiting, used := len(c.chores), len(c.renewed); waiting != choresMax || used != choresMax/2 {
		t.Errorf("%d chores wait, %d mailboxes are taken for used", waiting, used)
	}
	for i := range 2*renewedMax + 1 {
		if c.used(fmt.Sprint("later", i)); len(c.chores) == choresMax {
			<-c.chores
		}
	}
	if n := len(c.renewed); n > renewedMax {
		t.Errorf("%d mailboxes are remembered", n)
	}
	if _, ok := c.renewed[fmt.Sprint("later", 2*renewedMax)]; !ok {
		t.Error("the mailbox used last is not remembered")
	}
}
