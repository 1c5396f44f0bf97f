package activemq

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/Azure/go-amqp"

	"github.com/cbsd/cbsdmq/bus"
)

// AMQP itself does not tell how many messages a queue holds. Both brokers
// answer that when asked by a message, each in a way of its own: Classic where
// its statistics plugin is on, Artemis to who may send to its management.
const (
	statisticsBroker = "ActiveMQ.Statistics.Broker"
	statisticsQueue  = "ActiveMQ.Statistics.Destination."
	statisticsEnd    = "ActiveMQ.Statistics.Destination.List.End.With.Null" // an empty answer for a queue that is not there
	management       = "activemq.management"
)

// askTimeout is how long an answer is waited for.
const askTimeout = 2 * time.Second

// Inspect makes no queue. What the broker does not tell is unknown.
func (c *conn) Inspect(ctx context.Context, t bus.Tube) (bus.Info, error) {
	defer c.Guard(ctx)()
	if err := c.Usable(); err != nil {
		return bus.Info{}, err
	}
	if !valid(t.Name) {
		return bus.Info{}, fmt.Errorf("%w: %q", bus.ErrBadTube, t.Name)
	}
	product, _ := c.amqp.Properties()["product"].(string)
	info := bus.Info{
		Server:    strings.TrimSpace(fmt.Sprintf("%s %v", product, c.amqp.Properties()["version"])),
		Durable:   true,
		MaxBody:   maxBody,
		Ready:     -1,
		Consumers: -1,
	}
	count := c.countClassic
	switch product {
	case "ActiveMQ":
	case "apache-activemq-artemis":
		count = c.countArtemis
	default:
		return info, nil
	}
	var ready, consumers int
	err := c.Call(ctx, "inspecting "+t.Name, func() (err error) {
		ready, consumers, err = count(ctx, t.Name)
		return err
	}, nil)
	_, refused := errors.AsType[*refusedError](err)
	switch {
	case refused:
		err = nil
	case err == nil:
		info.Ready, info.Consumers = ready, consumers
	}
	return info, err
}

// countClassic asks the statistics plugin.
func (c *conn) countClassic(ctx context.Context, queue string) (ready, consumers int, err error) {
	if err := c.plugin.look(ctx, c); err != nil {
		return -1, -1, err
	}
	answer, err := c.ask(ctx, c.out, statisticsQueue+queue, map[string]any{statisticsEnd: true}, "")
	if err != nil {
		return -1, -1, err
	}
	counts, _ := answer.Value.(map[string]any)
	return number(counts["size"]) - number(counts["inflightCount"]), number(counts["consumerCount"]), nil
}

// number is a count of an answer, 0 if it is not there.
func number(v any) int {
	switch n := v.(type) {
	case int64:
		return int(n)
	case int32:
		return int(n)
	}
	return 0
}

// plugin knows whether the broker has the statistics plugin.
type plugin struct {
	mu    sync.Mutex
	known bool
	err   error // a *refusedError if it has not
}

// look asks a question that only the plugin takes. Without it, the question lies
// in a queue of its name, where we find it ourselves.
func (p *plugin) look(ctx context.Context, c *conn) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.known {
		return p.err
	}
	back, err := c.session.NewReceiver(context.Background(), statisticsBroker, &amqp.ReceiverOptions{Credit: 1, SourceCapabilities: []string{"queue"}})
	if err != nil {
		return refused(err)
	}
	defer back.Close(context.Background())
	missing := &refusedError{errors.New("its statistics plugin is off")}
	asking, found := context.WithCancelCause(ctx)
	defer found(nil)
	go func() {
		if msg, err := back.Receive(asking, nil); err == nil {
			_ = back.AcceptMessage(context.Background(), msg)
			found(missing)
		}
	}()
	if _, err = c.ask(asking, c.out, statisticsBroker, nil, ""); errors.Is(context.Cause(asking), missing) {
		err = missing
	}
	p.known, p.err = err == nil || errors.Is(err, missing), err
	return err
}

// countArtemis asks the management for all that it knows of the queue.
func (c *conn) countArtemis(ctx context.Context, queue string) (ready, consumers int, err error) {
	options, err := json.Marshal(map[string]string{"field": "NAME", "operation": "EQUALS", "value": queue})
	if err != nil {
		return -1, -1, err
	}
	arguments, err := json.Marshal([]any{string(options), 1, 1})
	if err != nil {
		return -1, -1, err
	}
	out, err := c.session.NewSender(context.Background(), management, nil) // it is not for senders to any queue
	if err != nil {
		return -1, -1, refused(err)
	}
	defer out.Close(context.Background())
	answer, err := c.ask(ctx, out, management, map[string]any{"_AMQ_ResourceName": "broker", "_AMQ_OperationName": "listQueues"}, string(arguments))
	if err != nil {
		return -1, -1, err
	}
	text, _ := answer.Value.(string)
	var results []string
	var page struct {
		Data []struct{ MessageCount, DeliveringCount, ScheduledCount, ConsumerCount json.Number }
	}
	if json.Unmarshal([]byte(text), &results) != nil || len(results) != 1 || json.Unmarshal([]byte(results[0]), &page) != nil {
		return -1, -1, nil
	}
	for _, q := range page.Data {
		n := func(v json.Number) int { n, _ := v.Int64(); return int(n) }
		ready += n(q.MessageCount) - n(q.DeliveringCount) - n(q.ScheduledCount)
		consumers += n(q.ConsumerCount)
	}
	return ready, consumers, nil
}

// refusedError is of a question that may not be asked.
type refusedError struct{ err error }

func (e *refusedError) Error() string { return "the broker does not tell: " + e.err.Error() }

// ask sends a question to where the broker itself takes it, and returns the answer.
func (c *conn) ask(ctx context.Context, out *amqp.Sender, to string, properties map[string]any, body string) (*amqp.Message, error) {
	in, err := c.session.NewReceiver(context.Background(), "", &amqp.ReceiverOptions{
		DynamicAddress: true, Credit: 1, SourceCapabilities: []string{"temporary-queue"},
	})
	if err != nil {
		return nil, refused(err)
	}
	defer in.Close(context.Background())
	reply := in.Address()
	err = out.Send(context.Background(), &amqp.Message{
		Header:                &amqp.MessageHeader{TTL: askTimeout, Priority: 4},
		Properties:            &amqp.MessageProperties{To: &to, ReplyTo: &reply},
		ApplicationProperties: properties,
		Value:                 body,
	}, nil)
	if err != nil {
		return nil, refused(err)
	}
	short, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	answer, err := in.Receive(short, nil)
	switch {
	case err != nil && short.Err() != nil && ctx.Err() == nil:
		return nil, &refusedError{errors.New("no answer")}
	case err != nil:
		return nil, err
	}
	return answer, in.AcceptMessage(context.Background(), answer)
}

// refused tells a broker's refusal from the end of the connection.
func refused(err error) error {
	if e, ok := errors.AsType[*amqp.Error](err); ok {
		return &refusedError{e}
	}
	return err
}
