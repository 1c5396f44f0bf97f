package nats

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
)

// serverLog passes on what the embedded server warns of. Everything else that
// it says is of no use to somebody who runs jobs.
type serverLog struct {
	log  *slog.Logger // nil = none
	what string       // that speaks

	hurt chan string // gets why the server cannot write, once until heal; nil: nobody wants to know

	mu     sync.Mutex
	ended  string // what it could not go on from
	broken bool   // hurt was told
}

// Debugf and the two after it are dropped.
func (l *serverLog) Debugf(string, ...any)  {}
func (l *serverLog) Tracef(string, ...any)  {}
func (l *serverLog) Noticef(string, ...any) {}

// Warnf logs, but for the advice to hash a token that only those have who can
// read the directory, and for what Member.Watch says better.
func (l *serverLog) Warnf(format string, v ...any) {
	text := fmt.Sprintf(format, v...)
	if l.cannotWrite(text) {
		return
	}
	for _, known := range []string{
		"Plaintext passwords detected",
		"Waiting for routing to be established",
		"JetStream has not established contact",
	} {
		if strings.HasPrefix(text, known) {
			return
		}
	}
	if l.log != nil {
		l.log.Warn(l.what+" warned", "err", text)
	}
}

// Errorf logs, but for what a server says at each message that it cannot store.
func (l *serverLog) Errorf(format string, v ...any) {
	text := fmt.Sprintf(format, v...)
	if l.cannotWrite(text) {
		return
	}
	if l.log != nil {
		l.log.Error(l.what+" failed", "err", text)
	}
}

// cannotWrite tells hurt if that is what a line says.
func (l *serverLog) cannotWrite(line string) bool {
	known := false
	for _, words := range []string{"ritical write error", "failed to store a msg", "disabling JetStream"} {
		known = known || strings.Contains(line, words)
	}
	if l.hurt == nil || !known {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.broken {
		l.broken = true
		select {
		case l.hurt <- line:
		default: // it is about to be told
		}
	}
	return true
}

// isHurt reports whether hurt was told, and heal not called since.
func (l *serverLog) isHurt() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.broken
}

// heal forgets what the server before said.
func (l *serverLog) heal() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.broken, l.ended = false, ""
}

// Fatalf keeps what it is told for the error of the start. In a server of its
// own it ends the process.
func (l *serverLog) Fatalf(format string, v ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended = fmt.Sprintf(format, v...)
}

func (l *serverLog) fatal() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended == "" {
		return nil
	}
	return errors.New(l.ended)
}
