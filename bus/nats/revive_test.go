package nats

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/cbsd/cbsdmq/bus"
	"github.com/cbsd/cbsdmq/internal/testserver"
)

// TestEmbeddedRevives has the server say that it could not write: it is started
// again at its address with what it had, for clients in this process and others.
func TestEmbeddedRevives(t *testing.T) {
	t.Parallel()
	cfg := bus.Config{URI: embeddedURI, EmbeddedDir: filepath.Join(t.TempDir(), "nats"), EmbeddedListen: "127.0.0.1:0", PublishTimeout: 2, ReserveTimeout: 1, ReconnectTimeout: 1}
	e, err := StartEmbedded(t.Context(), EmbeddedConfig{Dir: cfg.EmbeddedDir, Listen: cfg.EmbeddedListen})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	tube := bus.Tube{Name: "cbsd_pool1"}
	put := func(d *Driver, body string) error {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		c, err := d.Dial(ctx)
		if err != nil {
			return err
		}
		defer c.Close()
		return c.Put(ctx, bus.Message{Tube: tube, Body: []byte(body)})[0].Err
	}
	inside, outside := newEmbeddedClient(cfg, e), newEmbeddedClient(cfg, nil)
	if err := put(inside, "before"); err != nil {
		t.Fatal(err)
	}
	before, at := e.current(), e.Addr()
	for range 3 { // more than once before anybody hears it
		e.log.Errorf("Filestore [%s] Critical write error: no space left on device", "cbsdmq_q_cbsd_pool1")
	}
	testserver.Eventually(t, time.Minute, func() error {
		if s := e.current(); s == nil || s == before {
			return errors.New("there is no new server")
		}
		return nil
	})
	if e.Addr() != at {
		t.Errorf("it is at %s now, not at %s", e.Addr(), at)
	}
	for body, d := range map[string]*Driver{"inside": inside, "outside": outside} {
		testserver.Eventually(t, time.Minute, func() error { return put(d, body) })
	}
	c, err := inside.Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	info, err := c.Inspect(t.Context(), tube)
	if err != nil || info.Ready < 3 {
		t.Errorf("got %+v, %v; want three messages", info, err)
	}
	if _, err := os.Stat(filepath.Join(cfg.EmbeddedDir, roomFile)); err == nil {
		t.Error("the file that looks for room is still there")
	}
}
