package zeromq

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cbsd/cbsdmq"
	"github.com/cbsd/cbsdmq/bus"
)

const someKey = "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7"

func TestAddresses(t *testing.T) {
	for uri, want := range map[string]string{
		"127.0.0.1":            "tcp://127.0.0.1:5555",
		"127.0.0.1:5556":       "tcp://127.0.0.1:5556",
		"tcp://localhost:5556": "tcp://localhost:5556",
		"tcp://127.0.0.1/":     "tcp://127.0.0.1:5555",
		"[::1]:5556":           "tcp://[::1]:5556",
	} {
		if got := driver(t, bus.Config{URI: uri}).Addr(); got != want {
			t.Errorf("%s: address %s, want %s", uri, got, want)
		}
	}
	for uri, want := range map[string]string{
		"tcp://*:5555":          "tcp://*:5555",
		"0.0.0.0":               "tcp://*:5555",
		"[::]":                  "tcp://*:5555",
		"tcp://mq.example.org":  "tcp://mq.example.org:5555",
		"tcp://192.0.2.1:65535": "tcp://192.0.2.1:65535",
	} {
		if got := driver(t, bus.Config{URI: uri, CurveKey: "/k"}).Addr(); got != want {
			t.Errorf("%s: address %s, want %s", uri, got, want)
		}
	}
}

func TestBadConfig(t *testing.T) {
	for _, c := range []struct {
		name       string
		cfg        bus.Config
		field, say string
	}{
		{"nothing", bus.Config{}, "uri", "missing"},
		{"embedded", bus.Config{URI: "embedded"}, "uri", "the agent is the server"},
		{"list", bus.Config{URI: "127.0.0.1,127.0.0.1:5556"}, "uri", "one address"},
		{"scheme", bus.Config{URI: "ipc:///tmp/x"}, "uri", "ipc:// is not known"},
		{"port", bus.Config{URI: "127.0.0.1:0"}, "uri", "not a port"},
		{"no host", bus.Config{URI: ":5555"}, "uri", "host is missing"},
		{"path", bus.Config{URI: "tcp://127.0.0.1/x"}, "uri", "nothing may follow"},
		{"IPv6", bus.Config{URI: "::1"}, "uri", "brackets"},
		{"secret", bus.Config{URI: "tcp://a:s3cret@127.0.0.1"}, "uri", "not an address"},
		{"open to the network", bus.Config{URI: "tcp://192.0.2.1:5555"}, "uri", "run commands as root"},
		{"open on all addresses", bus.Config{URI: "tcp://*:5555"}, "uri", "run commands as root"},
		{"open by name", bus.Config{URI: "tcp://mq.example.org"}, "uri", "run commands as root"},
		{"password", bus.Config{URI: "127.0.0.1", Password: "s3cret"}, "password", "CURVE"},
		{"TLS", bus.Config{URI: "127.0.0.1", TLS: true}, "tls", "CURVE"},
		{"agent's key", bus.Config{URI: "127.0.0.1", CurveServer: "short"}, "curve_server", "40 characters"},
		{"no own key", bus.Config{URI: "127.0.0.1", CurveServer: someKey}, "curve_key", "missing"},
		{"no own key, clients", bus.Config{URI: "127.0.0.1", CurveClients: "/f"}, "curve_key", "missing"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := New(c.cfg)
			if err == nil {
				t.Fatal("no error")
			}
			text := err.Error() + " " + cbsdmq.HintOf(err)
			if !strings.Contains(text, "zeromq."+c.field) || !strings.Contains(text, c.say) || cbsdmq.HintOf(err) == "" {
				t.Errorf("%s: want the key zeromq.%s, %q and a hint", text, c.field, c.say)
			}
			if strings.Contains(text, "s3cret") {
				t.Errorf("the error tells a secret: %s", text)
			}
		})
	}
}

func TestBadKeyFiles(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	_, secret, err := KeyPair()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, path, say string }{
		{"absent", filepath.Join(dir, "absent"), "cbsdmq curve-key " + dir},
		{"open", file("open", secret, 0o644), "chmod 600"},
		{"empty", file("empty", "# nothing\n", 0o600), "0 keys"},
		{"two", file("two", secret+"\n"+secret, 0o600), "2 keys"},
		{"garbage", file("garbage", "s3cret\n", 0o600), "40 characters"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, _, err := (&Opener{}).Open(bus.Config{URI: "127.0.0.1", CurveKey: c.path})
			text := ""
			if err != nil {
				text = err.Error() + " " + cbsdmq.HintOf(err)
			}
			if !strings.Contains(text, "zeromq.curve_key") || !strings.Contains(text, c.say) {
				t.Errorf("%q: want the key zeromq.curve_key and %q", text, c.say)
			}
			if strings.Contains(text, "s3cret") || strings.Contains(text, secret) {
				t.Errorf("the error tells a secret: %s", text)
			}
		})
	}
}

// TestZ85 has the pair of ZeroMQ's RFC 26 examples.
func TestZ85(t *testing.T) {
	secret, err := parseKey("JTKVSB%%)wK0E.X)V>+}o?pNmC{O&4W4b!Ni{Lh6")
	if err != nil {
		t.Fatal(err)
	}
	public, err := secret.public()
	if err != nil {
		t.Fatal(err)
	}
	if public.String() != someKey || secret.String() != "JTKVSB%%)wK0E.X)V>+}o?pNmC{O&4W4b!Ni{Lh6" {
		t.Errorf("public %s, secret %s", public, secret)
	}
	for _, bad := range []string{"", someKey[1:], someKey + "0", strings.Repeat("#", 40), strings.Repeat("é", 20)} {
		if k, err := parseKey(bad); err == nil {
			t.Errorf("%q is taken for the key %s", bad, k)
		}
	}
}
