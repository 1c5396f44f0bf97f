package activemq

import (
	"strings"
	"testing"

	"github.com/cbsd/cbsdmq"
	"github.com/cbsd/cbsdmq/bus"
)

func TestAddresses(t *testing.T) {
	for uri, want := range map[string]string{
		"127.0.0.1":                         "127.0.0.1:5672",
		"mq.example.org:5673":               "mq.example.org:5673",
		"amqp://mq.example.org/":            "mq.example.org:5672",
		"amqps://mq.example.org":            "mq.example.org:5671",
		"amqp://alice:s3cret@a, amqp://b:1": "a:5672,b:1",
		"[2001:db8::3]":                     "[2001:db8::3]:5672",
	} {
		d, err := New(bus.Config{URI: uri})
		if err != nil {
			t.Errorf("%s: %v", uri, err)
		} else if got := d.Addr(); got != want {
			t.Errorf("%s: %s, want %s", uri, got, want)
		}
	}
}

func TestBadConfig(t *testing.T) {
	for name, c := range map[string]struct {
		cfg   bus.Config
		field string
	}{
		"empty":         {bus.Config{}, "uri"},
		"embedded":      {bus.Config{URI: "embedded"}, "uri"},
		"scheme":        {bus.Config{URI: "stomp://a"}, "uri"},
		"OpenWire":      {bus.Config{URI: "a:61616"}, "uri"},
		"no host":       {bus.Config{URI: "amqp://:5672"}, "uri"},
		"port":          {bus.Config{URI: "a:70000"}, "uri"},
		"port 0":        {bus.Config{URI: "a:0"}, "uri"},
		"bare IPv6":     {bus.Config{URI: "2001:db8::3"}, "uri"},
		"path":          {bus.Config{URI: "amqp://a/vhost"}, "uri"},
		"query":         {bus.Config{URI: "amqp://a?transport.tcpNoDelay=true"}, "uri"},
		"space":         {bus.Config{URI: "amqp://a b"}, "uri"},
		"second is bad": {bus.Config{URI: "a,http://b"}, "uri"},
		"token":         {bus.Config{URI: "a", Token: "x"}, "token"},
		"creds":         {bus.Config{URI: "a", Creds: "/x"}, "creds"},
	} {
		_, err := New(c.cfg)
		e, ok := err.(*cbsdmq.Error)
		if !ok || e.Code != cbsdmq.CodeBadConfig || e.Field != "activemq."+c.field || e.Hint == "" {
			t.Errorf("%s: %#v, want a hint about activemq.%s", name, err, c.field)
		}
	}
	if _, err := New(bus.Config{URI: "amqp://alice:s3cret@a b"}); err == nil || strings.Contains(err.Error(), "s3cret") {
		t.Errorf("%v: a secret is told, or there is no error", err)
	}
}

func TestNames(t *testing.T) {
	for name, want := range map[string]bool{
		"cbsd_pool1": true, "a.b:c-d": true, "a::b": false, "ActiveMQ.DLQ": false, "activemq.management": false, "": false, "a>": false, "a,b": false,
	} {
		if got := valid(name); got != want {
			t.Errorf("valid(%q) = %v, want %v", name, got, want)
		}
	}
}
