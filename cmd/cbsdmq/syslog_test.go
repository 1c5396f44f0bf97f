package main

import (
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/cbsd/cbsdmq/config"
	"github.com/cbsd/cbsdmq/internal/testserver"
)

// syslogd is a socket of our own in the place of /var/run/log and /dev/log.
func syslogd(t *testing.T, name string) *net.UnixConn {
	t.Helper()
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func nextLine(t *testing.T, c *net.UnixConn) string {
	t.Helper()
	b := make([]byte, 8192)
	if err := c.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	n, err := c.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	return string(b[:n])
}

func TestSyslog(t *testing.T) {
	name := filepath.Join(t.TempDir(), "log")
	c := syslogd(t, name)
	l := openSyslog(name)
	defer l.Close()
	log := l.log.With("pool", "pool1")
	const daemon = 3 << 3
	stamp := `[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d `
	for _, tt := range []struct {
		say      func()
		severity int
		text     string
	}{
		{func() { log.Info("job ended", "job", "pool1/17", "sender", "a b\n<0>evil", "took", 2*time.Second) }, 6, `msg="job ended" pool=pool1 job=pool1/17 sender="a b\n<0>evil" took=2s`},
		{func() { log.Warn("broker out of reach", "err", os.ErrNotExist) }, 4, `msg="broker out of reach" pool=pool1 err="file does not exist"`},
		{func() { log.Error("no runner") }, 3, `msg="no runner" pool=pool1`},
	} {
		tt.say()
		want := fmt.Sprintf(`^<%d>%scbsdmq\[%d\]: %s\n$`, daemon|tt.severity, stamp, os.Getpid(), regexp.QuoteMeta(tt.text))
		if got := nextLine(t, c); !regexp.MustCompile(want).MatchString(got) {
			t.Errorf("%q, want %s", got, want)
		}
	}
	log.Debug("too much to say")
	log.Info(strings.Repeat("ü", 3000))
	if got := nextLine(t, c); len(got) > 2048 || !strings.HasSuffix(got, "...\n") {
		t.Errorf("%d bytes, %q", len(got), got[len(got)-20:])
	}
}

// A syslogd that is away costs lines and nothing else: one that hangs does not
// hang the agent.
func TestSyslogAway(t *testing.T) {
	name := filepath.Join(t.TempDir(), "log")
	l := openSyslog(name)
	defer l.Close()
	sink := l.log.Handler().(syslogHandler).s
	lost := func() int { sink.mu.Lock(); defer sink.mu.Unlock(); return sink.lost }
	l.log.Info("before")
	testserver.Eventually(t, 20*time.Second, func() error {
		if n := lost(); n != 1 {
			return fmt.Errorf("%d lines are lost", n)
		}
		return nil
	})
	c := syslogd(t, name)
	l.log.Info("after")
	if got := nextLine(t, c); !strings.Contains(got, `msg="syslogd did not take lines of the log, they are lost" lines=1`) {
		t.Errorf("%q", got)
	}
	if got := nextLine(t, c); !strings.Contains(got, "msg=after") {
		t.Errorf("%q", got)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 10 * syslogAhead { // nobody reads
			l.log.Info("many")
		}
	}()
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		t.Fatal("who logs hangs with syslogd")
	}
	if lost() == 0 {
		t.Error("nothing is lost, and nobody has read it")
	}
}

// Pools share the syslog, and a file beside it is another log.
func TestLogsOfPools(t *testing.T) {
	pool := func(log, file string) *config.Config {
		c := config.Default()
		c.Log, c.LogFile = log, file
		return c
	}
	file := filepath.Join(t.TempDir(), "pool3.log")
	logs, err := openLogs([]*config.Config{pool("syslog", "/dev/stdout"), pool("syslog", file), pool("", file)})
	if err != nil {
		t.Fatal(err)
	}
	defer closeLogs(logs)
	if logs[0].log != logs[1].log || logs[1].log == logs[2].log {
		t.Error("pools with syslog do not share it, or another one does")
	}
	if _, is := logs[2].log.Handler().(*slog.TextHandler); !is {
		t.Errorf("%T", logs[2].log.Handler())
	}
}
