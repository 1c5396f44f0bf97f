package cbsdmq

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// A member is one key of a JSON object with its value, undecoded.
type member struct {
	name  string
	key   string // name folded as encoding/json matches keys to fields
	value json.RawMessage
}

func (m member) into(field string, v any) error {
	if err := json.Unmarshal(m.value, v); err != nil {
		return refusedf(field, "%s", typeReason(err))
	}
	return nil
}

// members returns the members of the object raw in their order; with an error
// those before it. encoding/json would keep the last of two equal keys and
// match keys without regard to case, so that a reader and a filter in front of
// it could see different jobs: equal keys are refused, but for an argument with
// the same value.
func members(field string, raw []byte) ([]member, error) {
	if json.Valid(raw) {
		return splitMembers(field, raw)
	}
	return decodeMembers(field, raw) // knows what is wrong
}

// decodeMembers is members for JSON that may be anything.
func decodeMembers(field string, raw []byte) ([]member, error) {
	dec := json.NewDecoder(bytes.NewReader(raw))
	notJSON := func(field string, err error) error {
		return refusedf(field, "not JSON: %s", jsonReason(err))
	}
	tok, err := dec.Token()
	if err != nil {
		return nil, notJSON(field, err)
	}
	if tok != json.Delim('{') {
		return nil, refusedf(field, "not a JSON object")
	}
	var out []member
	seen := make(map[string]int) // places in out
	for dec.More() {
		tok, err := dec.Token()
		if err != nil {
			return out, notJSON(field, err)
		}
		m := member{name: tok.(string)}
		m.key = fold(m.name)
		if err := dec.Decode(&m.value); err != nil {
			return out, notJSON(join(field, m.name), err)
		}
		if i, ok := seen[m.key]; ok {
			if !sameArg(field, out[i], m) {
				return out, errTwice(field, m.name)
			}
			continue
		}
		seen[m.key] = len(out)
		out = append(out, m)
	}
	if _, err := dec.Token(); err != nil {
		return out, notJSON(field, err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return out, refusedf(field, "something follows after the JSON object")
	}
	return out, nil
}

// splitMembers is members for valid JSON. It takes a fifth of the time of
// decodeMembers, which for an agent is a tenth of its work on a job.
func splitMembers(field string, raw []byte) ([]member, error) {
	raw = bytes.Trim(raw, space)
	if raw[0] != '{' {
		return nil, refusedf(field, "not a JSON object")
	}
	out := make([]member, 0, 8)
	for raw = bytes.TrimLeft(raw[1:], space); raw[0] != '}'; {
		n := valueLen(raw)
		name, err := unquote(raw[:n])
		if err != nil {
			return out, refusedf(field, "%w", err)
		}
		raw = bytes.TrimLeft(raw[n:], space)
		raw = bytes.TrimLeft(raw[1:], space) // the colon
		n = valueLen(raw)
		m := member{name: name, key: fold(name), value: raw[:n:n]}
		at := slices.IndexFunc(out, func(o member) bool { return o.key == m.key })
		switch {
		case at < 0:
			out = append(out, m)
		case !sameArg(field, out[at], m):
			return out, errTwice(field, name)
		}
		raw = bytes.TrimLeft(raw[n:], space)
		if raw[0] == ',' {
			raw = bytes.TrimLeft(raw[1:], space)
		}
	}
	return out, nil
}

// sameArg reports whether b only says again what a says: cbsd-mq-api sends the
// argument host_hostname twice, with one value.
func sameArg(field string, a, b member) bool {
	return field == fieldArgs && a.name == b.name && bytes.Equal(a.value, b.value)
}

func errTwice(field, name string) error {
	return refusedf(join(field, name), "the key comes twice").WithHint("keep one of them")
}

const space = " \t\r\n" // of JSON

// valueLen is the length of the value that raw, which is valid, begins with.
func valueLen(raw []byte) int {
	depth := 0
	for i := 0; i < len(raw); i++ {
		switch raw[i] {
		case '"':
			for i++; raw[i] != '"'; i++ {
				if raw[i] == '\\' {
					i++
				}
			}
			if depth == 0 {
				return i + 1
			}
		case '{', '[':
			depth++
		case '}', ']':
			if depth == 0 {
				return i
			}
			if depth--; depth == 0 {
				return i + 1
			}
		case ',', ' ', '\t', '\r', '\n':
			if depth == 0 {
				return i
			}
		}
	}
	return len(raw)
}

// unquote returns the text of a JSON string.
func unquote(quoted []byte) (s string, err error) {
	text := quoted[1 : len(quoted)-1]
	if bytes.IndexByte(text, '\\') < 0 && utf8.Valid(text) {
		return string(text), nil
	}
	err = json.Unmarshal(quoted, &s)
	return s, err
}

// checkText refuses what encoding/json would quietly replace by U+FFFD: bytes
// that are not UTF-8 and halves of surrogate pairs.
func checkText(body []byte) error {
	if bytes.HasPrefix(body, []byte("\xef\xbb\xbf")) {
		return refusedf("", "not JSON: it begins with a byte order mark").WithHint("save the text as UTF-8 without one")
	}
	if !utf8.Valid(body) {
		return refusedf("", "not valid UTF-8").WithHint("send text in UTF-8")
	}
	for i := 0; i < len(body)-1; i++ {
		if body[i] != '\\' {
			continue
		}
		i++ // the escaped character, or u
		if body[i] != 'u' {
			continue
		}
		switch unit := codeUnit(body[i-1:]); {
		case unit >= 0xdc00 && unit < 0xe000:
			return errSurrogate()
		case unit >= 0xd800 && unit < 0xdc00:
			low := codeUnit(body[min(i+5, len(body)):])
			if low < 0xdc00 || low >= 0xe000 {
				return errSurrogate()
			}
			i += 6 // the second half
		}
	}
	return nil
}

// codeUnit is the value of the \uXXXX that b begins with, -1 where it does not.
func codeUnit(b []byte) int {
	if len(b) < 6 || b[0] != '\\' || b[1] != 'u' {
		return -1
	}
	n, err := strconv.ParseUint(string(b[2:6]), 16, 16)
	if err != nil {
		return -1
	}
	return int(n)
}

func errSurrogate() error {
	return refusedf("", "half a surrogate pair is not a character").WithHint("send text in UTF-8, or both halves")
}

// fold maps s as encoding/json does before it compares a key with the name of
// a field: each rune to the least of those that differ only in case.
func fold(s string) string {
	if isASCII(s) {
		return strings.ToUpper(s)
	}
	return strings.Map(func(r rune) rune {
		for {
			next := unicode.SimpleFold(r)
			if next <= r {
				return next
			}
			r = next
		}
	}, s)
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// join names a member of field in an error. The name is the sender's: long or
// unprintable ones are cut and quoted.
func join(field, name string) string {
	const most = 64
	shown := name
	if len(shown) > most {
		shown = shown[:most] + "..."
	}
	if strings.ContainsFunc(shown, func(r rune) bool { return !unicode.IsPrint(r) }) {
		shown = strconv.Quote(shown)
	}
	if field == "" {
		return shown
	}
	return field + "." + shown
}

func refusedf(field, format string, args ...any) *Error {
	return Errorf(CodeRefused, field, format, args...)
}

func jsonReason(err error) string {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return "it ends in the middle"
	}
	if e, ok := errors.AsType[*json.SyntaxError](err); ok {
		return e.Error() // without the offset: it counts from the value, not from the body
	}
	return err.Error()
}

func typeField(err error) string {
	if e, ok := errors.AsType[*json.UnmarshalTypeError](err); ok && e.Field != "" {
		return "." + e.Field
	}
	return ""
}

func typeReason(err error) string {
	if e, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		return fmt.Sprintf("wants %s, not a JSON %s", typeWords(e.Type), e.Value)
	}
	return err.Error()
}

// typeWords says what a field wants to people who do not know Go.
func typeWords(t reflect.Type) string {
	switch t.Kind() {
	case reflect.String:
		return "a text"
	case reflect.Bool:
		return "true or false"
	case reflect.Int, reflect.Int64:
		return "a whole number"
	case reflect.Uint64:
		return "a whole number from 0 to 18446744073709551615"
	case reflect.Slice:
		return "a list"
	}
	return t.String()
}

func appendJSON(b []byte, v any) ([]byte, error) {
	p, err := json.Marshal(v)
	return append(b, p...), err
}

// appendString appends s as JSON. It refuses what the reader would not get as
// it was.
func appendString(b []byte, field, s string) ([]byte, error) {
	if !utf8.ValidString(s) {
		return b, refusedf(field, "not valid UTF-8")
	}
	return appendJSON(b, s)
}
