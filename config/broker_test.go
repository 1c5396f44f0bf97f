package config_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/cbsd/cbsdmq"
	"github.com/cbsd/cbsdmq/config"
)

func TestExampleBroker(t *testing.T) {
	b, err := config.ParseBroker("broker.json", []byte(config.ExampleBroker()))
	if err != nil {
		t.Fatal(err)
	}
	short, err := config.ParseBroker("short.json", []byte(`{"name":"host1","listen":"192.0.2.1","users":[{"user":"cbsd","password":"CHANGE-ME-1"}],
		"cluster":{"routes":["192.0.2.1","192.0.2.2","192.0.2.3"],"password":"CHANGE-ME-2"}}`))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(b, short); diff != "" {
		t.Errorf("the defaults are not those of the example (-example +short):\n%s", diff)
	}
}

func TestBadBroker(t *testing.T) {
	const routes = `"routes":["192.0.2.1","192.0.2.2","192.0.2.3"],"password":"s3cret"`
	const users = `"users":[{"user":"cbsd","password":"s3cret"}]`
	const good = `"name":"a","listen":"192.0.2.1",` + users
	for name, c := range map[string]struct{ text, want, hint string }{
		"not JSON":           {`{"name" "a"}`, "b.json:1:9: not JSON", ""},
		"unknown key":        {`{` + good + `,"clister":{}}`, `unknown key "clister" (did you mean "cluster"?)`, ""},
		"unknown inner key":  {`{` + good + `,"cluster":{` + routes + `,"pasword":""}}`, `did you mean "cluster.password"?`, ""},
		"type":               {`{` + good + `,"cluster":{"routes":"192.0.2.1"}}`, "cluster.routes: wants", ""},
		"no name":            {`{"listen":"192.0.2.1",` + users + `,"cluster":{` + routes + `}}`, "name: missing", "the host's"},
		"name of the single": {`{"name":"cbsdmq","listen":"192.0.2.1",` + users + `,"cluster":{` + routes + `}}`, "name: that is the name", "host's name"},
		"no listen":          {`{"name":"a",` + users + `,"cluster":{` + routes + `}}`, "listen: missing", "192.0.2.1:4222"},
		"two servers":        {`{` + good + `,"cluster":{"routes":["192.0.2.1","192.0.2.2"],"password":"x"}}`, "cluster.routes: 2 servers", "name all three"},
		"no routes":          {`{` + good + `}`, "cluster.routes: 0 servers", "name all three"},
		"twice":              {`{` + good + `,"cluster":{"routes":["192.0.2.1","192.0.2.2","192.0.2.2"],"password":"x"}}`, "192.0.2.2:6222 comes twice", ""},
		"not in routes":      {`{"name":"a","listen":"192.0.2.9",` + users + `,"cluster":{` + routes + `}}`, "192.0.2.9:6222, where this server listens", "has them all"},
		"open to clients":    {`{"name":"a","listen":"192.0.2.1","cluster":{` + routes + `}}`, "users: missing: whoever reaches 192.0.2.1:4222", "give users"},
		"open to servers":    {`{` + good + `,"cluster":{"routes":["192.0.2.1","192.0.2.2","192.0.2.3"]}}`, "cluster.password: missing", "the same in the file"},
		"token and users":    {`{` + good + `,"token":"s3cret","cluster":{` + routes + `}}`, "users and token", ""},
		"cert without key":   {`{` + good + `,"tls":{"cert":"/c.pem"},"cluster":{` + routes + `}}`, "tls.key: cert and key go together", ""},
		"ca alone":           {`{` + good + `,"cluster":{"ca":"/ca.pem",` + routes + `}}`, "cluster.ca: without cert and key", ""},
		"dir":                {`{` + good + `,"dir":"nats","cluster":{` + routes + `}}`, "dir: not an absolute path", "begins with /"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := config.ParseBroker("b.json", []byte(c.text))
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "s3cret") {
				t.Errorf("%v: want an error that says %q", err, c.want)
			}
			if hint := cbsdmq.HintOf(err); !strings.Contains(hint, c.hint) {
				t.Errorf("hint %q, want %q in it", hint, c.hint)
			}
		})
	}
}

func TestLoadBroker(t *testing.T) {
	file := filepath.Join(t.TempDir(), "b.json")
	_, err := config.LoadBroker(file)
	if err == nil || !strings.Contains(cbsdmq.HintOf(err), "broker --example") {
		t.Errorf("no file: %v, hint %q", err, cbsdmq.HintOf(err))
	}
	if err := os.WriteFile(file, []byte(config.ExampleBroker()), 0o644); err != nil {
		t.Fatal(err)
	}
	_, err = config.LoadBroker(file)
	if err == nil || !strings.Contains(err.Error(), "0644") || !strings.Contains(cbsdmq.HintOf(err), "chmod 600") {
		t.Errorf("a file that everybody can read: %v, hint %q", err, cbsdmq.HintOf(err))
	}
	if err := os.Chmod(file, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := config.LoadBroker(file); err != nil {
		t.Error(err)
	}
}
