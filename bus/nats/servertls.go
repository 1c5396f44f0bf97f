package nats

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
)

// config returns nil without a certificate. The certificate is read again for
// each connection, so that it can be renewed; the authorities are read once.
// key is the section of the configuration that t is in.
func (t ServerTLS) config(key string) (*tls.Config, error) {
	if t.Cert == "" && t.Key == "" {
		if t.CA != "" {
			return nil, fmt.Errorf("key %s.cert: missing; %s.ca is of no use without it", key, key)
		}
		return nil, nil
	}
	load := func() (*tls.Certificate, error) {
		pair, err := tls.LoadX509KeyPair(t.Cert, t.Key)
		if err != nil {
			return nil, fmt.Errorf("keys %s.cert and %s.key: %w", key, key, err)
		}
		return &pair, nil
	}
	if _, err := load(); err != nil {
		return nil, err
	}
	c := &tls.Config{
		MinVersion:           tls.VersionTLS12,
		GetCertificate:       func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return load() },
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return load() },
	}
	if t.CA == "" {
		return c, nil
	}
	b, err := os.ReadFile(t.CA)
	if err != nil {
		return nil, fmt.Errorf("key %s.ca: %w", key, err)
	}
	c.RootCAs = x509.NewCertPool()
	if !c.RootCAs.AppendCertsFromPEM(b) {
		return nil, fmt.Errorf("key %s.ca: no certificate in %s", key, t.CA)
	}
	c.ClientCAs, c.ClientAuth = c.RootCAs, tls.RequireAndVerifyClientCert
	return c, nil
}
