package main

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/cbsd/cbsdmq"
	"github.com/cbsd/cbsdmq/config"
)

// A poolLog is the log of one pool; pools with the same logfile share it.
type poolLog struct {
	log *slog.Logger
	io.Closer
}

func openLogs(cfgs []*config.Config) ([]poolLog, error) {
	files := make(map[string]poolLog)
	var logs []poolLog
	for _, c := range cfgs {
		file := c.LogFile
		if c.Log == syslogKind {
			file = syslogKind // no path
		}
		l, ok := files[file]
		if ok {
			l.Closer = io.NopCloser(nil)
		} else {
			var err error
			if l, err = openLog(file); err != nil {
				closeLogs(logs)
				return nil, fmt.Errorf("%s: %w", c.File, err)
			}
			files[file] = l
		}
		logs = append(logs, l)
	}
	return logs, nil
}

func closeLogs(logs []poolLog) {
	for _, l := range logs {
		l.Close()
	}
}

// syslogKind is what the key log holds for syslogd.
const syslogKind = "syslog"

// isStandard reports whether a logfile is one of the streams that we have anyway.
func isStandard(name string) bool {
	return name == "" || name == "-" || name == "/dev/stdout" || name == "/dev/stderr"
}

func openLog(name string) (poolLog, error) {
	var w io.Writer
	var c io.Closer = io.NopCloser(nil)
	switch {
	case name == syslogKind:
		return openSyslog(""), nil
	case name == "/dev/stderr":
		w = os.Stderr
	case isStandard(name):
		w = os.Stdout
	default:
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return poolLog{}, cbsdmq.Errorf(cbsdmq.CodeBadConfig, "logfile", "%w", err).WithHint(logHint)
		}
		f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
		if err != nil {
			return poolLog{}, cbsdmq.Errorf(cbsdmq.CodeBadConfig, "logfile", "%w", err).WithHint(logHint)
		}
		w, c = f, f
	}
	return poolLog{log: slog.New(slog.NewTextHandler(w, nil)), Closer: c}, nil
}
