package nats

import "github.com/nats-io/nats.go"

const (
	// keepEvery is how many bytes may follow a keeper. The server begins
	// another file after 8 MB.
	keepEvery = 1 << 20
	overhead  = 200 // of a message and its removal, in a file
)

// keep sees to it that the file which a stream writes to holds a message that
// nobody takes out, the keeper. The server removes a file with its last message
// and begins another one. In a queue that is worked off as fast as it fills
// that is a file for each message, and where the server syncs, it takes three
// times as long as to append.
//
// The keeper has a subject of its own in the stream, and a new one replaces the
// old one. It is put by those who stay, the consumers of a queue and the
// senders to mailboxes; n is the size of a message that they moved. Where the
// stream does not take a keeper nothing is lost but time, so no answer is
// waited for.
func (c *conn) keep(p place, s *stream, n int) {
	if s.moved.Add(int64(n)+overhead) < keepEvery {
		return
	}
	s.moved.Store(0)
	m := &nats.Msg{Subject: p.keeper, Header: nats.Header{"Nats-Rollup": {"sub"}}}
	if s.ttl {
		m.Header[ttlHeader] = []string{"never"}
	}
	_ = c.nc.PublishMsg(m)
}
