package rabbitmq

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/cbsd/cbsdmq/bus"
	"github.com/cbsd/cbsdmq/internal/testserver"
)

// A connection that breaks during the handshake, wherever it does, is no refusal:
// a client tries again.
func TestHandshakeCut(t *testing.T) {
	server := testserver.RabbitMQ(t)
	refused := 0
	for after := range 8 { // answers of the server
		addr := cutAfter(t, server.Addr, after)
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		c, err := driver(t, bus.Config{URI: addr}).Dial(ctx)
		cancel()
		if err == nil {
			c.Close()
			break
		}
		refused++
		if p, ok := errors.AsType[*bus.Permanent](err); ok {
			t.Errorf("cut after %d answers: %v", after, p)
		}
		if errors.Is(err, amqp.ErrCredentials) != (after == 1) || errors.Is(err, amqp.ErrVhost) != (after == 2) {
			t.Errorf("cut after %d answers it says %v", after, err)
		}
	}
	if refused < 3 {
		t.Errorf("only %d answers of the server in the handshake", refused)
	}
}

// cutAfter returns the address of a proxy that ends each connection after the
// server has answered n times.
func cutAfter(t *testing.T, server string, n int) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			client, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer client.Close()
				s, err := net.Dial("tcp", server)
				if err != nil {
					return
				}
				defer s.Close()
				go func() { _, _ = io.Copy(s, client) }()
				buf := make([]byte, 32<<10)
				for range n {
					k, err := s.Read(buf)
					if err != nil {
						return
					}
					if _, err := client.Write(buf[:k]); err != nil {
						return
					}
				}
				// What the client says to the last answer is waited for.
				_, _ = s.Read(buf)
			}()
		}
	}()
	return ln.Addr().String()
}
