package testserver

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// An ActiveMQOption changes how ActiveMQ starts a server.
type ActiveMQOption func(*activeMQ)

type activeMQ struct {
	plugins   []string
	transport string
	options   string // of the transport
	ssl       string
}

// ActiveMQPlugin adds an element to <plugins>.
func ActiveMQPlugin(xml string) ActiveMQOption {
	return func(a *activeMQ) { a.plugins = append(a.plugins, xml) }
}

// ActiveMQWithoutStatistics leaves the statistics plugin out.
func ActiveMQWithoutStatistics() ActiveMQOption {
	return func(a *activeMQ) { a.plugins = a.plugins[1:] }
}

// ActiveMQTLS has the server speak TLS with a certificate of the authority, and
// ask for one of the client where mutual is set.
func ActiveMQTLS(t testing.TB, ca *Authority, cert, key string, mutual bool) ActiveMQOption {
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
	return func(a *activeMQ) {
		a.transport = "amqp+ssl"
		if mutual {
			a.options += "&amp;needClientAuth=true"
		}
		a.ssl = fmt.Sprintf(`<sslContext><sslContext keyStore="file:%s" keyStorePassword="%s" trustStore="file:%s" trustStorePassword="%s"/></sslContext>`,
			store, password, trust, password)
	}
}

// ActiveMQ starts an ActiveMQ Classic with AMQP, configured as the README says.
// It skips the test where there is none.
func ActiveMQ(t testing.TB, options ...ActiveMQOption) *Process {
	t.Helper()
	jars := javaServer(t, "activemq", "activemq-amqp-*.jar")
	a := &activeMQ{transport: "amqp+nio", options: "transport.tcpNoDelay=true", plugins: []string{"<statisticsBrokerPlugin/>"}}
	for _, o := range options {
		o(a)
	}
	dir, addr := t.TempDir(), FreeAddr(t)
	file := filepath.Join(dir, "activemq.xml")
	text := fmt.Sprintf(`<beans xmlns="http://www.springframework.org/schema/beans" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"
  xsi:schemaLocation="http://www.springframework.org/schema/beans http://www.springframework.org/schema/beans/spring-beans.xsd
  http://activemq.apache.org/schema/core http://activemq.apache.org/schema/core/activemq-core.xsd">
<broker xmlns="http://activemq.apache.org/schema/core" brokerName="test" useJmx="false" useShutdownHook="false" dataDirectory="%[1]s"
  schedulePeriodForDestinationPurge="500">
 <destinationPolicy><policyMap><policyEntries>
  <policyEntry queue="&gt;" gcInactiveDestinations="true" inactiveTimeoutBeforeGC="1000" expireMessagesPeriod="500">
   <deadLetterStrategy><sharedDeadLetterStrategy processExpired="false"/></deadLetterStrategy>
  </policyEntry>
 </policyEntries></policyMap></destinationPolicy>
 <persistenceAdapter><kahaDB directory="%[1]s/kahadb" journalDiskSyncStrategy="always" journalMaxFileLength="4mb"/></persistenceAdapter>
 %[5]s
 <plugins>%[2]s</plugins>
 <transportConnectors><transportConnector name="amqp" uri="%[3]s://%[4]s?%[6]s"/></transportConnectors>
</broker></beans>
`, dir, strings.Join(a.plugins, ""), a.transport, addr, a.ssl, a.options)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatalf("configuring ActiveMQ: %v", err)
	}
	return startJava(t, addr, dir, jars, "org.apache.activemq.console.Main", "start", "xbean:file:"+file)
}

// Artemis starts an ActiveMQ Artemis. It skips the test where there is none.
func Artemis(t testing.TB) *Process {
	t.Helper()
	jars := javaServer(t, "artemis", "artemis-amqp-protocol-*.jar")
	dir, addr := t.TempDir(), FreeAddr(t)
	text := fmt.Sprintf(`<configuration xmlns="urn:activemq"><core xmlns="urn:activemq:core">
 <persistence-enabled>true</persistence-enabled>
 <security-enabled>false</security-enabled>
 <journal-type>NIO</journal-type>
 <journal-min-files>2</journal-min-files>
 <journal-pool-files>2</journal-pool-files>
 <journal-file-size>1M</journal-file-size>
 <message-expiry-scan-period>500</message-expiry-scan-period>
 <address-queue-scan-period>500</address-queue-scan-period>
 <acceptors><acceptor name="amqp">tcp://%s?protocols=AMQP;tcpNoDelay=true</acceptor></acceptors>
 <address-settings><address-setting match="#">
  <max-delivery-attempts>-1</max-delivery-attempts>
 </address-setting></address-settings>
</core></configuration>
`, addr)
	etc := filepath.Join(dir, "etc")
	if err := errors.Join(os.Mkdir(etc, 0o700), os.WriteFile(filepath.Join(etc, "broker.xml"), []byte(text), 0o600)); err != nil {
		t.Fatalf("configuring Artemis: %v", err)
	}
	return startJava(t, addr, dir, jars, "org.apache.activemq.artemis.core.server.embedded.Main", dir)
}

// javaServer returns the class path of a server whose jars test.sh has fetched
// into .cache/servers/name.
func javaServer(t testing.TB, name, jar string) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for dir != filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			break
		}
		dir = filepath.Dir(dir)
	}
	dir = filepath.Join(dir, ".cache", "servers", name)
	if found, _ := filepath.Glob(filepath.Join(dir, jar)); len(found) == 0 {
		Require(t, jar+" of "+name+" in .cache/servers", "./test.sh, which needs Maven")
	}
	return filepath.Join(dir, "*")
}

// startJava starts a server for a small machine, which works in dir.
func startJava(t testing.TB, addr, dir, classpath, main string, args ...string) *Process {
	t.Helper()
	java := Require(t, "java", "apt-get install openjdk-17-jdk-headless (Debian), pkg install openjdk17 (FreeBSD)")
	p := &Process{Addr: addr, path: java, patience: 90 * time.Second, args: append([]string{
		"-Xms64m", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Djava.io.tmpdir=" + dir,
		"-Dactivemq.home=" + dir, "-Dactivemq.base=" + dir, "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
		"-cp", classpath, main}, args...)}
	p.startWith(t)
	return p
}
