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
	// lines of stdout that follow, or come before, whatever happened, and those that
	// go on with advice after the one that says what is wrong
	chatter = regexp.MustCompile(`^(\w+ done in |Use cbsd \w+ |PID: |Send SIGTERM to |For attach |V(NC|RDP) |Waiting for PID|Boot device|Please use for debug: ` +
		`|St(art|opp)ing jail: |\[debug\]|Resolution: |Looks like .* is empty|Temporary boot device: |vm_iso_path: |media found: |machine_accel |(bhyve|jail) renice: |Cloning\.|Rename\.` +
		`|Or register \(via |via env\(1\) or |See more details about CRC: ` +
		`|Processed ISO size: |Bad ISO (count|list): |Exporting \(with |environment flat size: |exported image file: )`)
	// lines of stderr that CBSD has to say on any day, on Linux above all
	noise = regexp.MustCompile(`^(sysctl: |\[: |found CBSDfile|Terminated$|\.\.\.|Try ')`)
)

// said returns what a command has said about itself at last: on stdout, where
// CBSD prints its errors, else on stderr. A status above 1 is that of a shell
// that gave up, which says so on stderr. Lines that come whatever happened
// ("bstart done in 11 seconds") are passed over.
func said(exit Exit, tail []byte) string {
	line, err := lastLine(tail, chatter), lastLine(exit.Stderr, noise)
	if line == "" || exit.Code > 1 && exit.Signal == 0 && err != "" {
		return err
	}
	return line
}

// lastLine returns the last line of text that does not match skip, or "".
func lastLine(text []byte, skip *regexp.Regexp) string {
	text = text[max(0, len(text)-8<<10):]
	for len(text) > 0 {
		i := max(bytes.LastIndexByte(text, '\n'), bytes.LastIndexByte(text, '\r'))
		line := clean(text[i+1:])
		text = text[:max(i, 0)]
		if line != "" && !skip.MatchString(line) {
			return line
		}
	}
	return ""
}

// anything matches no line.
var anything = regexp.MustCompile(`$^`)

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
