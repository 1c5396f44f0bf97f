// Package faultproxy is a TCP proxy for tests that breaks connections in the
// ways a network does.
package faultproxy

import (
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"
)

// A Proxy forwards from its own loopback address to a server. It ends with the
// test.
type Proxy struct {
	ln     net.Listener
	server string
	wg     sync.WaitGroup

	mu     sync.Mutex
	change *sync.Cond // mute, closed or a pair's orphan changed
	pairs  map[*pair]struct{}
	mute   bool // nothing comes back from the server
	deaf   bool // nothing gets to the server
	delay  time.Duration
	closed bool
}

// pair is one connection through the proxy.
type pair struct {
	client, server *net.TCPConn

	// Under Proxy.mu.
	hole   bool // something that the client said was thrown away
	orphan bool // the server has not been told that the client is gone
}

func (p *pair) close() {
	p.client.SetLinger(0) // a reset, not an orderly end
	p.client.Close()
	p.server.Close()
}

// Start starts a proxy to server.
func Start(t testing.TB, server string) *Proxy {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("starting the proxy: %v", err)
	}
	p := &Proxy{ln: ln, server: server, pairs: map[*pair]struct{}{}}
	p.change = sync.NewCond(&p.mu)
	p.wg.Go(p.accept)
	t.Cleanup(func() {
		p.mu.Lock()
		p.closed = true
		p.change.Broadcast()
		p.mu.Unlock()
		p.ln.Close()
		p.Cut()
		p.wg.Wait()
	})
	return p
}

// Addr is where clients connect.
func (p *Proxy) Addr() string { return p.ln.Addr().String() }

// Cut resets all connections. New ones are taken.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.pairs {
		c.close()
	}
}

// Part resets the client's side of all connections. To the server they look as
// before, until Bury.
func (p *Proxy) Part() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.pairs {
		c.orphan = true
		c.client.SetLinger(0)
		c.client.Close()
	}
}

// Bury ends the connections that Part has left.
func (p *Proxy) Bury() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.pairs {
		if c.orphan {
			c.orphan = false
			c.close()
		}
	}
	p.change.Broadcast()
}

// Mute holds back everything that the server says: its word is lost if Cut
// follows, and late if Mute(false) does.
func (p *Proxy) Mute(on bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mute = on
	p.change.Broadcast()
}

// Deaf throws away everything that clients say, for good. When it ends, the
// connections that lost something are reset: no network delivers what follows.
func (p *Proxy) Deaf(on bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.deaf = on
	for c := range p.pairs {
		if !on && c.hole {
			c.close()
		}
	}
}

// Swallowed reports whether something was thrown away on a connection that is
// still there.
func (p *Proxy) Swallowed() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.pairs {
		if c.hole {
			return true
		}
	}
	return false
}

// Delay holds back each piece of what the server says for d.
func (p *Proxy) Delay(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.delay = d
}

// HalfClose ends the direction from the server to the client of all
// connections: the client reads the end of the stream, but can go on sending.
func (p *Proxy) HalfClose() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.pairs {
		c.client.CloseWrite()
	}
}

func (p *Proxy) accept() {
	for {
		client, err := p.ln.Accept()
		if err != nil {
			return
		}
		p.wg.Go(func() { p.serve(client.(*net.TCPConn)) })
	}
}

func (p *Proxy) serve(client *net.TCPConn) {
	p.mu.Lock()
	refuse := p.closed
	p.mu.Unlock()
	var server net.Conn
	err := io.ErrClosedPipe
	if !refuse {
		server, err = net.Dial("tcp", p.server)
	}
	if err != nil {
		client.SetLinger(0)
		client.Close()
		return
	}
	c := &pair{client: client, server: server.(*net.TCPConn)}
	p.mu.Lock()
	p.pairs[c] = struct{}{}
	if p.closed {
		c.close()
	}
	p.mu.Unlock()
	var up sync.WaitGroup
	up.Go(func() {
		io.Copy(ear{p, c}, c.client)
		p.mu.Lock()
		for c.orphan && !p.closed {
			p.change.Wait()
		}
		p.mu.Unlock()
		c.server.CloseWrite()
	})
	p.back(c)
	up.Wait()
	p.mu.Lock()
	delete(p.pairs, c)
	c.close()
	p.mu.Unlock()
}

// ear is a server's, which can be deaf.
type ear struct {
	p *Proxy
	*pair
}

func (e ear) Write(b []byte) (int, error) {
	e.p.mu.Lock()
	deaf := e.p.deaf
	e.hole = e.hole || deaf
	e.p.mu.Unlock()
	if deaf {
		return len(b), nil
	}
	return e.server.Write(b)
}

// parted reports whether Part has ended the client's side, and Bury not the other.
func (p *Proxy) parted(c *pair) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return c.orphan
}

// back copies from the server to the client.
func (p *Proxy) back(c *pair) {
	buf := make([]byte, 32<<10)
	for {
		n, err := c.server.Read(buf)
		p.mu.Lock()
		for p.mute && !p.closed && err == nil {
			p.change.Wait()
		}
		delay := p.delay
		p.mu.Unlock()
		if delay > 0 && n > 0 {
			time.Sleep(delay)
		}
		_, werr := c.client.Write(buf[:n])
		if err == nil && werr != nil && p.parted(c) {
			continue // the server is not to notice
		}
		if err != nil || werr != nil {
			// The other direction ends with the client's own end.
			c.client.CloseWrite()
			if err != nil && !errors.Is(err, io.EOF) || werr != nil {
				c.close()
			}
			return
		}
	}
}
