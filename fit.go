package cbsdmq

import (
	"encoding/json"
	"unicode/utf8"
)

// runeSize is how many bytes encoding/json writes for c, which takes size bytes
// in UTF-8. A byte that is not UTF-8 counts as the U+FFFD that SetOutput makes
// of it.
func runeSize(c rune, size int) int {
	switch {
	case c == utf8.RuneError:
		return 3
	case c == '"', c == '\\', c == '\n', c == '\r', c == '\t', c == '\b', c == '\f':
		return 2
	case c < ' ', c == '<', c == '>', c == '&', c == '\u2028', c == '\u2029':
		return 6
	}
	return size
}

// stringSize is how many bytes encoding/json writes for s, without its quotes.
func stringSize(s string) int {
	n := 0
	for _, c := range s {
		n += runeSize(c, utf8.RuneLen(c))
	}
	return n
}

// rawSize is how many bytes the member Raw takes with n bytes.
func rawSize(n int) int { return len(`,"Raw":""`) + (n+2)/3*4 }

// fitTail returns the longest end of p that takes at most room bytes in a
// reply, as Message and, where it is not valid UTF-8, again as Raw.
func fitTail(p []byte, room int) []byte {
	return p[len(p)-fits(p, room, utf8.DecodeLastRune, func(p []byte, n int) []byte { return p[:len(p)-n] }):]
}

// fitHead returns the longest beginning of p that takes at most room bytes.
func fitHead(p []byte, room int) []byte {
	return p[:fits(p, room, utf8.DecodeRune, func(p []byte, n int) []byte { return p[n:] })]
}

func fits(p []byte, room int, next func([]byte) (rune, int), drop func([]byte, int) []byte) int {
	text, n, raw := 0, 0, false
	for len(p) > 0 {
		c, size := next(p)
		raw = raw || c == utf8.RuneError && size == 1
		text += runeSize(c, size)
		if text > room || raw && text+rawSize(n+size) > room {
			break
		}
		n += size
		p = drop(p, size)
	}
	return n
}

// cutText returns the longest beginning of s that takes at most room bytes,
// with "..." where something was cut.
func cutText(s string, room int) string {
	if stringSize(s) <= room {
		return s
	}
	if room < 3 {
		return ""
	}
	return string([]rune(string(fitHead([]byte(s), room-3)))) + "..."
}

// wholeRunes returns p without the first bytes of a character at its end, unless
// there is nothing else.
func wholeRunes(p []byte) []byte {
	for i := len(p) - 1; i > 0 && i >= len(p)-utf8.UTFMax+1; i-- {
		if utf8.RuneStart(p[i]) {
			if !utf8.FullRune(p[i:]) {
				return p[:i]
			}
			break
		}
	}
	return p
}

func jsonSize(v any) int {
	p, err := json.Marshal(v)
	if err != nil {
		return 0 // not with our types: they hold nothing that JSON cannot
	}
	return len(p)
}
