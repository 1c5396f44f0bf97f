package config

import (
	"testing"

	"github.com/cbsd/cbsdmq"
)

func FuzzParse(f *testing.F) {
	f.Add([]byte(original))
	f.Add([]byte(Example()))
	f.Add([]byte(`{"Nats":{"uri":"a,b","x":1},"workers":null,"allow":[],"# ":1,"broker":["nats"]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		c, _, err := Parse("pool1.json", text)
		if err != nil {
			if cbsdmq.CodeOf(err) != cbsdmq.CodeBadConfig {
				t.Fatalf("an error without the code of a bad configuration: %v", err)
			}
			return
		}
		c.ApplyFlags("/pool1", "nats")
		if err := c.ValidateAgent(); err != nil {
			if cbsdmq.CodeOf(err) != cbsdmq.CodeBadConfig {
				t.Fatalf("an error without the code of a bad configuration: %v", err)
			}
			return
		}
		if len(c.Buses()) != len(c.Broker) || c.Pool == "" || c.Journal == "" {
			t.Fatalf("valid, but not whole: %+v", c)
		}
	})
}
