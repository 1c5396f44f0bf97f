package config

import (
	"strings"
	"testing"

	"github.com/cbsd/cbsdmq"
)

func TestPasswordFileKeys(t *testing.T) {
	for name, tt := range map[string]struct{ section, want string }{
		"good":          {`"nats": {"uri": "10.0.0.1", "user": "cbsd", "password_file": "/etc/pw"}`, ""},
		"both":          {`"nats": {"uri": "10.0.0.1", "user": "cbsd", "password": "x", "password_file": "/etc/pw"}`, "nats.password_file: password and password_file: only one of them"},
		"and token":     {`"nats": {"uri": "10.0.0.1", "token": "x", "password_file": "/etc/pw"}`, "nats.password_file: beside token or creds"},
		"user in uri":   {`"rabbitmq": {"uri": "amqp://cbsd@10.0.0.1", "password_file": "/etc/pw"}`, "rabbitmq.password_file: beside a user in the uri"},
		"relative":      {`"kafka": {"uri": "10.0.0.1", "user": "cbsd", "password_file": "pw"}`, "kafka.password_file: not an absolute path"},
		"embedded":      {`"nats": {"uri": "embedded", "password_file": "/etc/pw"}`, "nats.password_file: the embedded broker makes its own"},
		"beanstalkd":    {`"beanstalkd": {"uri": "10.0.0.1", "password_file": "/etc/pw"}`, "beanstalkd.password: beanstalkd knows no passwords"},
		"zeromq":        {`"zeromq": {"uri": "tcp://127.0.0.1", "password_file": "/etc/pw"}`, "zeromq.password_file: zeromq knows no passwords here"},
		"alone, signed": {`"senders": "/etc/senders", "require_signed": true, "beanstalkd": {"uri": "10.0.0.1"}`, ""},
		"nobody signs":  {`"require_signed": true, "beanstalkd": {"uri": "10.0.0.1"}`, "require_signed: true without senders"},
	} {
		t.Run(name, func(t *testing.T) {
			c, _, err := Parse("pool1.json", []byte(`{"cbsdenv": "/pool1", `+tt.section+`}`))
			if err != nil {
				t.Fatal(err)
			}
			err = c.ValidateAgent()
			switch {
			case tt.want == "":
				if err != nil {
					t.Error(err)
				}
			case err == nil || !strings.Contains(err.Error(), tt.want) || cbsdmq.CodeOf(err) != cbsdmq.CodeBadConfig:
				t.Errorf("%v, want %s", err, tt.want)
			}
		})
	}
}
