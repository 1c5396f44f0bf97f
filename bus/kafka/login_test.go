package kafka

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cbsd/cbsdmq/bus"
	"github.com/cbsd/cbsdmq/internal/testserver"
)

// works waits for the broker and sends a message through it.
func works(t *testing.T, cfg bus.Config) {
	t.Helper()
	d := driver(t, cfg)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	q := bus.Tube{Name: "login"}
	testserver.Eventually(t, 50*time.Second, func() error {
		c, err := d.Dial(ctx)
		if err != nil {
			return err
		}
		defer c.Close()
		n, err := c.Consume(ctx, bus.ConsumeOptions{Tubes: []bus.Tube{q}})
		if err != nil {
			return err
		}
		if r := c.Put(ctx, bus.Message{Tube: q, Body: []byte("x")}); r[0].Err != nil {
			return r[0].Err
		}
		ds, err := n.Receive(ctx, 1)
		if err != nil {
			return err
		}
		return n.Ack(ctx, ds...)
	})
}

// refused checks that dialling fails at once, for good, and says so.
func refused(t *testing.T, cfg bus.Config, says ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	begin := time.Now()
	c, err := driver(t, cfg).Dial(ctx)
	if err == nil {
		c.Close()
		t.Errorf("let in; want an error with %q", says)
		return
	}
	if _, ok := errors.AsType[*bus.Permanent](err); !ok {
		t.Errorf("not for good: %v", err)
	}
	for _, s := range says {
		if !strings.Contains(err.Error(), s) {
			t.Errorf("%v; want %q", err, s)
		}
	}
	if strings.Contains(err.Error(), "secret") {
		t.Errorf("the error shows the password: %v", err)
	}
	if took := time.Since(begin); took > 10*time.Second {
		t.Errorf("took %v", took)
	}
}

func TestLogin(t *testing.T) {
	p := testserver.Kafka(t,
		testserver.KafkaProtocol("SASL_PLAINTEXT"),
		testserver.KafkaUser("SCRAM-SHA-512", "agent", "secret-512"),
		testserver.KafkaUser("SCRAM-SHA-256", "old", "secret-256"),
		testserver.KafkaConfig(
			"listener.name.client.sasl.enabled.mechanisms=SCRAM-SHA-512,SCRAM-SHA-256,PLAIN",
			"listener.name.client.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;",
			"listener.name.client.scram-sha-256.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;",
			`listener.name.client.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required user_simple="secret-plain";`,
		))
	works(t, bus.Config{URI: p.Addr, User: "agent", Password: "secret-512"})
	works(t, bus.Config{URI: p.Addr, User: "old", Password: "secret-256", SASL: "scram-sha-256"})
	works(t, bus.Config{URI: p.Addr, User: "simple", Password: "secret-plain", SASL: "plain"})
	refused(t, bus.Config{URI: p.Addr, User: "agent", Password: "secret-wrong"}, `"agent"`, "user and password")
	refused(t, bus.Config{URI: p.Addr, User: "nobody", Password: "secret-512"}, `"nobody"`, "user and password")
	refused(t, bus.Config{URI: p.Addr, User: "simple", Password: "secret-wrong", SASL: "plain"}, `"simple"`)
	// It hangs up on who does not log in.
	c, err := driver(t, bus.Config{URI: p.Addr}).Dial(t.Context())
	if err == nil {
		c.Close()
		t.Error("let in without a login")
	} else if !strings.Contains(err.Error(), "login") {
		t.Errorf("without a login: %v", err)
	}
}

func TestLoginWhereNoneIs(t *testing.T) {
	p := testserver.Kafka(t)
	refused(t, bus.Config{URI: p.Addr, User: "agent", Password: "secret"}, "no login")
	c, err := driver(t, bus.Config{URI: p.Addr, TLS: true}).Dial(t.Context())
	if err == nil {
		c.Close()
		t.Error("a connection by TLS to a broker that has none")
	} else if !strings.Contains(err.Error(), "it hangs up on TLS") {
		t.Errorf("with TLS: %v", err)
	}
}

func TestTLS(t *testing.T) {
	own, other := newAuthority(t, "own"), newAuthority(t, "other")
	server := own.pair(t, "server", time.Hour, "127.0.0.1")
	p := testserver.Kafka(t, testserver.KafkaProtocol("SSL"), testserver.KafkaConfig(
		"listener.name.client.ssl.keystore.type=PEM", "listener.name.client.ssl.keystore.location="+server.both,
		"listener.name.client.ssl.truststore.type=PEM", "listener.name.client.ssl.truststore.location="+own.file,
		"listener.name.client.ssl.client.auth=required"))
	client, stranger := own.pair(t, "client", time.Hour), other.pair(t, "stranger", time.Hour)
	works(t, bus.Config{URI: p.Addr, CA: own.file, Cert: client.cert, Key: client.key})
	refused(t, bus.Config{URI: p.Addr, CA: other.file, Cert: client.cert, Key: client.key}, "authority", "key ca", `"own"`)
	refused(t, bus.Config{URI: strings.Replace(p.Addr, "127.0.0.1", "localhost", 1), CA: own.file, Cert: client.cert, Key: client.key}, "127.0.0.1, not for localhost")
	refused(t, bus.Config{URI: p.Addr}, "it speaks TLS", "key is tls")
	for name, cfg := range map[string]bus.Config{
		"without a certificate": {URI: p.Addr, CA: own.file},
		"a stranger":            {URI: p.Addr, CA: own.file, Cert: stranger.cert, Key: stranger.key},
	} {
		t.Run(name, func(t *testing.T) { refused(t, cfg, "certificate", "cert and key") })
	}
}

// authority issues certificates into files.
type authority struct {
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	file string
}

type pair struct{ cert, key, both string } // files

func newAuthority(t *testing.T, name string) *authority {
	t.Helper()
	a := &authority{dir: t.TempDir()}
	a.cert = &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	a.file = a.issue(t, "ca", a.cert).cert
	return a
}

func (a *authority) pair(t *testing.T, name string, life time.Duration, hosts ...string) pair {
	t.Helper()
	c := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(life),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	for _, h := range hosts {
		c.IPAddresses = append(c.IPAddresses, net.ParseIP(h))
	}
	return a.issue(t, name, c)
}

func (a *authority) issue(t *testing.T, name string, c *x509.Certificate) pair {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer := a.key
	if signer == nil {
		signer, a.key = private, private
	}
	der, err := x509.CreateCertificate(rand.Reader, c, a.cert, private.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	p := pair{filepath.Join(a.dir, name+".crt"), filepath.Join(a.dir, name+".key"), filepath.Join(a.dir, name+".pem")}
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	key := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})
	for file, text := range map[string][]byte{p.cert: cert, p.key: key, p.both: append(key[:len(key):len(key)], cert...)} {
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return p
}
