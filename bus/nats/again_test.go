package nats

import (
	"path/filepath"
	"testing"

	"github.com/cbsd/cbsdmq/bus"
)

// TestSentAgain sends a message a second time, as Put does in a cluster when the
// confirmation was lost with the server that leads the stream.
func TestSentAgain(t *testing.T) {
	cfg := bus.Config{EmbeddedDir: filepath.Join(t.TempDir(), "nats")}
	e, err := StartEmbedded(t.Context(), EmbeddedConfig{Dir: cfg.EmbeddedDir, Listen: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	dialled, err := newEmbeddedClient(cfg, e).Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer dialled.Close()
	c := dialled.(*conn)
	c.cluster, c.replicas = "as if", 1
	q := bus.Tube{Name: "q"}
	m := bus.Message{Tube: q, Body: []byte("x")}
	var first sent
	c.send(t.Context(), m, &first)
	one := c.confirmed(t.Context(), first)
	c.send(t.Context(), m, &first)
	two := c.confirmed(t.Context(), first)
	if one.Err != nil || two != one {
		t.Errorf("sent twice: %+v, then %+v", one, two)
	}
	if r := c.Put(t.Context(), m)[0]; r.Err != nil || r.ID == one.ID {
		t.Errorf("put as another message: %+v, the first was %+v", r, one)
	}
	if info, err := c.Inspect(t.Context(), q); err != nil || info.Ready != 2 {
		t.Errorf("%d messages are there, %v; want 2", info.Ready, err)
	}
}
