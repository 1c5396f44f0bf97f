package testserver

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// An ActiveMQOption replaces a part of dist/sample/activemq.xml by another.
type ActiveMQOption struct{ old, text string }

// ActiveMQPlugin adds an element to <plugins>.
func ActiveMQPlugin(xml string) ActiveMQOption {
	return ActiveMQOption{"</plugins>", xml + "</plugins>"}
}

// ActiveMQWithoutStatistics leaves the statistics plugin out.
func ActiveMQWithoutStatistics() ActiveMQOption {
	return ActiveMQOption{"<statisticsBrokerPlugin/>", ""}
}

// ActiveMQTLS has the server speak TLS with a certificate of the authority, and
// ask for one of the client where mutual is set.
func ActiveMQTLS(t testing.TB, ca *Authority, cert, key string, mutual bool) []ActiveMQOption {
	t.Helper()
	const password = "changeit"
	store, trust := filepath.Join(t.TempDir(), "key.p12"), filepath.Join(t.TempDir(), "trust.p12")
	for _, args := range [][]string{
		{"openssl", "pkcs12", "-export", "-in", cert, "-inkey", key, "-out", store, "-passout", "pass:" + password},
		{"keytool", "-importcert", "-noprompt", "-alias", "ca", "-file", ca.File, "-keystore", trust, "-storetype", "PKCS12", "-storepass", password},
	} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("making a key store: %v\n%s", err, out)
		}
	}
	stores := fmt.Sprintf(`<sslContext><sslContext keyStore="file:%s" keyStorePassword="%s" trustStore="file:%s" trustStorePassword="%s"/></sslContext>`,
		store, password, trust, password)
	return []ActiveMQOption{
		{"amqp+nio://", "amqp+ssl://"},
		{"tcpNoDelay=true", fmt.Sprintf("tcpNoDelay=true&amp;needClientAuth=%v", mutual)},
		{"<plugins>", stores + "<plugins>"},
	}
}

// ActiveMQAsInstalled leaves unused queues for as long as the sample does; else it
// is a second. Classic can lose what is sent to a queue at the moment at which it
// removes it.
func ActiveMQAsInstalled() ActiveMQOption { return ActiveMQOption{} }

// ActiveMQ starts an ActiveMQ Classic with the configuration of
// dist/sample/activemq.xml. It skips the test where there is none.
func ActiveMQ(t testing.TB, options ...ActiveMQOption) *Process {
	t.Helper()
	root, jars := javaServer(t, "activemq", "activemq-amqp-*.jar")
	dir, addr := t.TempDir(), FreeAddr(t)
	sample, err := os.ReadFile(filepath.Join(root, "dist", "sample", "activemq.xml"))
	if err != nil {
		t.Fatal(err)
	}
	text := string(sample)
	if i := slices.Index(options, ActiveMQAsInstalled()); i >= 0 {
		options = slices.Delete(slices.Clone(options), i, i+1)
	} else {
		options = append(options,
			ActiveMQOption{`Purge="10000"`, `Purge="500"`},
			ActiveMQOption{`inactiveTimeoutBeforeGC="60000"`, `inactiveTimeoutBeforeGC="1000" expireMessagesPeriod="500"`})
	}
	for _, o := range append(options,
		ActiveMQOption{"127.0.0.1:5672", addr},
		ActiveMQOption{`brokerName="cbsdmq"`, `brokerName="test" useJmx="false" useShutdownHook="false"`},
		ActiveMQOption{`journalDiskSyncStrategy="always"`, `journalDiskSyncStrategy="always" journalMaxFileLength="4mb"`},
	) {
		if !strings.Contains(text, o.old) {
			t.Fatalf("dist/sample/activemq.xml has no %s", o.old)
		}
		text = strings.Replace(text, o.old, o.text, 1)
	}
	file := filepath.Join(dir, "activemq.xml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatalf("configuring ActiveMQ: %v", err)
	}
	return startActiveMQ(t, addr, dir, jars, "org.apache.activemq.console.Main", "start", "xbean:file:"+file)
}

