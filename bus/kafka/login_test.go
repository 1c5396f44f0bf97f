package kafka

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cbsd/cbsdmq/bus"
	"github.com/cbsd/cbsdmq/bus/bustest"
	"github.com/cbsd/cbsdmq/internal/testserver"
)

func logins(t *testing.T, login bustest.Login) {
	passwords(t, login)
	certificates(t, login)
}

func passwords(t *testing.T, login bustest.Login) {
	at := testserver.Kafka(t,
		testserver.KafkaProtocol("SASL_PLAINTEXT"),
		testserver.KafkaUser("SCRAM-SHA-512", "alice", "s3cret"),
		testserver.KafkaUser("SCRAM-SHA-256", "old", "s3cret"),
		testserver.KafkaConfig(
			"listener.name.client.sasl.enabled.mechanisms=SCRAM-SHA-512,SCRAM-SHA-256,PLAIN",
			"listener.name.client.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;",
			"listener.name.client.scram-sha-256.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;",
			`listener.name.client.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required user_simple="s3cret";`,
		)).Addr
	login("password", bus.Config{URI: at, User: "alice", Password: "s3cret"})
	login("password in the address", bus.Config{URI: "kafka://alice:s3cret@" + at})
	login("an older way", bus.Config{URI: at, User: "old", Password: "s3cret", SASL: "scram-sha-256"})
	login("in clear", bus.Config{URI: at, User: "simple", Password: "s3cret", SASL: "plain"})
	login("wrong password", bus.Config{URI: at, User: "alice", Password: "wr0ng"}, at, `refuses user "alice"`, "keys are user and password")
	login("nobody", bus.Config{URI: at, User: "nobody", Password: "s3cret"}, `refuses user "nobody"`)
	login("in clear, wrong password", bus.Config{URI: at, User: "simple", Password: "wr0ng", SASL: "plain"}, `refuses user "simple"`)
	bustest.OneDown(t, driver, bus.Config{URI: at, User: "alice", Password: "wr0ng"})
	// It hangs up on who does not log in, as it does when it ends.
	if err := dialled(t, bus.Config{URI: at}); err == nil || !strings.Contains(err.Error(), "if it wants a login, the keys are user and password") {
		t.Errorf("without a login: %v", err)
	}
}

func TestLoginWhereNoneIs(t *testing.T) {
	at := testserver.Kafka(t).Addr
	bustest.Logins(t, driver)("a login", bus.Config{URI: at, User: "alice", Password: "s3cret"}, at, "no login")
	if err := dialled(t, bus.Config{URI: at, TLS: true}); err == nil || !strings.Contains(err.Error(), "it hangs up on TLS") {
		t.Errorf("with TLS: %v", err)
	}
}

func dialled(t *testing.T, cfg bus.Config) error {
	c, err := driver(t, cfg).Dial(within(t, enough))
	if err == nil {
		c.Close()
	}
	return err
}

func certificates(t *testing.T, login bustest.Login) {
	soon := time.Now().Add(time.Hour)
	ca, stranger := testserver.NewAuthority(t, "our authority"), testserver.NewAuthority(t, "a stranger")
	cert, key := ca.Host(t, "good", soon, "127.0.0.1")
	ourCert, ourKey := ca.Host(t, "client", soon)
	strangeCert, strangeKey := stranger.Host(t, "stranger", soon)
	var both []byte
	for _, file := range []string{key, cert} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		both = append(both, text...)
	}
	store := filepath.Join(t.TempDir(), "both.pem")
	if err := os.WriteFile(store, both, 0o600); err != nil {
		t.Fatal(err)
	}
	at := testserver.Kafka(t, testserver.KafkaProtocol("SSL"), testserver.KafkaConfig(
		"listener.name.client.ssl.keystore.type=PEM", "listener.name.client.ssl.keystore.location="+store,
		"listener.name.client.ssl.truststore.type=PEM", "listener.name.client.ssl.truststore.location="+ca.File,
		"listener.name.client.ssl.client.auth=required")).Addr
	ours := bus.Config{URI: at, CA: ca.File, Cert: ourCert, Key: ourKey}
	with := func(change func(*bus.Config)) bus.Config {
		c := ours
		change(&c)
		return c
	}
	login("client certificate", ours)
	login("unknown authority", with(func(c *bus.Config) { c.CA = "" }), at, "key ca", `"our authority"`)
	login("another authority", with(func(c *bus.Config) { c.CA = stranger.File }), "key ca", `"our authority"`)
	login("another host", with(func(c *bus.Config) { c.URI = strings.Replace(at, "127.0.0.1", "localhost", 1) }), "for 127.0.0.1, not for localhost")
	login("no certificate", bus.Config{URI: at, CA: ca.File}, at, "keys cert and key")
	login("a stranger's certificate", with(func(c *bus.Config) { c.Cert, c.Key = strangeCert, strangeKey }), at, "keys are cert and key")
	login("no TLS here", bus.Config{URI: at}, at, "it speaks TLS; the key is tls")
	login("no such file", bus.Config{URI: at, CA: "/nonexistent/ca.pem"}, "ca:", "/nonexistent/ca.pem")
}

func TestNoShareGroups(t *testing.T) {
	at := testserver.Kafka(t, testserver.KafkaFeature("share.version=0")).Addr
	bustest.Logins(t, driver)("share groups off", bus.Config{URI: at}, at, "share groups", "share.version=1")
}
