package testserver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// KafkaClusterID is the id of every cluster that Kafka starts.
const KafkaClusterID = "cbsdmqcbsdmqcbsdmqcbsQ"

// A KafkaOption changes how Kafka starts a server.
type KafkaOption func(*kafka)

type kafka struct {
	protocol string
	mute     bool // it cannot serve share groups
	config   []string
	format   []string

	listeners, advertised, protocols string // beside its own
}

// KafkaConfig adds lines to server.properties.
func KafkaConfig(lines ...string) KafkaOption {
	return func(k *kafka) { k.config = append(k.config, lines...) }
}

// KafkaVia adds a listener of which the server says that it is at another address.
func KafkaVia(name, listen, say string) KafkaOption {
	return func(k *kafka) {
		k.listeners += "," + name + "://" + listen
		k.advertised += "," + name + "://" + say
		k.protocols += "," + name + ":PLAINTEXT"
	}
}

// KafkaProtocol is that of clients: SSL, SASL_PLAINTEXT or SASL_SSL.
func KafkaProtocol(name string) KafkaOption { return func(k *kafka) { k.protocol = name } }

// KafkaFeature sets the level of a feature, such as share.version=0. The server
// is not asked whether it can serve share groups.
func KafkaFeature(name string) KafkaOption {
	return func(k *kafka) { k.format = append(k.format, "--feature", name); k.mute = true }
}

// KafkaUser adds a user who logs in by a SCRAM mechanism.
func KafkaUser(mechanism, user, password string) KafkaOption {
	return func(k *kafka) {
		k.format = append(k.format, "--add-scram", fmt.Sprintf("%s=[name=%s,password=%s]", mechanism, user, password))
	}
}

// Kafka starts a Kafka with the configuration of dist/sample/kafka.properties. It
// skips the test where there is none.
func Kafka(t testing.TB, options ...KafkaOption) *Process {
	t.Helper()
	return startKafka(t, 1, options)[0]
}

// KafkaCluster starts three servers that keep three copies of everything. It skips
// the test where there is none.
func KafkaCluster(t testing.TB) []*Process {
	t.Helper()
	return startKafka(t, 3, []KafkaOption{KafkaConfig(
		"offsets.topic.replication.factor=3",
		"share.coordinator.state.topic.replication.factor=3",
		"share.coordinator.state.topic.min.isr=2",
	)})
}

func startKafka(t testing.TB, n int, options []KafkaOption) []*Process {
	t.Helper()
	root, jars := javaServer(t, "kafka", "kafka_2.13-*.jar")
	k := &kafka{protocol: "PLAINTEXT"}
	for _, o := range options {
		o(k)
	}
	sample, err := os.ReadFile(filepath.Join(root, "dist", "sample", "kafka.properties"))
	if err != nil {
		t.Fatal(err)
	}
	controllers, voters := make([]string, n), make([]string, n)
	for i := range controllers {
		controllers[i] = FreeAddr(t)
		voters[i] = fmt.Sprintf("%d@%s", i+1, controllers[i])
	}
	quorum := "controller.quorum.bootstrap.servers=" + controllers[0]
	if n == 1 {
		k.format = append(k.format, "--standalone")
	} else {
		quorum = "controller.quorum.voters=" + strings.Join(voters, ",")
	}
	nodes := make([]*Process, n)
	ready := make([]func(string) error, n)
	for i, controller := range controllers {
		dir := t.TempDir()
		addr, internal := FreeAddr(t), FreeAddr(t)
		lines := append([]string{
			string(sample), // what follows goes before
			"node.id=" + strconv.Itoa(i+1),
			"log.dirs=" + filepath.Join(dir, "data"),
			"listeners=CLIENT://" + addr + ",INTERNAL://" + internal + ",CONTROLLER://" + controller + k.listeners,
			"advertised.listeners=CLIENT://" + addr + ",INTERNAL://" + internal + k.advertised,
			"listener.security.protocol.map=CLIENT:" + k.protocol + ",INTERNAL:PLAINTEXT,CONTROLLER:PLAINTEXT" + k.protocols,
			"inter.broker.listener.name=INTERNAL",
			quorum,
			"broker.session.timeout.ms=5000", // one that was killed cannot come back before; on a busy machine one that lives is taken for dead
			"broker.heartbeat.interval.ms=500",
			"log.segment.delete.delay.ms=1000",
			"log.index.size.max.bytes=1048576",
		}, k.config...)
		file := filepath.Join(dir, "server.properties")
		logging := filepath.Join(dir, "log4j2.properties")
		for name, text := range map[string]string{
			file:    strings.Join(lines, "\n") + "\n",
			logging: "status=error\nappender.out.type=Console\nappender.out.name=out\nappender.out.target=SYSTEM_ERR\nappender.out.layout.type=PatternLayout\nappender.out.layout.pattern=%d %p %c{1} %m%n\nrootLogger.level=warn\nrootLogger.appenderRef.out.ref=out\n",
		} {
			if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
				t.Fatalf("configuring Kafka: %v", err)
			}
		}
		log4j := "-Dlog4j2.configurationFile=" + logging
		path, args := java(t, dir, jars, append([]string{
			log4j, "kafka.tools.StorageTool", "format", "-t", KafkaClusterID, "-c", file,
		}, k.format...)...)
		if out, err := exec.Command(path, args...).CombinedOutput(); err != nil {
			t.Fatalf("formatting the storage of Kafka: %v\n%s", err, out)
		}
		_, args = java(t, dir, jars, log4j, "kafka.Kafka", file)
		nodes[i] = &Process{Addr: addr, path: path, args: args, patience: slowStart}
		if !k.mute {
			ready[i] = func(string) error { return kafkaAnswers(internal) }
		}
	}
	// A server of a cluster listens when it has a majority: all are begun before
	// one is waited for.
	for _, p := range nodes {
		p.launchWith(t)
	}
	for i, p := range nodes {
		p.ready = ready[i]
		p.await(t)
	}
	return nodes
}

// kafkaAnswers reports why the server cannot serve share groups yet: it accepts
// connections long before. It asks for one on a topic of its own, "ready".
func kafkaAnswers(addr string) error {
	cl, err := kgo.NewClient(kgo.SeedBrokers(addr))
	if err != nil {
		return err
	}
	defer cl.Close()
	const name = "ready"
	adm := kadm.NewClient(cl)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if _, err := adm.CreateTopic(ctx, 1, 1, nil, name); err != nil && !errors.Is(err, kerr.TopicAlreadyExists) {
		return err
	}
	begin := kadm.Offsets{}
	begin.AddOffset(name, 0, 0, -1)
	if rs, err := adm.AlterShareGroupOffsets(ctx, name, begin); err != nil || rs[name][0] != nil {
		return errors.Join(err, rs[name][0])
	}
	all, err := adm.DescribeShareGroupOffsets(ctx, name)
	if err == nil {
		err = all[name].Err
	}
	if err == nil {
		o, _ := all[name].Offsets.Lookup(name, 0)
		err = o.Err
	}
	return err
}
