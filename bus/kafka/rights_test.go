package kafka

import (
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"github.com/cbsd/cbsdmq/bus"
	"github.com/cbsd/cbsdmq/bus/bustest"
	"github.com/cbsd/cbsdmq/internal/testserver"
)

// The rights that the README asks for are enough, and who lacks one is told so.
func TestRights(t *testing.T) {
	const password = "s3cret"
	options := []testserver.KafkaOption{
		testserver.KafkaProtocol("SASL_PLAINTEXT"),
		testserver.KafkaConfig(
			"listener.name.client.sasl.enabled.mechanisms=SCRAM-SHA-512",
			"listener.name.client.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;",
			"authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer",
			"super.users=User:admin;User:ANONYMOUS", // between the servers nobody logs in
		),
	}
	for _, user := range []string{"admin", "agent", "client", "nobody"} {
		options = append(options, testserver.KafkaUser("SCRAM-SHA-512", user, password))
	}
	p := testserver.Kafka(t, options...)
	admin, err := kgo.NewClient(kgo.SeedBrokers(p.Addr), kgo.SASL(scram.Auth{User: "admin", Pass: password}.AsSha512Mechanism()))
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close()
	tube, control := "cbsd_pool1", "cbsd_pool1_ctl"
	for _, b := range []*kadm.ACLBuilder{
		kadm.NewACLs().Allow("User:agent", "User:client").AllowHosts("*").Topics(tube, control, ReplyTopic).
			Operations(kadm.OpCreate, kadm.OpRead, kadm.OpWrite, kadm.OpDelete, kadm.OpDescribe, kadm.OpDescribeConfigs),
		kadm.NewACLs().Allow("User:agent").AllowHosts("*").Groups(tube, control).
			Operations(kadm.OpRead, kadm.OpDescribe, kadm.OpDescribeConfigs, kadm.OpAlterConfigs),
	} {
		made, err := kadm.NewClient(admin).CreateACLs(within(t, enough), b.ResourcePatternType(kadm.ACLPatternLiteral))
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range made {
			if r.Err != nil {
				t.Fatal(r.Err)
			}
		}
	}
	as := func(user string) bus.Conn {
		t.Helper()
		c, err := driver(t, bus.Config{URI: p.Addr, User: user, Password: password}).Dial(within(t, enough))
		if err != nil {
			t.Fatalf("%s: %v", user, err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	q, mailbox := bus.Tube{Name: tube}, bus.Tube{Name: tube + "_result_id1", Kind: bus.Mailbox}
	consumes := func(user string, tube bus.Tube) error {
		t.Helper()
		k, err := as(user).Consume(within(t, enough), bus.ConsumeOptions{Tubes: []bus.Tube{tube}})
		if err == nil {
			t.Cleanup(func() { k.Close() })
		}
		return err
	}
	puts := func(user string, tube bus.Tube) error {
		t.Helper()
		return as(user).Put(within(t, enough), bus.Message{Tube: tube, Body: []byte("x")})[0].Err
	}
	for what, err := range map[string]error{
		"an agent takes jobs":          consumes("agent", q),
		"an agent takes requests":      consumes("agent", bus.Tube{Name: control}),
		"an agent replies":             puts("agent", mailbox),
		"a client puts a job":          puts("client", q),
		"a client reads its mailbox":   consumes("client", mailbox),
		"an agent puts a job, as boot": puts("agent", q),
	} {
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	info, err := as("client").Inspect(within(t, enough), q)
	if err != nil || info.Ready != -1 || info.Consumers != -1 || info.Advice == "" {
		t.Errorf("a client inspects: %+v, %v; want unknown counts, and why", info, err)
	}
	if info, err := as("agent").Inspect(within(t, enough), q); err != nil || info.Ready < 0 || info.Advice != "" {
		t.Errorf("an agent inspects: %+v, %v", info, err)
	}
	bustest.Permanent(t, consumes("client", q), `user "client" may not`, tube)
	bustest.Permanent(t, puts("nobody", q), `user "nobody" may not`, tube)
	bustest.Permanent(t, consumes("nobody", mailbox), `user "nobody" may not`, ReplyTopic)
	_, err = as("nobody").Inspect(within(t, enough), q)
	bustest.Permanent(t, err, `user "nobody" may not`, tube)
}
