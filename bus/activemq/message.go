package activemq

import (
	"strconv"
	"time"

	"github.com/Azure/go-amqp"

	"github.com/cbsd/cbsdmq/bus"
)

// putProperty is when a message was put, in microseconds since 1970.
const putProperty = "put"

// message is m as it goes to the broker.
func message(id uint64, m bus.Message) *amqp.Message {
	now := time.Now()
	to, messageID, kind := m.Tube.Name, strconv.FormatUint(id, 10), "application/octet-stream"
	am := amqp.NewMessage(m.Body)
	am.Header = &amqp.MessageHeader{Durable: true, TTL: m.TTL.Round(time.Millisecond), Priority: 4}
	if m.TTL > 0 && am.Header.TTL == 0 {
		am.Header.TTL = time.Millisecond
	}
	am.Annotations = amqp.Annotations{"x-opt-jms-dest": int8(0)} // to a queue, not a topic
	am.Properties = &amqp.MessageProperties{To: &to, MessageID: messageID, ContentType: &kind, CreationTime: &now}
	am.ApplicationProperties = map[string]any{putProperty: now.UnixMicro()}
	return am
}

func (k *consumer) delivery(r *ref) bus.Delivery {
	d := bus.Delivery{Tube: r.link.tube, Body: body(r.msg), Ref: r}
	if p := r.msg.Properties; p != nil {
		switch id := p.MessageID.(type) {
		case string:
			d.ID, _ = strconv.ParseUint(id, 10, 64)
		case uint64:
			d.ID = id
		}
	}
	if d.Size = len(d.Body); k.o.MaxBody > 0 && d.Size > k.o.MaxBody {
		d.Body = nil
	}
	return d
}

// body is that of a message, whichever of its forms other clients gave it.
func body(m *amqp.Message) []byte {
	b := []byte{}
	switch v := m.Value.(type) {
	case string:
		b = []byte(v)
	case []byte:
		b = v
	}
	if len(m.Data) == 1 && m.Data[0] != nil {
		return m.Data[0]
	}
	for _, part := range m.Data {
		b = append(b, part...)
	}
	return b
}

// putAt is when a message was put; of a message that does not say, that was long
// ago.
func putAt(m *amqp.Message) time.Time {
	if us, ok := m.ApplicationProperties[putProperty].(int64); ok {
		return time.UnixMicro(us)
	}
	if p := m.Properties; p != nil && p.CreationTime != nil {
		return *p.CreationTime
	}
	return time.Unix(0, 0)
}
