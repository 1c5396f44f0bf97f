package kafka

import (
	"errors"
	"strings"
	"testing"

	"github.com/cbsd/cbsdmq"
	"github.com/cbsd/cbsdmq/bus"
)

func TestConfigErrors(t *testing.T) {
	const good = "127.0.0.1:9092"
	for name, c := range map[string]struct {
		cfg        bus.Config
		field, say string
	}{
		"no uri":       {bus.Config{}, "kafka.uri", "missing"},
		"a hole":       {bus.Config{URI: good + ",,"}, "kafka.uri", "missing"},
		"a URL":        {bus.Config{URI: "http://" + good}, "kafka.uri", "only kafka://"},
		"port":         {bus.Config{URI: "127.0.0.1:x"}, "kafka.uri", "host:port"},
		"embedded":     {bus.Config{URI: "embedded"}, "kafka.uri", "embedded"},
		"replicas":     {bus.Config{URI: good, Replicas: -1}, "kafka.replicas", "-1"},
		"tube":         {bus.Config{URI: good, Tube: "a:b"}, "kafka.tube", `"a:b"`},
		"taken":        {bus.Config{URI: good, Tube: ReplyTopic}, "kafka.tube", ReplyTopic},
		"token":        {bus.Config{URI: good, Token: "x"}, "kafka.token", "no such login"},
		"creds":        {bus.Config{URI: good, Creds: "x"}, "kafka.creds", "no such login"},
		"password":     {bus.Config{URI: good, User: "x"}, "kafka.password", "missing"},
		"user":         {bus.Config{URI: good, Password: "x"}, "kafka.user", "missing"},
		"sasl":         {bus.Config{URI: good, User: "x", Password: "y", SASL: "scram"}, "kafka.sasl", `"scram"`},
		"sasl, nobody": {bus.Config{URI: good, SASL: "plain"}, "kafka.user", "missing"},
	} {
		_, err := New(c.cfg)
		e, ok := errors.AsType[*cbsdmq.Error](err)
		switch {
		case !ok:
			t.Errorf("%s: %v", name, err)
		case cbsdmq.CodeOf(err) != cbsdmq.CodeBadConfig || e.Field != c.field || !strings.Contains(err.Error(), c.say):
			t.Errorf("%s: code %s, field %q: %v; want field %s and %s", name, cbsdmq.CodeOf(err), e.Field, err, c.field, c.say)
		case e.Hint == "":
			t.Errorf("%s: no hint with %v", name, err)
		}
	}
}

// A password in clear is for those who asked for it.
func TestPlainOnlyWhereSafe(t *testing.T) {
	for _, c := range []struct {
		cfg  bus.Config
		want string
	}{
		{bus.Config{}, "SCRAM-SHA-512 SCRAM-SHA-256"},
		{bus.Config{TLS: true}, "SCRAM-SHA-512 SCRAM-SHA-256 PLAIN"},
		{bus.Config{SASL: "plain"}, "PLAIN"},
		{bus.Config{SASL: "scram-sha-256"}, "SCRAM-SHA-256"},
	} {
		c.cfg.URI, c.cfg.User, c.cfg.Password = "127.0.0.1", "x", "y"
		d := driver(t, c.cfg).(*Driver)
		ms, err := d.mechanisms(d.servers[0])
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, m := range ms {
			names = append(names, m.Name())
		}
		if got := strings.Join(names, " "); got != c.want {
			t.Errorf("sasl %q, tls %v: %s, want %s", c.cfg.SASL, c.cfg.TLS, got, c.want)
		}
	}
}

// As docs/WIRE.md says it.
func TestPartitionOf(t *testing.T) {
	if got := partitionOf("cbsd_pool1_result_id6755399441055744"); got != 5 {
		t.Errorf("partition %d, want 5", got)
	}
}
