package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"reflect"
	"strings"
	"syscall"

	"github.com/cbsd/cbsdmq"
	"github.com/cbsd/cbsdmq/bus"
)

// fileMax bounds what is read: a configuration has a few kilobytes.
const fileMax = 1 << 20

// A Warning is something in the file that does not keep it from being used.
type Warning struct {
	File         string
	Line, Column int // 0 where it is about the whole file
	Text         string
}

// String begins with the place, as compilers write it.
func (w Warning) String() string { return position{w.Line, w.Column}.in(w.File) + ": " + w.Text }

type position struct{ line, column int }

func (p position) in(file string) string {
	if p.line == 0 {
		return file
	}
	return fmt.Sprintf("%s:%d:%d", file, p.line, p.column)
}

// Load reads the configuration file at path, with defaults for what it does not
// say. It does not judge the values: that is Validate, after ApplyFlags.
//
// Every *cbsdmq.Error in its error has CodeBadConfig; their texts begin with
// file, line and column and never hold a value of the file.
func Load(path string) (*Config, []Warning, error) {
	text, info, err := read(path)
	if err != nil {
		return nil, nil, unreadable(err)
	}
	c, warnings, err := Parse(path, text)
	if err != nil {
		return nil, warnings, err
	}
	if info.Mode().IsRegular() {
		warn := func(text string) {
			warnings = append(warnings, Warning{File: path, Text: fmt.Sprintf(text, info.Mode().Perm(), path)})
		}
		if info.Mode().Perm()&0o004 != 0 && c.secret() {
			warn("everybody can read the password in it (mode %04o): chmod 600 %s")
		}
		if info.Mode().Perm()&0o002 != 0 {
			warn("everybody can write to it, and so say what an agent runs (mode %04o): chmod o-w %s")
		}
	}
	return c, warnings, nil
}

// read reads at most one byte more than a configuration may have.
func read(path string) ([]byte, fs.FileInfo, error) {
	// A pipe without a writer would never be opened.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, nil, err
	}
	text, err := io.ReadAll(io.LimitReader(f, fileMax+1))
	return text, info, err
}

// unreadable is err about the file with the way out.
func unreadable(err error) *cbsdmq.Error {
	e := badConfig("", "%w", err)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		e.Hint = "`cbsdmq check --example` prints a file to begin with"
	case errors.Is(err, syscall.EISDIR):
		e.Hint = "name a file in it"
	case errors.Is(err, fs.ErrPermission):
		e.Hint = "only those who may read it can use it: often root"
	}
	return e
}

// Parse is Load of a text; file names it in warnings and errors.
func Parse(file string, text []byte) (*Config, []Warning, error) {
	if len(text) > fileMax {
		return nil, nil, fmt.Errorf("%s: %w", file, badConfig("", "longer than %d bytes", fileMax).
			WithHint("a configuration has a few kilobytes: is this the right file?"))
	}
	c := Default()
	c.File = file
	d := &decoder{file: file, text: text, given: c.given}
	body := bytes.TrimPrefix(text, []byte("\xef\xbb\xbf"))
	d.base = len(text) - len(body)
	if err := d.syntax(body); err != nil {
		return nil, nil, err
	}
	d.object("", body, d.base, func(key string, p place) {
		if kind := Kind(key); builtIn(kind) {
			var s bus.Config
			d.fields(strings.ToLower(key), p.value, p.valueAt, &s)
			c.Sections[strings.ToLower(key)] = s
			d.given[strings.ToLower(key)] = d.at(p.keyAt)
			return
		}
		d.field("", key, p, c)
	})
	if len(d.errs) > 0 {
		return nil, d.warnings, errors.Join(d.errs...)
	}
	c.complete()
	return c, d.warnings, nil
}

// decoder walks a file that is valid JSON, with the places of its keys.
type decoder struct {
	file     string
	text     []byte
	base     int
	given    map[string]position
	warnings []Warning
	errs     []error
}

// place is where a member lies in the text.
type place struct {
	keyAt, valueAt int
	value          json.RawMessage
}

func (d *decoder) syntax(body []byte) error {
	var whole json.RawMessage
	err := json.Unmarshal(body, &whole)
	if e, ok := errors.AsType[*json.SyntaxError](err); ok {
		at := max(int(e.Offset)-1, 0)
		if strings.HasPrefix(e.Error(), "unexpected end") {
			at = len(body)
		}
		return d.errorAt(d.base+at, badConfig("", "not JSON: %s", e).WithHint("%s", syntaxHint(body[:min(at+1, len(body))])))
	}
	if err == nil && (len(whole) == 0 || bytes.TrimSpace(whole)[0] != '{') {
		return d.errorAt(d.base, badConfig("", "not a JSON object").WithHint("a configuration begins with {"))
	}
	return err
}

// syntaxHint says what is meant by a text that is JSON up to its last byte.
func syntaxHint(body []byte) string {
	switch {
	case bytes.HasSuffix(body, []byte("#")), bytes.HasSuffix(body, []byte("/")):
		return `JSON has no comments: write a key that begins with #, as in "# why": "because"; it is skipped`
	case bytes.HasPrefix(body, []byte("\xff")), bytes.HasPrefix(body, []byte("\xfe")):
		return "it is not in UTF-8: save it so"
	}
	return "often a comma too many or too few"
}

