package activemq

import (
	"context"
	"encoding/json"
	"errors"
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
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	q := bus.Tube{Name: "q"}
	if r := c.Put(ctx, bus.Message{Tube: q, Body: []byte("x")}); r[0].Err != nil {
		t.Fatal(r[0].Err)
	}
	inspect := func() {
		t.Helper()
		info, err := c.Inspect(ctx, q)
		if err != nil || info.Ready != -1 || info.Consumers != -1 || info.Server == "" {
			t.Errorf("Inspect: %+v, %v; want unknown counts", info, err)
		}
	}
	// A broker that has just started may be silent for as long as one without it:
	// that is not for ever.
	testserver.Eventually(t, 20*time.Second, func() error {
		if inspect(); !c.plugin.known {
			return errors.New("not found out, but by waiting")
		}
		return nil
	})
	inspect()
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
func classicQueues(t testing.TB, addr string) int { return counted(t, addr, countClassicQueues) }
func artemisQueues(t testing.TB, addr string) int { return counted(t, addr, countArtemisQueues) }

// counted asks again where the broker ends the connection, or is silent for a while.
func counted(t testing.TB, addr string, count func(context.Context, *conn) (int, error)) (n int) {
	t.Helper()
	testserver.Eventually(t, time.Minute, func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		c, err := driver(t, bus.Config{URI: addr}).Dial(ctx)
		if err != nil {
			return err
		}
		defer c.Close()
		n, err = count(ctx, c.(*conn))
		return err
	})
	return n
}

func countClassicQueues(ctx context.Context, c *conn) (int, error) {
	in, err := c.session.NewReceiver(ctx, "", &amqp.ReceiverOptions{DynamicAddress: true, Credit: 100})
	if err != nil {
		return 0, err
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
				return n, nil
			}
			err = in.AcceptMessage(ctx, msg)
		}
	}
	return 0, fmt.Errorf("asking for the queues: %w", err)
}

func countArtemisQueues(ctx context.Context, c *conn) (int, error) {
	out, err := c.session.NewSender(ctx, management, nil)
	if err != nil {
		return 0, err
	}
	answer, err := c.ask(ctx, out, management, map[string]any{"_AMQ_ResourceName": "broker", "_AMQ_Attribute": "queueNames"}, "[]")
	var names [][]string
	if err == nil {
		err = json.Unmarshal(fmt.Append(nil, answer.Value), &names)
	}
	if err == nil && len(names) != 1 {
		err = fmt.Errorf("%d lists", len(names))
	}
	if err != nil {
		return 0, fmt.Errorf("asking for the queues: %w", err)
	}
	return len(names[0]), nil
}
