package beanstalk

import (
	"strings"
	"testing"
	"time"

	"github.com/cbsd/cbsdmq"
	"github.com/cbsd/cbsdmq/bus"
)

func TestAddr(t *testing.T) {
	for _, c := range []struct{ uri, want string }{
		{"127.0.0.1:11300", "127.0.0.1:11300"},
		{"127.0.0.1", "127.0.0.1:11300"},
		{"localhost", "localhost:11300"},
		{"bus_1.my.domain:1130", "bus_1.my.domain:1130"},
		{"[2001:db8::3]:11300", "[2001:db8::3]:11300"},
		{"[2001:db8::3]", "[2001:db8::3]:11300"},
		{"2001:db8::3", "[2001:db8::3]:11300"},
		{"[fe80::1%em0]:7", "[fe80::1%em0]:7"},
		{"::1", "[::1]:11300"},
	} {
		d, err := New(bus.Config{URI: c.uri})
		if err != nil {
			t.Errorf("%q: %v", c.uri, err)
		} else if d.Addr() != c.want {
			t.Errorf("%q: %q, want %q", c.uri, d.Addr(), c.want)
		}
	}
}

func TestBadConfig(t *testing.T) {
	const uri = "127.0.0.1:11300"
	for _, c := range []struct {
		cfg         bus.Config
		field, said string
	}{
		{bus.Config{}, "uri", "empty"},
		{bus.Config{URI: "embedded"}, "uri", "embedded"},
		{bus.Config{URI: "nats://127.0.0.1:4222"}, "uri", "a URL"},
		{bus.Config{URI: "127.0.0.1:"}, "uri", "port"},
		{bus.Config{URI: "127.0.0.1:0"}, "uri", "port"},
		{bus.Config{URI: "127.0.0.1:65536"}, "uri", "port"},
		{bus.Config{URI: "127.0.0.1:http"}, "uri", "port"},
		{bus.Config{URI: ":11300"}, "uri", "name of a host"},
		{bus.Config{URI: "a b:11300"}, "uri", "name of a host"},
		{bus.Config{URI: "a:b:11300"}, "uri", "not an address"},
		{bus.Config{URI: "[::1:11300"}, "uri", "not an address"},
		{bus.Config{URI: uri, Password: "x"}, "password", "neither"},
		{bus.Config{URI: uri, TLS: true}, "tls", "neither"},
		{bus.Config{URI: uri, CA: "ca.pem"}, "ca", "neither"},
		{bus.Config{URI: uri, Tube: "a:b"}, "tube", `"a:b"`},
		{bus.Config{URI: uri, Tube: "-a"}, "tube", `"-a"`},
		{bus.Config{URI: uri, Tube: strings.Repeat("x", 197)}, "tube", "cannot be"},
		{bus.Config{URI: uri, ReplyTubePrefix: "a b"}, "reply_tube_prefix", `"a b"`},
		{bus.Config{URI: uri, ReplyTubePrefix: strings.Repeat("x", 174)}, "reply_tube_prefix", "cannot be"},
		{bus.Config{URI: uri, PublishTimeout: -1}, "publish_timeout", "-1"},
		{bus.Config{URI: uri, ReserveTimeout: 1e9}, "reserve_timeout", "1e+09"},
	} {
		_, err := New(c.cfg)
		if err == nil {
			t.Errorf("%+v: no error", c.cfg)
			continue
		}
		want := "beanstalkd." + c.field + ": "
		if cbsdmq.CodeOf(err) != cbsdmq.CodeBadConfig || !strings.HasPrefix(err.Error(), want) || !strings.Contains(err.Error(), c.said) {
			t.Errorf("%+v: %v (code %s), want %s...%s", c.cfg, err, cbsdmq.CodeOf(err), want, c.said)
		}
	}
}

func TestDefaults(t *testing.T) {
	d, err := New(bus.Config{URI: "h", Tube: "cbsd_pool1", ReplyTubePrefix: "cbsd_pool1_result_id", PublishTimeout: 0.5})
	if err != nil {
		t.Fatal(err)
	}
	if d.reserve != 5*time.Second || d.answer != 500*time.Millisecond || d.ttr != time.Second {
		t.Errorf("reserve %v, answer %v, time to run %v; want 5s, 500ms, 1s", d.reserve, d.answer, d.ttr)
	}
}
