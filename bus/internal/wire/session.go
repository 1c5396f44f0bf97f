package wire

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/cbsd/cbsdmq/bus"
)

// closeTimeout bounds Close where the broker does not answer.
const closeTimeout = 1500 * time.Millisecond

// A Consumer is what a Session closes.
type Consumer interface {
	// Shut gives back what was not acknowledged.
	Shut(ctx context.Context) error
}

// A Session is the state of a driver's connection, which does not come back:
// whatever breaks it ends it for good, with the first reason.
type Session struct {
	dead chan struct{}
	wire *Conn

	mu        sync.Mutex
	err       error // why dead
	broken    func()
	closing   bool
	consumers map[Consumer]struct{}
}

// NewSession returns the state of a connection on w. The library must end by
// itself when w is killed.
func NewSession(w *Conn) *Session {
	return &Session{dead: make(chan struct{}), wire: w, consumers: map[Consumer]struct{}{}}
}

// Together is that of the Conn.
func (s *Session) Together(f func()) error { return s.wire.Together(f) }

// Dead is closed when the session has ended.
func (s *Session) Dead() <-chan struct{} { return s.dead }

// Fail ends the session for err, unless it has ended already, and returns why
// it has.
func (s *Session) Fail(err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		s.err = err
		close(s.dead)
		if s.broken != nil && !s.closing {
			s.broken()
		}
		go s.wire.Kill() // the library may hold what it needs to end
	}
	return s.err
}

// OnFail has f called when the session fails while nobody closes it, or now if
// it has failed.
func (s *Session) OnFail(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.broken = f
	if s.err != nil {
		f()
	}
}

// Failed returns why the session has ended, or nil.
func (s *Session) Failed() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// Usable returns why nothing new can be begun, or nil.
func (s *Session) Usable() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil && s.closing {
		return bus.ErrClosed
	}
	return s.err
}

// Guard makes a write that blocks end soon after ctx. To be stopped.
func (s *Session) Guard(ctx context.Context) (stop func() bool) {
	return context.AfterFunc(ctx, s.wire.Unblock)
}

// Call runs f, which waits for the broker without a limit. If ctx ends first, f
// goes on by itself, and late, if not nil, undoes it once it has succeeded.
func (s *Session) Call(ctx context.Context, doing string, f func() error, late func()) error {
	done, gone := make(chan error), make(chan struct{})
	defer close(gone)
	go func() {
		err := f()
		select {
		case done <- err:
		case <-gone:
			if late != nil && err == nil {
				late()
			}
		}
	}()
	select {
	case err := <-done:
		if dead := s.Failed(); err != nil && dead != nil {
			return dead
		}
		if err != nil {
			err = fmt.Errorf("%s: %w", doing, err)
		}
		return err
	case <-ctx.Done():
		return fmt.Errorf("%s: %w", doing, ctx.Err())
	case <-s.dead:
		return s.Failed()
	}
}

// Add has k closed with the session. It returns bus.ErrClosed if that has begun:
// then k is the caller's to close.
func (s *Session) Add(k Consumer) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		return bus.ErrClosed
	}
	s.consumers[k] = struct{}{}
	return nil
}

// Remove forgets k.
func (s *Session) Remove(k Consumer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.consumers, k)
}

// Close shuts the consumers, and then the connection by end, which may take as
// long as it likes: the socket is killed if it is too long.
func (s *Session) Close(end func()) {
	s.mu.Lock()
	s.closing = true
	consumers := make([]Consumer, 0, len(s.consumers))
	for k := range s.consumers {
		consumers = append(consumers, k)
	}
	s.mu.Unlock()
	defer time.AfterFunc(closeTimeout, s.wire.Kill).Stop()
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	var wg sync.WaitGroup
	for _, k := range consumers {
		wg.Go(func() { _ = k.Shut(ctx) })
	}
	wg.Wait()
	s.mu.Lock()
	if s.err == nil {
		s.err = bus.ErrClosed
		close(s.dead)
	}
	s.mu.Unlock()
	end()
}

// CloseConsumer is Close of a consumer: Shut, bounded.
func CloseConsumer(k Consumer) error {
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	return k.Shut(ctx)
}
