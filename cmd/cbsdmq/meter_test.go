package main

import (
	"bytes"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cbsd/cbsdmq"
)

// It is told how long a job has run, and nothing of how long this takes.
func TestMeterLines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		m := newMeter(&globals{stderr: &out}, "pool1/1")
		for percent := range 100 {
			m.show(&cbsdmq.Work{Percent: percent, Bytes: int64(percent) << 20, Of: 100 << 20, Left: 2 * (100 - percent), What: "writing x"})
		}
		if n := strings.Count(out.String(), "\n"); n != 9 {
			t.Errorf("%d lines:\n%s", n, &out)
		}
		if line, _, _ := strings.Cut(out.String(), "\n"); line != "cbsdmq: 10%, 10M of 100M, 3m left, writing x" {
			t.Errorf("the first: %s", line)
		}
		out.Reset()
		for range 3 {
			m.show(&cbsdmq.Work{Percent: 99, Still: 130})
		}
		if out.String() != "cbsdmq: 99%, nothing has moved for 2m\n" {
			t.Errorf("it stands still: %q", &out)
		}
		out.Reset()
		m = newMeter(&globals{stderr: &out}, "pool1/1")
		for _, age := range []time.Duration{time.Second, 6 * time.Second, 7 * time.Second, 11 * time.Second, 13 * time.Second, 100 * time.Second} {
			m.begun = time.Now().Add(-age)
			m.show(&cbsdmq.Work{Bytes: 5000})
		}
		if n := strings.Count(out.String(), "\n"); n != 3 {
			t.Errorf("without a percentage %d lines:\n%s", n, &out)
		}
	})
}

func TestMeterBar(t *testing.T) {
	var out bytes.Buffer
	m := &meter{w: &out, tty: true}
	m.show(&cbsdmq.Work{Percent: 50, What: strings.Repeat("ö", 100)})
	line := out.String()
	if !strings.HasPrefix(line, "[##########..........] 50%, ") || len([]rune(line)) != lineWidth {
		t.Errorf("got %q", line)
	}
	out.Reset()
	m.clear()
	if s := out.String(); strings.Trim(s, "\r ") != "" || len(s) < lineWidth {
		t.Errorf("cleared by %q", s)
	}
	out.Reset()
	m.clear()
	if out.Len() > 0 {
		t.Errorf("cleared twice: %q", &out)
	}
}