// object calls member for every key of the object raw, which lies at offset in
// the text. Keys that begin with # or // are comments.
func (d *decoder) object(path string, raw []byte, offset int, member func(key string, p place)) {
	dec := json.NewDecoder(bytes.NewReader(raw))
	_, _ = dec.Token() // {, the syntax was checked
	seen := make(map[string]string)
	for dec.More() {
		before := int(dec.InputOffset())
		tok, err := dec.Token()
		key, ok := tok.(string)
		p := place{keyAt: offset + before + bytes.IndexByte(raw[before:], '"')}
		if err != nil || !ok || dec.Decode(&p.value) != nil {
			return // not in valid JSON
		}
		p.valueAt = offset + int(dec.InputOffset()) - len(p.value)
		if strings.HasPrefix(key, "#") || strings.HasPrefix(key, "//") {
			continue
		}
		if first, ok := seen[strings.ToLower(key)]; ok {
			text := fmt.Sprintf("the key %q comes twice: the last one counts", join(path, key))
			if first != key {
				text = fmt.Sprintf("the keys %q and %q are the same: the last one counts", join(path, first), join(path, key))
			}
			d.warn(p.keyAt, text)
		}
		seen[strings.ToLower(key)] = key
		member(key, p)
	}
}

// fields reads the object raw into the struct that v points to.
func (d *decoder) fields(path string, raw []byte, offset int, v any) {
	if raw[0] != '{' {
		d.errs = append(d.errs, d.errorAt(offset, badConfig(path, "wants an object, not %s", jsonKind(raw))))
		return
	}
	d.object(path, raw, offset, func(key string, p place) { d.field(path, key, p, v) })
}

// field reads one member into the struct that v points to.
func (d *decoder) field(path, key string, p place, v any) {
	s := reflect.ValueOf(v).Elem()
	for i := range s.NumField() {
		name := s.Type().Field(i).Tag.Get("json")
		if name == "" || name == "-" || !strings.EqualFold(name, key) {
			continue
		}
		d.given[join(path, name)] = d.at(p.keyAt)
		if err := json.Unmarshal(p.value, s.Field(i).Addr().Interface()); err != nil {
			d.errs = append(d.errs, d.errorAt(p.valueAt, badConfig(join(path, name), "%s", reason(err, p.value))))
		}
		return
	}
	text := fmt.Sprintf("unknown key %q", join(path, key))
	if near := nearest(key, keysOf(v)); near != "" {
		text += fmt.Sprintf(" (did you mean %q?)", join(path, near))
	}
	d.warn(p.keyAt, text)
}

func (d *decoder) at(offset int) position {
	before := d.text[:min(offset, len(d.text))]
	line := bytes.Count(before, []byte("\n"))
	return position{line + 1, len(before) - (bytes.LastIndexByte(before, '\n') + 1) + 1}
}

func (d *decoder) errorAt(offset int, e *cbsdmq.Error) error {
	return fmt.Errorf("%s: %w", d.at(offset).in(d.file), e)
}

func (d *decoder) warn(offset int, text string) {
	p := d.at(offset)
	d.warnings = append(d.warnings, Warning{File: d.file, Line: p.line, Column: p.column, Text: text})
}

// keysOf are the keys of the struct that v points to; of a Config also the
// sections.
func keysOf(v any) []string {
	var keys []string
	t := reflect.TypeOf(v).Elem()
	for field := range t.Fields() {
		if name := field.Tag.Get("json"); name != "" && name != "-" {
			keys = append(keys, name)
		}
	}
	if t == reflect.TypeFor[Config]() {
		keys = append(keys, Kinds()...)
	}
	return keys
}

// reason says why value is not of the key's type, without the value itself: it
// may be a password.
func reason(err error, value []byte) string {
	e, ok := errors.AsType[*json.UnmarshalTypeError](err)
	if !ok {
		return err.Error()
	}
	want := e.Type.String()
	switch e.Type.Kind() {
	case reflect.String:
		want = "a text in quotes"
	case reflect.Bool:
		want = "true or false"
	case reflect.Int, reflect.Int64:
		want = "a whole number"
	case reflect.Float64:
		want = "a number"
	}
	got := jsonKind(value)
	if got == "a number" && want == "a whole number" { // 1.5, 1e9, or one that is too large
		got = string(value)
	}
	return fmt.Sprintf("wants %s, not %s", want, got)
}

func jsonKind(value []byte) string {
	switch value[0] {
	case '"':
		return "a text in quotes"
	case '{':
		return "an object"
	case '[':
		return "a list"
	case 't', 'f':
		return "true or false"
	case 'n':
		return "null"
	}
	return "a number"
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

func badConfig(field, format string, args ...any) *cbsdmq.Error {
	return cbsdmq.Errorf(cbsdmq.CodeBadConfig, field, format, args...)
}
