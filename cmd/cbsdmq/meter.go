package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/cbsd/cbsdmq"
)

// A meter shows on stderr how far a job is: at a terminal a line that is
// overwritten, else a line each time that it is ten percent further or, where no
// percentage is known, after twice the time: so a log does not fill up.
type meter struct {
	w     io.Writer
	id    string
	tty   bool
	width int // of the bar on the terminal now, 0 where there is none
	begun time.Time

	tenth int           // the last that was printed
	next  time.Duration // when the next line without a percentage is due
	still bool          // that nothing moves was said
}

const (
	barWidth  = 20
	lineWidth = 78
	firstLine = 5 * time.Second
)

func newMeter(g *globals, id string) *meter {
	return &meter{w: g.stderr, id: id, tty: isTerminal(g.stderr), begun: time.Now(), next: firstLine}
}

// show takes in how far the job is.
func (m *meter) show(w *cbsdmq.Work) {
	if m.tty {
		m.clear()
		line := bar(w)
		m.width = len(line)
		_, _ = io.WriteString(m.w, line) // a terminal that is gone is noticed by others
		return
	}
	tenth := w.Percent / 10
	switch age := time.Since(m.begun); {
	case w.Still > 0 && !m.still:
	case tenth > m.tenth:
	case w.Percent == 0 && w.Still == 0 && age >= m.next:
		m.next = 2 * age
	default:
		m.still = m.still && w.Still > 0
		return
	}
	m.still, m.tenth = w.Still > 0, max(tenth, m.tenth)
	warn(m.w, "%s", describeWork(w))
}

// clear takes the bar away, so that something else can be printed.
func (m *meter) clear() {
	if m.width > 0 {
		_, _ = io.WriteString(m.w, "\r"+strings.Repeat(" ", m.width)+"\r")
		m.width = 0
	}
}

// bar is the line for a terminal: never wider than it.
func bar(w *cbsdmq.Work) string {
	line := ""
	if w.Percent > 0 {
		n := w.Percent * barWidth / 100
		line = "[" + strings.Repeat("#", n) + strings.Repeat(".", barWidth-n) + "] "
	}
	line += describeWork(w)
	if runes := []rune(line); len(runes) > lineWidth {
		line = string(runes[:lineWidth-3]) + "..."
	}
	return line
}

// describeWork says how far a job is: 40%, 1.2G of 3G, 2m left, downloading X.
func describeWork(w *cbsdmq.Work) string {
	var parts []string
	if w.Percent > 0 {
		parts = append(parts, fmt.Sprintf("%d%%", w.Percent))
	}
	switch {
	case w.Bytes > 0 && w.Of > 0:
		parts = append(parts, size(w.Bytes)+" of "+size(w.Of))
	case w.Bytes > 0:
		parts = append(parts, size(w.Bytes))
	}
	if w.Left > 0 {
		parts = append(parts, cbsdmq.Span(w.Left)+" left")
	}
	if w.Still > 0 {
		parts = append(parts, "nothing has moved for "+cbsdmq.Span(w.Still))
	}
	if w.What != "" {
		parts = append(parts, w.What)
	}
	return strings.Join(parts, ", ")
}

// isTerminal reports whether w is a terminal.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	if err != nil || info.Mode()&os.ModeCharDevice == 0 {
		return false
	}
	null, err := os.Stat(os.DevNull)
	return err != nil || !os.SameFile(info, null)
}

// A step is how far a job is as one JSON object.
type step struct {
	ID       string       `json:"id"`
	State    cbsdmq.State `json:"state"`
	Progress int          `json:"progress"`
	Work     *cbsdmq.Work `json:"work"`
}
