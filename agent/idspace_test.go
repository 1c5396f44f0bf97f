package agent

import (
	"fmt"
	"testing"

	"github.com/cbsd/cbsdmq"
	"github.com/cbsd/cbsdmq/bus"
)

// A job of an original client is on its way into the journal while the broker
// starts anew with nothing, and the agent learns of that by another job's reply.
// Its number is somebody else's now: it is not taken, as the broker has
// forgotten it, and nothing is sent there.
func TestBrokerForgetsAJobOnItsWay(t *testing.T) {
	b := newBench(t)
	b.start()
	long := b.submit("jstart", "jname=jail2")
	b.running(long)
	open := b.cbsd.block()
	number := b.raw(`{"Command":"jset","CommandArgs":{"jname":"jail1"}}`)
	b.cbsd.looking(t)
	b.broker.Restart(false)
	b.finish(long, 0, "")
	b.want(long, cbsdmq.Done, 0) // the outbox has asked which incarnation runs
	open()
	b.want(b.submit("jset", "jname=jail2"), cbsdmq.Done, 0)
	info, err := b.client.Inspect(t.Context(), bus.Tube{Name: bus.MailboxName("reply", number), Kind: bus.Mailbox})
	if err != nil || info.Ready > 0 {
		t.Errorf("the mailbox of number %d has %d replies, %v", number, info.Ready, err)
	}
	if row, err := b.row(fmt.Sprint(number)); err != nil || row != nil {
		t.Errorf("the journal has it: %+v, %v", row, err)
	}
}
