package config

import (
	"bytes"
	"strings"
	"testing"

	"github.com/cbsd/cbsdmq"
)

func FuzzParse(f *testing.F) {
	f.Add([]byte(original))
	f.Add([]byte(Example()))
	f.Add([]byte(`{"Nats":{"uri":"a,b","x":1},"workers":null,"allow":[],"# ":1,"broker":["nats"]}`))
	f.Add([]byte(`{"nats":{"password":"hunter2secret","uri":5},"workers":"hunter2secret","cbsdenv":["hunter2secret"]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		c, warnings, err := Parse("pool1.json", text)
		if again, w, err2 := Parse("pool1.json", text); (err2 == nil) != (err == nil) || len(w) != len(warnings) || err == nil && c.Pool != again.Pool {
			t.Fatalf("read twice, it differs: %v, %v", err, err2)
		}
		if err != nil {
			if !strings.HasPrefix(err.Error(), "pool1.json") {
				t.Fatalf("without the file's name: %v", err)
			}
			if bytes.Contains(text, []byte(`"hunter2secret"`)) && !bytes.Contains(text, []byte(`hunter2secret"`+":")) && strings.Contains(err.Error(), "hunter2secret") {
				t.Fatalf("a value is shown: %v", err)
			}
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
