package nats

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"

	natsserver "github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

// A server can sync each message by itself (SyncAlways), one after the other,
// and each removal too: four syncs for a job and its reply. Instead, a Put to
// the embedded broker waits until its messages are stored and then asks for
// their stream to be synced; all who ask at that moment share one sync.
// Removals are not synced: what comes again after a power failure was handed
// out before, which its readers know by its id.

const (
	syncSubject = "cbsdmq.sync." // + stream: when the empty reply comes, what was stored before is on the disk

	// serverName is the embedded broker's. Clients know by it that they have to
	// ask.
	serverName = "cbsdmq"
)

// syncer syncs the streams of the embedded broker for those who ask.
type syncer struct {
	nc    *nats.Conn
	asked *nats.Subscription
	files *storeFiles
	done  chan struct{}
}

// startSyncer serves in s, whose directory is dir, before anyone else can reach
// it.
func startSyncer(s *natsserver.Server, token, dir string) (*syncer, error) {
	nc, err := nats.Connect("", nats.InProcessServer(s), nats.Token(token), nats.Name("cbsdmq sync"), nats.NoReconnect())
	if err != nil {
		return nil, fmt.Errorf("connecting to the server in this process: %w", err)
	}
	y := &syncer{nc: nc, files: newStoreFiles(filepath.Join(dir, storeStreams)), done: make(chan struct{})}
	if y.asked, err = nc.SubscribeSync(syncSubject + "*"); err == nil {
		err = nc.Flush()
	}
	if err != nil {
		nc.Close()
		return nil, fmt.Errorf("subscribing to %s*: %w", syncSubject, err)
	}
	go y.run()
	return y, nil
}

// close returns when nobody is served any more.
func (y *syncer) close() {
	y.nc.Close()
	<-y.done
}

// run syncs each stream once for all who have asked by then.
func (y *syncer) run() {
	defer close(y.done)
	for {
		m, err := y.asked.NextMsgWithContext(context.Background())
		if err != nil { // closed
			return
		}
		asked := map[string][]*nats.Msg{}
		for {
			stream := strings.TrimPrefix(m.Subject, syncSubject)
			asked[stream] = append(asked[stream], m)
			if n, _, err := y.asked.Pending(); n == 0 || err != nil {
				break
			}
			if m, err = y.asked.NextMsgWithContext(context.Background()); err != nil {
				return
			}
		}
		for stream, ms := range asked {
			var word []byte
			if err := y.files.sync(stream); err != nil {
				word = []byte(err.Error())
			}
			for _, m := range ms {
				_ = m.Respond(word) // who does not hear it takes its messages for lost
			}
		}
	}
}

// sync returns when what is in the stream is on the disk.
func (c *conn) sync(ctx context.Context, stream string) error {
	m, err := c.nc.RequestWithContext(ctx, syncSubject+stream, nil)
	if err != nil {
		return c.call(ctx, "waiting for the disk", err)
	}
	if len(m.Data) > 0 {
		return fmt.Errorf("the broker could not sync: %s", m.Data)
	}
	return nil
}
