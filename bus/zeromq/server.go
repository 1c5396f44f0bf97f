package zeromq

import (
	"context"
	"log/slog"
	"net"
	"sync"
	"time"
)

const (
	peersMax       = 4096
	handshakeLimit = 10 * time.Second
)

// A server is a hub that listens.
type server struct {
	hub  *hub
	ln   net.Listener
	own  *curve // nil: NULL
	log  *slog.Logger
	quit chan struct{}
	wg   sync.WaitGroup

	mu    sync.Mutex
	conns map[net.Conn]struct{}
}

// listen starts a server. An error is the listener's.
func listen(ctx context.Context, addr, name string, own *curve, log *slog.Logger) (*server, error) {
	lc := net.ListenConfig{KeepAliveConfig: keepAlive}
	ln, err := lc.Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	s := &server{hub: newHub(name), ln: ln, own: own, log: log, quit: make(chan struct{}), conns: map[net.Conn]struct{}{}}
	s.wg.Go(s.accept)
	s.wg.Go(s.sweep)
	return s, nil
}

// keepAlive finds out about a peer whose host has gone within half a minute.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 5 * time.Second, Count: 3}

func (s *server) accept() {
	for pause := time.Millisecond; ; {
		c, err := s.ln.Accept()
		select {
		case <-s.quit:
			if err == nil {
				c.Close()
			}
			return
		default:
		}
		if err != nil { // no descriptors, say
			s.log.Warn("a client could not be taken", "err", err)
			select {
			case <-time.After(pause):
			case <-s.quit:
				return
			}
			pause = min(2*pause, time.Second)
			continue
		}
		pause = time.Millisecond
		if s.add(c) {
			s.wg.Go(func() { s.greet(c) })
		}
	}
}

// add keeps c until remove, unless there are too many or none are wanted.
func (s *server) add(c net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conns == nil || len(s.conns) >= peersMax {
		c.Close()
		return false
	}
	s.conns[c] = struct{}{}
	return true
}

func (s *server) remove(c net.Conn) {
	c.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
}

// greet serves one client.
func (s *server) greet(c net.Conn) {
	defer s.remove(c)
	c.SetDeadline(time.Now().Add(handshakeLimit))
	p := newPipe(c)
	client, err := p.handshake(true, s.own)
	if err != nil {
		s.log.Debug("a client was not let in", "client", c.RemoteAddr().String(), "err", err)
		return
	}
	c.SetDeadline(time.Time{})
	s.serve(p, s.own == nil || client == s.own.public)
}

// serve serves a peer that is known.
func (s *server) serve(p *pipe, trusted bool) {
	l := newLink(p, peerQueue)
	newPeer(s.hub, l, trusted).serve()
	<-l.done
}

// attach returns a connection from within this process.
func (s *server) attach() (net.Conn, error) {
	ours, theirs := net.Pipe()
	if !s.add(ours) {
		return nil, net.ErrClosed
	}
	s.wg.Go(func() {
		defer s.remove(ours)
		s.serve(newPipe(ours), true)
	})
	return theirs, nil
}

func (s *server) sweep() {
	t := time.NewTicker(sweepEvery)
	defer t.Stop()
	for {
		select {
		case now := <-t.C:
			s.hub.mu.Lock()
			s.hub.sweep(now)
			s.hub.mu.Unlock()
		case <-s.quit:
			return
		}
	}
}

// Close ends the server and its connections.
func (s *server) Close() error {
	close(s.quit)
	s.ln.Close()
	s.mu.Lock()
	for c := range s.conns {
		c.Close()
	}
	s.conns = nil
	s.mu.Unlock()
	s.wg.Wait()
	return nil
}
