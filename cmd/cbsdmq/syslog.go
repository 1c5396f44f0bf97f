package main

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"log/syslog"
	"strings"
	"sync"
	"time"
)

const (
	syslogTag = "cbsdmq"
	// syslogMax is the longest text of a line in bytes: a datagram of FreeBSD has
	// 2048 as a rule.
	syslogMax = 1800
	// syslogAhead bounds the lines that wait for syslogd. It may hang, and the
	// agent must not hang with it.
	syslogAhead = 1024
	// syslogLast is how long the last lines have at the end.
	syslogLast = time.Second
)

// A syslogHandler hands log lines to the syslogd of this host. Lines that it does
// not take are dropped, and how many is said when it does again.
type syslogHandler struct {
	text slog.Handler // writes into s.buf
	s    *syslogSink
}

// A syslogSink is the one connection behind the handlers.
type syslogSink struct {
	dial func() (*syslog.Writer, error)

	mu     sync.Mutex
	buf    bytes.Buffer
	lost   int
	closed bool
	lines  chan syslogLine
	done   chan struct{}
}

type syslogLine struct {
	level slog.Level
	text  string
}

// openSyslog logs to syslogd, facility daemon. address is of its socket, "" the
// usual one: /var/run/log on FreeBSD, /dev/log on Linux. It need not be there yet.
func openSyslog(address string) poolLog {
	s := &syslogSink{
		lines: make(chan syslogLine, syslogAhead),
		done:  make(chan struct{}),
		dial:  func() (*syslog.Writer, error) { return dialSyslog(address) },
	}
	go s.run()
	text := slog.NewTextHandler(&s.buf, &slog.HandlerOptions{ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
		if len(groups) == 0 && (a.Key == slog.TimeKey || a.Key == slog.LevelKey) {
			return slog.Attr{} // syslog has its own
		}
		return a
	}})
	return poolLog{log: slog.New(syslogHandler{text, s}), Closer: s}
}

func dialSyslog(address string) (*syslog.Writer, error) {
	network := ""
	if address != "" {
		network = "unixgram"
	}
	return syslog.Dial(network, address, syslog.LOG_DAEMON|syslog.LOG_INFO, syslogTag)
}

func (h syslogHandler) Enabled(ctx context.Context, level slog.Level) bool {
	return h.text.Enabled(ctx, level)
}

func (h syslogHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return syslogHandler{h.text.WithAttrs(attrs), h.s}
}

func (h syslogHandler) WithGroup(name string) slog.Handler {
	return syslogHandler{h.text.WithGroup(name), h.s}
}

func (h syslogHandler) Handle(ctx context.Context, r slog.Record) error {
	s := h.s
	s.mu.Lock()
	defer s.mu.Unlock()
	s.buf.Reset()
	if err := h.text.Handle(ctx, r); err != nil || s.closed {
		return err
	}
	text := strings.TrimSuffix(s.buf.String(), "\n")
	if len(text) > syslogMax {
		text = strings.ToValidUTF8(text[:syslogMax], "") + "..."
	}
	if s.lost > 0 {
		select {
		case s.lines <- syslogLine{slog.LevelWarn, fmt.Sprintf("msg=%q lines=%d", "syslogd did not take lines of the log, they are lost", s.lost)}:
			s.lost = 0
		default:
		}
	}
	select {
	case s.lines <- syslogLine{r.Level, text}:
	default:
		s.lost++
	}
	return nil
}

// run hands the lines over. A write that failed is tried once more over a new
// connection, by package syslog.
func (s *syslogSink) run() {
	defer close(s.done)
	var w *syslog.Writer
	for line := range s.lines {
		err := error(nil)
		if w == nil {
			w, err = s.dial()
		}
		if err == nil {
			err = line.write(w)
		}
		if err != nil {
			s.mu.Lock()
			s.lost++
			s.mu.Unlock()
		}
	}
	if w != nil {
		w.Close()
	}
}

func (l syslogLine) write(w *syslog.Writer) error {
	switch {
	case l.level >= slog.LevelError:
		return w.Err(l.text)
	case l.level >= slog.LevelWarn:
		return w.Warning(l.text)
	case l.level >= slog.LevelInfo:
		return w.Info(l.text)
	}
	return w.Debug(l.text)
}

// Close hands over what waits, as far as syslogd takes it at once.
func (s *syslogSink) Close() error {
	s.mu.Lock()
	if !s.closed {
		s.closed = true
		close(s.lines)
	}
	s.mu.Unlock()
	select {
	case <-s.done:
	case <-time.After(syslogLast):
	}
	return nil
}
