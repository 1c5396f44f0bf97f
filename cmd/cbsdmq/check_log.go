package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/cbsd/cbsdmq/cbsd"
	"github.com/cbsd/cbsdmq/config"
)

const logHint = `the agent does not start without its log: name a file that it can write, or "log": "syslog"`

// checkLog says what would keep an agent from opening its log.
func (c *checker) checkLog(cfg *config.Config) {
	switch {
	case cfg.Log == syslogKind:
		c.checkSyslog()
	case isStandard(cfg.LogFile):
	default:
		if err := canAppend(cfg.LogFile); err != nil {
			c.say(cbsd.Fatal, "logfile", err.Error(), logHint)
		}
	}
}

// canAppend says what keeps us from writing to a file, which need not be there
// yet, nor its directory. It changes nothing.
func canAppend(name string) error {
	for at := name; ; at = filepath.Dir(at) {
		info, err := os.Stat(at)
		switch {
		case errors.Is(err, fs.ErrNotExist) && at != filepath.Dir(at):
			continue
		case err != nil:
			return err
		case at == name && info.IsDir():
			return &fs.PathError{Op: "write to", Path: at, Err: syscall.EISDIR}
		case at != name && !info.IsDir():
			return &fs.PathError{Op: "write below", Path: at, Err: syscall.ENOTDIR}
		}
		if err := unix.Access(at, unix.W_OK); err != nil {
			return &fs.PathError{Op: "write to", Path: at, Err: err}
		}
		return nil
	}
}

func (c *checker) checkSyslog() {
	w, err := dialSyslog("")
	if err != nil {
		c.say(cbsd.Warning, "log", fmt.Sprintf("syslogd is not there: %v", err), "start it; until then what the agent says is lost")
		return
	}
	w.Close()
	c.say(cbsd.OK, "log", "syslog, facility daemon", "")
}
