package agent

import (
	"fmt"
	"testing"
	"time"

	"github.com/cbsd/cbsdmq"
)

func TestBystanders(t *testing.T) {
	var b bystanders
	now := time.Now()
	if b.has("web7", now) {
		t.Error("a guest that nobody has looked at")
	}
	b.note("web7", now)
	if !b.has("web7", now.Add(bystanderFor-1)) || b.has("web7", now.Add(bystanderFor)) {
		t.Error("not for as long as it should be")
	}
	for i := range 2 * bystandersMax {
		b.note(fmt.Sprint("guest", i), now)
	}
	if n := len(b.seen); n > bystandersMax {
		t.Errorf("%d guests are kept", n)
	}
}

func TestCarries(t *testing.T) {
	for addr, want := range map[string]bool{
		"10.0.0.7:11300":                     true,
		"10.0.0.70:11300":                    false,
		"nats://cbsd:pw@10.0.0.7:4222":       true,
		"192.0.2.1:4222, 10.0.0.7:4222":      true,
		"[fd00::7]:11300":                    true,
		"tcp://[fd00:0:0::7]:5555":           true,
		"broker.my.domain:11300":             true,
		"other.my.domain:11300":              false,
		"127.0.0.1:11300":                    false,
		"embedded":                           false,
		"":                                   false,
		"[::ffff:10.0.0.7]:11300":            true,
		"amqp://broker.my.domain:5672/vhost": true,
	} {
		g := cbsdmq.Guest{Name: "mq", Hostname: "broker.my.domain", IP4: "10.0.0.7/24,fd00::7/64"}
		if got := Carries(g, addr); got != want {
			t.Errorf("%s: %v, want %v", addr, got, want)
		}
	}
	for _, ip := range []string{"", "DHCP", "0"} {
		if Carries(cbsdmq.Guest{IP4: ip}, "127.0.0.1:11300") {
			t.Errorf("a guest at %q carries 127.0.0.1", ip)
		}
	}
}
