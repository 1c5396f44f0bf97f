// Package tlsconf reads a broker's keys about TLS, and says in plain words what
// is wrong with a server's certificate.
package tlsconf

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"github.com/cbsd/cbsdmq/bus"
)

// Wanted reports whether one of the keys tls, ca, cert and key is set.
func Wanted(cfg bus.Config) bool {
	return cfg.TLS || cfg.CA != "" || cfg.Cert != "" || cfg.Key != ""
}

// For is Load for the server at addr, of which it is known that TLS is wanted.
// The files are read anew each time: certificates are renewed. The error is a
// *bus.Permanent.
func For(cfg bus.Config, addr string) (*tls.Config, error) {
	t, err := Load(cfg)
	if err != nil {
		return nil, &bus.Permanent{Err: err}
	}
	if t == nil {
		t = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	t.ServerName, _, _ = net.SplitHostPort(addr)
	return t, nil
}

// Load reads the keys tls, ca, cert and key. It returns nil if none of
// them is set.
func Load(cfg bus.Config) (*tls.Config, error) {
	if !Wanted(cfg) {
		return nil, nil
	}
	t := &tls.Config{MinVersion: tls.VersionTLS12}
	if cfg.CA != "" {
		b, err := os.ReadFile(cfg.CA)
		if err != nil {
			return nil, fmt.Errorf("ca: %w", err)
		}
		t.RootCAs = x509.NewCertPool()
		if !t.RootCAs.AppendCertsFromPEM(b) {
			return nil, fmt.Errorf("ca: no certificate in %s", cfg.CA)
		}
	}
	if cfg.Cert != "" || cfg.Key != "" {
		if cfg.Cert == "" || cfg.Key == "" {
			return nil, errors.New("cert and key: one is not good without the other")
		}
		pair, err := tls.LoadX509KeyPair(cfg.Cert, cfg.Key)
		if err != nil {
			return nil, fmt.Errorf("cert and key: %w", err)
		}
		// Shown whatever the server asks for, so that it says what is wrong.
		t.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }
	}
	return t, nil
}

// Reason says why the handshake with host failed for good, "" if another attempt
// may succeed or it was not TLS that failed.
func Reason(err error, host string) string {
	if unknown, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return "its certificate is not from an authority that is trusted here; the key ca names one" + issuer(unknown.Cert)
	}
	if wrong, ok := errors.AsType[x509.HostnameError](err); ok {
		return fmt.Sprintf("its certificate is for %s, not for %s", names(wrong.Certificate), host)
	}
	if invalid, ok := errors.AsType[x509.CertificateInvalidError](err); ok {
		if invalid.Reason == x509.Expired {
			return fmt.Sprintf("its certificate is valid from %s to %s, and now is %s", day(invalid.Cert.NotBefore), day(invalid.Cert.NotAfter), day(time.Now()))
		}
		return "its certificate is not valid"
	}
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		return "what answers there does not speak TLS"
	}
	return ""
}

func names(c *x509.Certificate) string {
	list := c.DNSNames
	for _, ip := range c.IPAddresses {
		list = append(list, ip.String())
	}
	if len(list) == 0 {
		return "no host at all"
	}
	return strings.Join(list, ", ")
}

func issuer(c *x509.Certificate) string {
	if c == nil {
		return ""
	}
	return fmt.Sprintf("; it was issued by %q", c.Issuer.CommonName)
}

func day(t time.Time) string { return t.UTC().Format("2006-01-02") }
