package cbsd

import (
	"bytes"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"
)

// reasonMax bounds a reason in bytes.
const reasonMax = 400

var (
	escapes = regexp.MustCompile(`\x1b\[[0-9;?]*[A-Za-z]`)
	chatter = regexp.MustCompile(`^(\w+ done in |Use cbsd \w+ |PID: |Send SIGTERM to |For attach |VNC |Waiting for PID|Boot device|Please use for debug: |St(art|opp)ing jail: )`)
)

// lastLine returns the last line of stdout that says something, where CBSD
// prints its errors. Lines that follow whatever happened ("bstart done in 11
// seconds") are passed over, unless there is nothing else.
func lastLine(tail []byte) string {
	tail = tail[max(0, len(tail)-8<<10):]
	fallback := ""
	for len(tail) > 0 {
		i := max(bytes.LastIndexByte(tail, '\n'), bytes.LastIndexByte(tail, '\r'))
		line := clean(tail[i+1:])
		tail = tail[:max(i, 0)]
		switch {
		case line == "":
		case !chatter.MatchString(line):
			return line
		case fallback == "":
			fallback = line
		}
	}
	return fallback
}

// clean makes text of the output of a command for a reason: one line, no
// control characters, bounded.
func clean(line []byte) string {
	s := escapes.ReplaceAllString(string(line), "")
	s = strings.Map(func(r rune) rune {
		if r == utf8.RuneError || unicode.IsControl(r) {
			return -1
		}
		return r
	}, s)
	return clip(strings.TrimSpace(s), reasonMax)
}

// clip cuts s to at most n bytes between characters.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	n -= len("...")
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + "..."
}

func join(a, b string) string {
	if a == "" {
		return b
	}
	return clip(a+"; "+b, reasonMax)
}
