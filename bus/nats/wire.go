package nats

import (
	"context"
	"net"

	"github.com/nats-io/nats.go"

	"github.com/cbsd/cbsdmq/bus/internal/wire"
)

// socket is what nats.Connect dials with.
type socket struct {
	wire.Conn
	ctx     context.Context // of the dial
	process nats.InProcessConnProvider
}

// Dial is called by nats.Connect.
func (s *socket) Dial(network, addr string) (net.Conn, error) {
	var d net.Dialer
	return s.Opened(d.DialContext(s.ctx, network, addr))
}

// InProcessConn is called by nats.Connect in place of Dial.
func (s *socket) InProcessConn() (net.Conn, error) {
	return s.Opened(s.process.InProcessConn())
}
