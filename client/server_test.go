package client_test

import (
	"bytes"
	"testing"
	"time"

	"github.com/cbsd/cbsdmq"
	"github.com/cbsd/cbsdmq/bus"
	"github.com/cbsd/cbsdmq/bus/all"
	"github.com/cbsd/cbsdmq/client"
	"github.com/cbsd/cbsdmq/internal/testserver"
)

// The same over brokers as they are.
func TestOnServers(t *testing.T) {
	t.Run("beanstalkd", func(t *testing.T) { onServer(t, "beanstalkd", testserver.Beanstalkd(t).Addr) })
	t.Run("nats", func(t *testing.T) { onServer(t, "nats", testserver.NATS(t).Addr) })
}

func onServer(t *testing.T, kind, addr string) {
	connect := func() *bus.Bus {
		t.Helper()
		b, closer, err := new(all.Opener).Open(t.Context(), kind, bus.Config{
			URI: addr, Tube: tube, ReplyTubePrefix: prefix, ReconnectTimeout: 1, ReserveTimeout: 5, PublishTimeout: 5,
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { closer.Close() })
		return b
	}
	session := func(b *bus.Bus, timeout time.Duration) *client.Client {
		t.Helper()
		c, err := client.Open(t.Context(), client.Options{Bus: b, Pool: pool, Tube: tube, ReplyPrefix: prefix, RequestTimeout: timeout})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	mine := connect()
	_, err := session(mine, 1500*time.Millisecond).Status(t.Context())
	wantCode(t, err, cbsdmq.CodeGaveUp, "no cbsdmq agent serves")
	if !mine.Caps().TTL {
		info, err := mine.Inspect(t.Context(), bus.Tube{Name: tube + cbsdmq.ControlSuffix})
		if err != nil || info.Ready != 0 {
			t.Errorf("%d requests are left behind, %v", info.Ready, err)
		}
	}

	const patience = time.Minute // for answers that come
	a := (&agent{onJob: func(a *agent, j *job) {
		a.print(j, "one\n")
		a.printSilently(j, "two\n") // must be asked for
		a.print(j, "three\n")
		a.printSilently(j, "four\n")
		a.end(j, 7, 5)
	}}).startOn(t, connect())
	defer a.stop()
	c, got := session(mine, patience), collector{t: t}
	final, err := c.Run(t.Context(), ls, got.piece)
	if err != nil || final.ErrCode != 7 || string(got.out) != "one\ntwo\nthree\nfour\n" || got.holes != 0 {
		t.Errorf("final %+v, %v; output %q", final, err, got.out)
	}
	var out bytes.Buffer
	if dropped, err := c.Output(t.Context(), final.ID, &out); err != nil || dropped != 0 || out.String() != string(got.out) {
		t.Errorf("output %q, %d dropped, %v", out.String(), dropped, err)
	}
	again, err := session(connect(), patience).Follow(t.Context(), final.ID, 0, nil)
	if err != nil || again.ErrCode != 7 || again.Message != final.Message {
		t.Errorf("from elsewhere: %+v, %v", again, err)
	}
}
