package config

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/cbsd/cbsdmq"
	"github.com/cbsd/cbsdmq/bus"
)

// original is a file of the original programs.
const original = `{
  "cbsdenv": "/pool1",
  "cbsdcolor": false,
  "broker": "beanstalkd",
  "logfile": "/dev/stdout",
  "beanstalkd": {
    "uri": "127.0.0.1:11300",
    "tube": "cbsd_pool1",
    "reply_tube_prefix": "cbsd_pool1_result_id",
    "reconnect_timeout": 5, "reserve_timeout": 5, "publish_timeout": 5,
    "logdir": "/var/log/cbsdmq"
  }
}
`

func parse(t *testing.T, text string) (*Config, []Warning) {
	t.Helper()
	c, warnings, err := Parse("pool1.json", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return c, warnings
}

func TestOriginalFile(t *testing.T) {
	c, warnings := parse(t, original)
	if len(warnings) > 0 {
		t.Errorf("warnings: %v", warnings)
	}
	if err := c.ValidateAgent(); err != nil {
		t.Error(err)
	}
	want := Default()
	want.CBSDEnv, want.Pool, want.Broker, want.File = "/pool1", "pool1", Names{"beanstalkd"}, "pool1.json"
	want.Journal = "/pool1/var/db/cbsdmq/journal.sqlite"
	want.RunDir = "/var/db/cbsdmq/run"
	want.Sections["beanstalkd"] = bus.Config{
		URI: "127.0.0.1:11300", Tube: "cbsd_pool1", ReplyTubePrefix: "cbsd_pool1_result_id",
		ReconnectTimeout: 5, ReserveTimeout: 5, PublishTimeout: 5, LogDir: "/var/log/cbsdmq",
	}
	if diff := cmp.Diff(want, c, cmpopts.IgnoreUnexported(Config{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	bs := c.Buses()
	if len(bs) != 1 || bs[0].Kind != "beanstalkd" || bs[0].URI != "127.0.0.1:11300" {
		t.Errorf("buses: %+v", bs)
	}
}

func TestPromisedDefaults(t *testing.T) {
	c := Default()
	for name, pair := range map[string][2]any{
		"retention":      {time.Duration(c.Retention), 7 * 24 * time.Hour},
		"id_memory":      {time.Duration(c.IDMemory), 30 * 24 * time.Hour},
		"reply_ttl":      {time.Duration(c.ReplyTTL), 24 * time.Hour},
		"legacy_expires": {time.Duration(c.LegacyExpires), time.Duration(0)},
		"output_max":     {int64(c.OutputMax), int64(256 << 20)},
		"backlog":        {c.Backlog, 1000},
		"readers":        {c.Readers, 4},
		"cbsd":           {c.CBSD, "/usr/local/bin/cbsd"},
		"wildcard":       {c.AllowWildcard, false},
	} {
		if pair[0] != pair[1] {
			t.Errorf("%s is %v, want %v", name, pair[0], pair[1])
		}
	}
}

func TestExampleNamesEveryKey(t *testing.T) {
	c, warnings, err := Parse("example.json", []byte(Example()))
	if err != nil {
		t.Fatal(err)
	}
	if len(warnings) > 0 {
		t.Errorf("warnings: %v", warnings)
	}
	if err := c.ValidateAgent(); err != nil {
		t.Error(err)
	}
	for _, key := range keysOf(c) {
		if _, ok := c.given[key]; !ok {
			t.Errorf("the example lacks %q", key)
		}
	}
	for _, key := range keysOf(new(bus.Config)) {
		if !slices.ContainsFunc(Kinds(), func(kind string) bool { _, ok := c.given[kind+"."+key]; return ok }) {
			t.Errorf("the example lacks %q in all sections", key)
		}
	}
	// The other way round: an unknown key would have been a warning. And each
	// is described.
	var keys map[string]json.RawMessage
	if err := json.Unmarshal([]byte(Example()), &keys); err != nil {
		t.Fatal(err)
	}
	described(t, keys, nil)
	for _, kind := range Kinds() {
		var section, first map[string]json.RawMessage
		if err := json.Unmarshal(keys[kind], &section); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(keys["beanstalkd"], &first); err != nil {
			t.Fatal(err)
		}
		described(t, section, first)
	}
}

func described(t *testing.T, keys, elsewhere map[string]json.RawMessage) {
	t.Helper()
	for key := range keys {
		if strings.HasPrefix(key, "#") || builtIn(key) {
			continue
		}
		_, here := keys["# "+key]
		_, there := elsewhere["# "+key]
		if !here && !there {
			t.Errorf("the example does not describe %q", key)
		}
	}
}

// What the example shows as a value is the default, so that its reader can
// leave the key out.
func TestExampleShowsDefaults(t *testing.T) {
	c, _ := parse(t, Example())
	short, _ := parse(t, `{"cbsdenv":"/pool1","beanstalkd":{"uri":"127.0.0.1:11300","logdir":"/var/log/cbsdmq"},"nats":{"uri":"embedded"},"rabbitmq":{"uri":"127.0.0.1:5672"},"kafka":{"uri":"127.0.0.1:9092"},"activemq":{"uri":"127.0.0.1:5672"},"zeromq":{"uri":"tcp://127.0.0.1:5555"},"allow":"all","workers":4,"broker":"beanstalkd"}`)
	if diff := cmp.Diff(short, c, cmpopts.IgnoreUnexported(Config{})); diff != "" {
		t.Errorf("(-default +example):\n%s", diff)
	}
}

func TestWarnings(t *testing.T) {
	tests := map[string]struct {
		text string
		want []string
	}{
		"misspelt":     {"{\n  \"workres\": 3\n}", []string{`pool1.json:2:3: unknown key "workres" (did you mean "workers"?)`}},
		"in a section": {`{"beanstalkd": {"urI": "x", "reply_tubeprefix": "y"}}`, []string{`pool1.json:1:29: unknown key "beanstalkd.reply_tubeprefix" (did you mean "beanstalkd.reply_tube_prefix"?)`}},
		"far":          {`{"frobnicate": 1}`, []string{`pool1.json:1:2: unknown key "frobnicate"`}},
		"part":         {`{"output": 1}`, []string{`pool1.json:1:2: unknown key "output" (did you mean "output_max"?)`}},
		"a broker":     {`{"beanstalk": {}}`, []string{`pool1.json:1:2: unknown key "beanstalk" (did you mean "beanstalkd"?)`}},
		"unknown kind": {`{"qpid": {"uri": "x"}}`, []string{`pool1.json:1:2: unknown key "qpid"`}},
		"twice":        {`{"workers": 1, "workers": 2}`, []string{`pool1.json:1:16: the key "workers" comes twice: the last one counts`}},
		"by case":      {"{\"workers\": 1,\n\n\"Workers\": 2}", []string{`pool1.json:3:1: the keys "workers" and "Workers" are the same: the last one counts`}},
		"comments":     {`{"#": 1, "# x": 2, "#": 3, "//": 4, "// y": [5], "//": 6}`, nil},
		"any case":     {`{"CBSDENV": "/pool1", "Beanstalkd": {"URI": "h"}}`, nil},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			_, warnings := parse(t, tt.text)
			var got []string
			for _, w := range warnings {
				got = append(got, w.String())
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
	if c, _ := parse(t, `{"workers": 1, "Workers": 2}`); c.Workers != 2 {
		t.Errorf("workers is %d: the last one counts", c.Workers)
	}
	if c, _ := parse(t, `{"CBSDENV": "/pool7", "Beanstalkd": {"URI": "h"}}`); c.Pool != "pool7" || c.Sections["beanstalkd"].URI != "h" {
		t.Errorf("keys match by case: %+v", c)
	}
}

func TestErrors(t *testing.T) {
	tests := map[string]struct{ text, want string }{
		"empty":           {"", "pool1.json:1:1: not JSON: unexpected end of JSON input"},
		"half":            {"{\n \"cbsdenv\": \"/po", "pool1.json:2:17: not JSON: unexpected end of JSON input"},
		"comma":           {"{\n \"workers\": 3,\n}", "pool1.json:3:1: not JSON: invalid character '}' looking for beginning of object key string"},
		"no comma":        {"{\n \"workers\": 3\n \"readers\": 4}", "pool1.json:3:2: not JSON: invalid character '\"' after object key:value pair"},
		"trailing":        {"{}\nx", "pool1.json:2:1: not JSON: invalid character 'x' after top-level value"},
		"yaml":            {"cbsdenv: /pool1\n", "pool1.json:1:1: not JSON: invalid character 'c' looking for beginning of value"},
		"list":            {"[]", "pool1.json:1:1: not a JSON object"},
		"null":            {"null", "pool1.json:1:1: not a JSON object"},
		"type":            {"{\n \"workers\": \"three\"}", "pool1.json:2:13: workers: wants a whole number, not a text in quotes"},
		"fraction":        {`{"workers": 3.5}`, "pool1.json:1:13: workers: wants a whole number, not 3.5"},
		"bool":            {`{"cbsdcolor": "false"}`, "pool1.json:1:15: cbsdcolor: wants true or false, not a text in quotes"},
		"text":            {`{"cbsdenv": 4}`, "pool1.json:1:13: cbsdenv: wants a text in quotes, not a number"},
		"in a section":    {`{"beanstalkd": {"uri": 4}}`, "pool1.json:1:24: beanstalkd.uri: wants a text in quotes, not a number"},
		"section":         {`{"beanstalkd": "127.0.0.1"}`, "pool1.json:1:16: beanstalkd: wants an object, not a text in quotes"},
		"seconds":         {`{"nats": {"reserve_timeout": "5s"}}`, "pool1.json:1:30: nats.reserve_timeout: wants a number, not a text in quotes"},
		"duration":        {`{"retention": "a week"}`, `pool1.json:1:15: retention: wants a time such as "90s", "24h" or "30d", or a number of seconds`},
		"size":            {`{"output_max": "much"}`, `pool1.json:1:16: output_max: wants a size such as "64k", "256m" or "1g", or a number of bytes`},
		"allow":           {`{"allow": "jls"}`, `pool1.json:1:11: allow: wants a list of commands, or "all"`},
		"broker":          {`{"broker": 4}`, "pool1.json:1:12: broker: wants a name or a list of names"},
		"several at once": {"{\"workers\": \"x\",\n\"readers\": \"y\"}", "pool1.json:1:13: workers: wants a whole number, not a text in quotes\npool1.json:2:12: readers: wants a whole number, not a text in quotes"},
		"password":        {`{"nats": {"password": 12345678}}`, "pool1.json:1:23: nats.password: wants a text in quotes, not a number"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			_, _, err := Parse("pool1.json", []byte(tt.text))
			if err == nil || err.Error() != tt.want {
				t.Errorf("error\n%v, want\n%s", err, tt.want)
			}
			if cbsdmq.CodeOf(err) != cbsdmq.CodeBadConfig {
				t.Errorf("code %s", cbsdmq.CodeOf(err))
			}
		})
	}
	if _, _, err := Parse("x", make([]byte, fileMax+1)); err == nil {
		t.Error("a file of more than 1 MiB was taken")
	}
	if _, _, err := Load(filepath.Join(t.TempDir(), "none.json")); cbsdmq.CodeOf(err) != cbsdmq.CodeBadConfig || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a missing file: %v", err)
	}
	if _, _, err := Load(t.TempDir()); cbsdmq.CodeOf(err) != cbsdmq.CodeBadConfig {
		t.Errorf("a directory: %v", err)
	}
	if _, _, err := Parse("bom", []byte("\xef\xbb\xbf"+original)); err != nil {
		t.Errorf("with a byte order mark: %v", err)
	}
}

func TestSyntaxHint(t *testing.T) {
	for text, want := range map[string]string{
		"{\n// the pool\n\"cbsdenv\": \"/pool1\"}": "JSON has no comments",
		"# the pool\n{}": "JSON has no comments",
		"{\"cbsdenv\": \"/pool1\" /* the pool */}": "JSON has no comments",
		"\xff\xfe{\x00}\x00":                       "not in UTF-8",
		`{"cbsdenv": "/pool1",}`:                   "a comma too many",
		"{\"a\": 1, ":                              "a comma too many",
	} {
		_, _, err := Parse("pool1.json", []byte(text))
		if hint := cbsdmq.HintOf(err); !strings.Contains(hint, want) {
			t.Errorf("%q: hint %q", text, hint)
		}
	}
}

func TestValidate(t *testing.T) {
	base := `"cbsdenv":"/pool1","beanstalkd":{"uri":"127.0.0.1","tube":"t"}`
	tests := map[string]struct{ text, field, want string }{
		"pool":          {`{"pool":"Pool 1",` + base + `}`, "pool", "pool1.json:1:2: pool: not a pool's name"},
		"no cbsdenv":    {`{"beanstalkd":{"uri":"x","tube":"t"}}`, "cbsdenv", "pool1.json: cbsdenv: missing"},
		"cbsdenv":       {`{"cbsdenv":"pool1","beanstalkd":{"uri":"x","tube":"t"}}`, "cbsdenv", "not an absolute path"},
		"root":          {`{"cbsdenv":"/","beanstalkd":{"uri":"x","tube":"t"}}`, "pool", "no name can be made of cbsdenv"},
		"cbsd":          {`{"cbsd":"cbsd",` + base + `}`, "cbsd", "not an absolute path"},
		"workers":       {`{"workers":-1,` + base + `}`, "workers", "-1 is not from 1 to 10000"},
		"backlog":       {`{"backlog":0,` + base + `}`, "backlog", "0 is not from 1"},
		"allow":         {`{"allow":["jls","rm -rf"],` + base + `}`, "allow", `"rm -rf" is not a command's name`},
		"output":        {`{"output_max":"64k",` + base + `}`, "output_max", "64k is too little"},
		"time limit":    {`{"time_limit":"-1s",` + base + `}`, "time_limit", "-1s is less than"},
		"journal mode":  {`{"journal_mode":"off",` + base + `}`, "journal_mode", "neither wal nor delete"},
		"id memory":     {`{"retention":"9d","id_memory":"8d",` + base + `}`, "id_memory", "8d is shorter than the retention of results (9d)"},
		"no section":    {`{"broker":"nats",` + base + `}`, "broker", `there is no section "nats"`},
		"no sections":   {`{"cbsdenv":"/pool1"}`, "broker", `there is no section "beanstalkd"`},
		"kind":          {`{"broker":"qpid",` + base + `,"qpid":{}}`, "broker", `"qpid" is not a broker that this program knows`},
		"twice":         {`{"broker":["beanstalkd","beanstalkd"],` + base + `}`, "broker", `"beanstalkd" comes twice`},
		"uri":           {`{"cbsdenv":"/pool1","beanstalkd":{"tube":"t"}}`, "beanstalkd.uri", "beanstalkd.uri: missing"},
		"uri space":     {`{"cbsdenv":"/pool1","beanstalkd":{"uri":"a b"}}`, "beanstalkd.uri", "holds a space"},
		"tube":          {`{"cbsdenv":"/pool1","beanstalkd":{"uri":"x","tube":"a b"}}`, "beanstalkd.tube", "not a tube's name"},
		"long tube":     {`{"cbsdenv":"/pool1","beanstalkd":{"uri":"x","reply_tube_prefix":"p","tube":"` + strings.Repeat("t", 197) + `"}}`, "beanstalkd.tube", "not a tube's name"},
		"prefix":        {`{"cbsdenv":"/pool1","beanstalkd":{"uri":"x","reply_tube_prefix":"-p"}}`, "beanstalkd.reply_tube_prefix", "not the beginning"},
		"timeout":       {`{"cbsdenv":"/pool1","beanstalkd":{"uri":"x","publish_timeout":-5}}`, "beanstalkd.publish_timeout", "not a number of seconds"},
		"tls":           {`{"cbsdenv":"/pool1","beanstalkd":{"uri":"x","tls":true}}`, "beanstalkd.tls", "beanstalkd knows no TLS"},
		"password":      {`{"cbsdenv":"/pool1","beanstalkd":{"uri":"x","password":"s3cret"}}`, "beanstalkd.password", "beanstalkd knows no passwords"},
		"embedded":      {`{"cbsdenv":"/pool1","beanstalkd":{"uri":"embedded"}}`, "beanstalkd.uri", "not built in as a server"},
		"cert":          {`{"cbsdenv":"/pool1","nats":{"uri":"x","cert":"/c.pem"}}`, "nats.key", "cert and key go together"},
		"listen":        {`{"cbsdenv":"/pool1","nats":{"uri":"x","embedded_listen":"h:1"}}`, "nats.embedded_listen", `without "uri": "embedded"`},
		"two, one tube": {`{"cbsdenv":"/pool1","broker":["beanstalkd","beanstalkd-old"],"beanstalkd":{"uri":"x"},"beanstalkd-old":{"uri":"x"}}`, "beanstalkd-old.tube", "section beanstalkd has the same uri and tube"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			c, _ := parse(t, tt.text)
			err := c.ValidateAgent()
			e, ok := errors.AsType[*cbsdmq.Error](err)
			if !ok || e.Code != cbsdmq.CodeBadConfig || e.Field != tt.field || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("got %v (%+v), want %q about %s", err, e, tt.want, tt.field)
			}
			if strings.Contains(err.Error()+e.Hint, "s3cret") {
				t.Error("the password is in the error")
			}
		})
	}
	c, _ := parse(t, `{"workers":-1,"readers":-1}`)
	err, ok := c.ValidateAgent().(interface{ Unwrap() []error })
	if !ok {
		t.Fatal("more than one error is not joined")
	}
	if got := err.Unwrap(); len(got) != 2 {
		t.Errorf("%d errors: %v", len(got), got)
	}
}

func TestValidateForClients(t *testing.T) {
	c, _ := parse(t, `{"broker":"beanstalkd","beanstalkd":{"uri":"127.0.0.1:11300","tube":"cbsd_pool1","reply_tube_prefix":"r"}}`)
	if err := c.Validate(); err != nil {
		t.Errorf("a client needs no cbsdenv: %v", err)
	}
	if err := c.ValidateAgent(); err == nil {
		t.Error("an agent does")
	}
}

func TestApplyFlags(t *testing.T) {
	both := `"beanstalkd":{"uri":"b"},"nats":{"uri":"n"}`
	tests := map[string]struct{ text, env, broker, wantEnv, wantBroker, wantPool string }{
		"the file wins":     {`{"cbsdenv":"/pool1","broker":"nats",` + both + `}`, "/usr/jails", "beanstalkd", "/pool1", "nats", "pool1"},
		"flags fill":        {`{` + both + `}`, "/usr/jails", "nats", "/usr/jails", "nats", "jails"},
		"empty in the file": {`{"cbsdenv":"","broker":"",` + both + `}`, "/usr/jails", "nats", "/usr/jails", "nats", "jails"},
		"neither":           {`{` + both + `}`, "", "", "", "beanstalkd", ""},
		"the only section":  {`{"nats":{"uri":"n"}}`, "", "", "", "nats", ""},
		"flag over default": {`{"nats":{"uri":"n"}}`, "", "beanstalkd", "", "beanstalkd", ""},
		"a name of its own": {`{"pool":"web",` + both + `}`, "/usr/jails", "", "/usr/jails", "beanstalkd", "web"},
		"odd base name":     {`{"cbsdenv":"/zroot/My.Jails/",` + both + `}`, "", "", "/zroot/My.Jails/", "beanstalkd", "my_jails"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			c, _ := parse(t, tt.text)
			c.ApplyFlags(tt.env, tt.broker)
			if c.CBSDEnv != tt.wantEnv || len(c.Broker) != 1 || c.Broker[0] != tt.wantBroker || c.Pool != tt.wantPool {
				t.Errorf("cbsdenv %q, broker %q, pool %q", c.CBSDEnv, c.Broker, c.Pool)
			}
			if tt.wantPool == "jails" && (c.Sections["nats"].Tube != "cbsd_jails" || c.Journal != "/usr/jails/var/db/cbsdmq/journal.sqlite") {
				t.Errorf("tube %q, journal %q", c.Sections["nats"].Tube, c.Journal)
			}
		})
	}
}

func TestSeveralBrokers(t *testing.T) {
	c, warnings := parse(t, `{"cbsdenv":"/pool1","broker":["nats","beanstalkd-old"],"nats":{"uri":"n"},"beanstalkd-old":{"uri":"b"},"beanstalkd":{}}`)
	if len(warnings) > 0 || c.ValidateAgent() != nil {
		t.Errorf("warnings %v, error %v", warnings, c.ValidateAgent())
	}
	var got []string
	for _, s := range c.Buses() {
		got = append(got, s.Name+" "+s.Kind+" "+s.URI+" "+s.Tube)
	}
	if diff := cmp.Diff([]string{"nats nats n cbsd_pool1", "beanstalkd-old beanstalkd b cbsd_pool1"}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestIDMemoryGrowsWithRetention(t *testing.T) {
	if c, _ := parse(t, `{"retention":"90d"}`); c.IDMemory != c.Retention {
		t.Errorf("id_memory is %s", c.IDMemory)
	}
}

func TestSecretsInAReadableFile(t *testing.T) {
	for name, tt := range map[string]struct {
		text string
		mode os.FileMode
		want bool
	}{
		"password": {`{"nats":{"password":"s3cret"}}`, 0o644, true},
		"token":    {`{"nats":{"token":"s3cret"}}`, 0o604, true},
		"in a URL": {`{"nats":{"uri":"nats://a:4222, nats://me:s3cret@b:4222"}}`, 0o644, true},
		"closed":   {`{"nats":{"password":"s3cret"}}`, 0o640, false},
		"none":     {`{"nats":{"uri":"nats://a:4222"}}`, 0o644, false},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "pool1.json")
			if err := os.WriteFile(file, []byte(tt.text), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(file, tt.mode); err != nil {
				t.Fatal(err)
			}
			_, warnings, err := Load(file)
			if err != nil {
				t.Fatal(err)
			}
			if got := len(warnings) == 1; got != tt.want {
				t.Fatalf("warnings: %v", warnings)
			}
			if tt.want && (strings.Contains(warnings[0].String(), "s3cret") || !strings.Contains(warnings[0].String(), "chmod 600 "+file)) {
				t.Errorf("warning: %s", warnings[0])
			}
		})
	}
}

// The test of TestExampleNamesEveryKey would pass on a struct without tags.
func TestEveryFieldHasAKey(t *testing.T) {
	for _, typ := range []reflect.Type{reflect.TypeFor[Config](), reflect.TypeFor[bus.Config]()} {
		for f := range typ.Fields() {
			if f.IsExported() && f.Tag.Get("json") == "" {
				t.Errorf("%s.%s has no key", typ, f.Name)
			}
		}
	}
}

// What lies at the path may be anything.
func TestLoadOddFiles(t *testing.T) {
	dir := t.TempDir()
	pipe, open := filepath.Join(dir, "pipe.json"), filepath.Join(dir, "open.json")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(open, []byte(`{"cbsdenv":"/pool1","nats":{"password":"x"}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(open, 0o606); err != nil {
		t.Fatal(err)
	}
	for path, says := range map[string]string{
		pipe:                             "not JSON", // and does not wait for a writer
		dir:                              "is a directory",
		"/dev/zero":                      "longer than",
		filepath.Join(dir, "none.json"):  "no such file",
		filepath.Join(open, "none.json"): "not a directory",
	} {
		_, _, err := Load(path)
		if err == nil || !strings.Contains(err.Error(), says) || cbsdmq.CodeOf(err) != cbsdmq.CodeBadConfig {
			t.Errorf("%s: got %v", path, err)
		}
		if says != "not a directory" && cbsdmq.HintOf(err) == "" {
			t.Errorf("%s: no way out of %v", path, err)
		}
	}
	_, warnings, err := Load(open)
	if err != nil || len(warnings) != 2 || !strings.Contains(warnings[1].Text, "everybody can write") || !strings.Contains(warnings[0].Text, "everybody can read") {
		t.Errorf("got %v, %v", warnings, err)
	}
}
