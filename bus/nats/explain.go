package nats

import (
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/nats-io/nats.go"

	"github.com/cbsd/cbsdmq/bus"
	"github.com/cbsd/cbsdmq/bus/internal/tlsconf"
)

// explain says in plain words why connecting to e failed, and wraps what
// trying again does not mend in a *bus.Permanent. The server's first words are
// head.
func (e target) explain(err error, head []byte) error {
	if errors.Is(err, nats.ErrNoInfoReceived) {
		err = fmt.Errorf("what answers there is not NATS, it says %q", head)
	}
	if why := e.reason(err); why != "" {
		return &bus.Permanent{Err: fmt.Errorf("NATS at %s: %s (%w)", e.addr, why, err)}
	}
	return fmt.Errorf("connecting to NATS at %s: %w", e.addr, err)
}

// reason returns "" if another attempt may succeed.
func (e target) reason(err error) string {
	host, _, _ := net.SplitHostPort(e.addr)
	if why := tlsconf.Reason(err, host); why != "" {
		return why
	}
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "remote error" && strings.Contains(op.Error(), "certificate") || hungUp(err) {
		if e.tls == nil || !e.hasCertificate() {
			return "it asks for a certificate of the client; the keys cert and key name one"
		}
		return "it does not accept our certificate, key cert"
	}
	switch {
	case errors.Is(err, nats.ErrSecureConnWanted):
		return "the server has no TLS, which the configuration asks for"
	case errors.Is(err, nats.ErrAuthExpired):
		return e.login.name() + " has expired"
	case errors.Is(err, nats.ErrAuthRevoked):
		return e.login.name() + " has been revoked"
	case errors.Is(err, nats.ErrAuthorization) && e.login.option == nil:
		return "it asks who we are; the keys are user and password, token, or creds"
	case errors.Is(err, nats.ErrAuthorization):
		return "it refuses " + e.login.name()
	}
	return ""
}

func (e target) hasCertificate() bool { return e.tls.GetClientCertificate != nil }

func (c credential) name() string {
	if c.what == "" {
		return "the login"
	}
	return c.what
}