// Artemis starts an ActiveMQ Artemis that removes queues as soon as they are unused.
// It skips the test where there is none.
func Artemis(t testing.TB) *Process {
	t.Helper()
	return startArtemis(t, 0)
}

// ArtemisAsInstalled starts one that waits a while, as for ActiveMQAsInstalled.
func ArtemisAsInstalled(t testing.TB) *Process {
	t.Helper()
	return startArtemis(t, time.Minute)
}

func startArtemis(t testing.TB, unused time.Duration) *Process {
	t.Helper()
	_, jars := javaServer(t, "artemis", "artemis-amqp-protocol-*.jar")
	dir, addr := t.TempDir(), FreeAddr(t)
	text := fmt.Sprintf(`<configuration xmlns="urn:activemq"><core xmlns="urn:activemq:core">
 <persistence-enabled>true</persistence-enabled>
 <security-enabled>false</security-enabled>
 <journal-type>NIO</journal-type>
 <journal-buffer-timeout>%[3]d</journal-buffer-timeout>
 <journal-min-files>2</journal-min-files>
 <journal-pool-files>2</journal-pool-files>
 <journal-file-size>1M</journal-file-size>
 <message-expiry-scan-period>500</message-expiry-scan-period>
 <address-queue-scan-period>500</address-queue-scan-period>
 <acceptors><acceptor name="amqp">tcp://%[1]s?protocols=AMQP;tcpNoDelay=true</acceptor></acceptors>
 <address-settings>
  <address-setting match="#">
   <max-delivery-attempts>-1</max-delivery-attempts>
   <auto-delete-queues-delay>%[2]d</auto-delete-queues-delay>
   <auto-delete-addresses-delay>%[2]d</auto-delete-addresses-delay>
  </address-setting>
  <address-setting match="cbsd_pool1"><auto-delete-queues>false</auto-delete-queues></address-setting>
 </address-settings>
</core></configuration>
`, addr, unused.Milliseconds(), syncedWrite(t, dir).Nanoseconds())
	etc := filepath.Join(dir, "etc")
	if err := errors.Join(os.Mkdir(etc, 0o700), os.WriteFile(filepath.Join(etc, "broker.xml"), []byte(text), 0o600)); err != nil {
		t.Fatalf("configuring Artemis: %v", err)
	}
	return startActiveMQ(t, addr, dir, jars, "org.apache.activemq.artemis.core.server.embedded.Main", dir)
}

// syncedWrite is what a synced write to dir takes. `artemis create` has a server
// gather writes for so long; one that is not told does for 3.3 ms.
func syncedWrite(t testing.TB, dir string) time.Duration {
	t.Helper()
	const writes, tries = 50, 3
	f, err := os.Create(filepath.Join(dir, "synced"))
	if err != nil {
		t.Fatalf("measuring the disk: %v", err)
	}
	defer f.Close()
	best := time.Hour
	for range tries {
		begin := time.Now()
		for i := range writes {
			_, err := f.WriteAt(make([]byte, 4096), int64(i)*4096)
			if err := errors.Join(err, f.Sync()); err != nil {
				t.Fatalf("measuring the disk: %v", err)
			}
		}
		best = min(best, time.Since(begin)/writes)
	}
	return best
}

// startActiveMQ starts a server that works in dir.
func startActiveMQ(t testing.TB, addr, dir, classpath, main string, args ...string) *Process {
	t.Helper()
	path, args := java(t, dir, classpath, append([]string{
		"-Dactivemq.home=" + dir, "-Dactivemq.base=" + dir, "-Dactivemq.data=" + dir, "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", main,
	}, args...)...)
	p := &Process{Addr: addr, path: path, patience: slowStart, args: args}
	p.startWith(t)
	return p
}
