package runner

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"syscall"
	"time"
)

// A ProtocolError is returned by Dial where the runner speaks another protocol.
type ProtocolError struct {
	Got, Want string
}

func (e *ProtocolError) Error() string {
	return fmt.Sprintf("runner speaks protocol %s, not %s", e.Got, e.Want)
}

// Dial connects to the runner of cfg.Dir. The error is ErrNoRunner where none
// serves it, and a *ProtocolError where it speaks another protocol.
func Dial(ctx context.Context, cfg Config) (*Client, error) {
	path, err := socketPath(cfg.Dir)
	if err != nil {
		return nil, err
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", path)
	if errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ECONNREFUSED) {
		return nil, fmt.Errorf("%w in %s", ErrNoRunner, cfg.Dir)
	}
	if err != nil {
		return nil, fmt.Errorf("connecting to the runner: %w", err)
	}
	conn.SetDeadline(time.Now().Add(helloTimeout))
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	c := &Client{
		conn: conn, waiting: make(map[uint64]chan *decoder), more: make(chan struct{}, 1),
		due: make(chan struct{}, 1), dead: make(chan struct{}), written: make(chan struct{}),
	}
	c.room = sync.NewCond(&c.mu)
	r := bufio.NewReaderSize(conn, 64<<10)
	err = c.hello(r)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("greeting the runner: %w", err)
	}
	conn.SetDeadline(time.Time{})
	go c.read(r)
	go c.write()
	return c, nil
}

func (c *Client) hello(r *bufio.Reader) error {
	if _, err := fmt.Fprintf(c.conn, "cbsdmq-agent %d\n", Protocol); err != nil {
		return err
	}
	line, err := r.ReadString('\n')
	if err != nil {
		return err
	}
	f := strings.Fields(line)
	if len(f) < 2 || f[0] != "cbsdmq-runner" {
		return fmt.Errorf("unexpected greeting %q", line)
	}
	if want := fmt.Sprint(Protocol); f[1] != want {
		return &ProtocolError{Got: f[1], Want: want}
	}
	if len(f) < 6 {
		return fmt.Errorf("unexpected greeting %q", line)
	}
	c.runnerID, c.boot, c.version = f[2], f[3], f[5]
	_, err = fmt.Sscan(f[4], &c.pid)
	return err
}
