package activemq

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/Azure/go-amqp"

	"github.com/cbsd/cbsdmq/bus"
	"github.com/cbsd/cbsdmq/internal/testserver"
)

// A broker that tells no counts is asked once, and keeps nothing of the question.
func TestWithoutStatistics(t *testing.T) {
	c := dial(t, testserver.ActiveMQ(t, testserver.ActiveMQWithoutStatistics()).Addr)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	q := bus.Tube{Name: "q"}
	if r := c.Put(ctx, bus.Message{Tube: q, Body: []byte("x")}); r[0].Err != nil {
		t.Fatal(r[0].Err)
	}
	for range 3 {
		begin := time.Now()
		info, err := c.Inspect(ctx, q)
		if err != nil || info.Ready != -1 || info.Consumers != -1 || info.Server == "" {
			t.Errorf("Inspect: %+v, %v; want unknown counts", info, err)
		}
		if took := time.Since(begin); took >= askTimeout {
			t.Errorf("found out by waiting %v", took)
		}
	}
	in, err := c.session.NewReceiver(ctx, statisticsBroker, &amqp.ReceiverOptions{Credit: 1})
	if err != nil {
		t.Fatal(err)
	}
	short, end := context.WithTimeout(ctx, 200*time.Millisecond)
	defer end()
	if msg, err := in.Receive(short, nil); err == nil {
		t.Errorf("left behind: %+v", msg)
	}
}

func dial(t testing.TB, addr string) *conn {
	t.Helper()
	c, err := driver(t, bus.Config{URI: addr}).Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c.(*conn)
}

// classicQueues and artemisQueues count the queues of a broker.
func classicQueues(t testing.TB, addr string) int {
	t.Helper()
	c := dial(t, addr)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	in, err := c.session.NewReceiver(ctx, "", &amqp.ReceiverOptions{DynamicAddress: true, Credit: 100})
	if err != nil {
		t.Fatal(err)
	}
	to, reply := statisticsQueue+">", in.Address()
	err = c.out.Send(ctx, &amqp.Message{
		Properties:            &amqp.MessageProperties{To: &to, ReplyTo: &reply},
		ApplicationProperties: map[string]any{statisticsEnd: true},
		Value:                 "",
	}, nil)
	for n := 0; err == nil; n++ {
		var msg *amqp.Message
		if msg, err = in.Receive(ctx, nil); err == nil {
			if counts, _ := msg.Value.(map[string]any); counts["size"] == nil {
				return n
			}
			err = in.AcceptMessage(ctx, msg)
		}
	}
	t.Fatalf("asking for the queues: %v", err)
	return 0
}

func artemisQueues(t testing.TB, addr string) int {
	t.Helper()
	c := dial(t, addr)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	out, err := c.session.NewSender(ctx, management, nil)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := c.ask(ctx, out, management, map[string]any{"_AMQ_ResourceName": "broker", "_AMQ_Attribute": "queueNames"}, "[]")
	var names [][]string
	if err == nil {
		err = json.Unmarshal(fmt.Append(nil, answer.Value), &names)
	}
	if err != nil || len(names) != 1 {
		t.Fatalf("asking for the queues: %v, %v", answer, err)
	}
	return len(names[0])
}
