package cbsdmq

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"
)

// ParseJob reads a job from the body of a message. It understands all of the
// body or nothing: what is not a job, or could be read in two ways, is an
// *Error of CodeRefused that names the field.
//
// Keys match without regard to case and unknown keys are ignored, as the
// original programs do; a key that comes twice is refused. Numbers and
// booleans in CommandArgs are taken as CBSD writes them (4, true is 1, false
// is 0); null, arrays and objects are refused.
//
// Where the body is bad but its JobID or id could be read, the returned job
// holds them, so that the refusal finds its way back.
func ParseJob(body []byte) (Job, error) {
	var j Job
	if len(body) > JobMax {
		return j, refusedf("", "the job has %d bytes, more than %d", len(body), JobMax).
			WithHint("send less: put long texts into a file on the host and name the file")
	}
	if !utf8.Valid(body) {
		return j, refusedf("", "the job is not valid UTF-8")
	}
	fields, err := members("", body)
	if err != nil {
		return j, err
	}
	var errs []error
	for _, f := range fields {
		switch strings.ToLower(f.name) {
		case "command":
			errs = append(errs, f.into("Command", &j.Command))
		case "commandargs":
			j.Args, err = parseArgs(f.value)
			errs = append(errs, err)
		case "jobid":
			if string(f.value) != "null" {
				errs = append(errs, f.into("JobID", &j.JobID))
			}
		case "cbsdmq":
			j.Meta, err = parseMeta(f.value)
			errs = append(errs, err)
		}
	}
	for _, err := range errs {
		if err != nil {
			return j, err
		}
	}
	if j.Command == "" {
		return j, refusedf("Command", "missing").
			WithHint(`a job looks like {"Command":"jls","CommandArgs":{"header":"0"}}`)
	}
	return j, nil
}

func parseMeta(raw []byte) (*Meta, error) {
	if _, err := members("cbsdmq", raw); err != nil {
		return nil, err
	}
	m := new(Meta)
	if err := json.Unmarshal(raw, m); err != nil {
		return nil, refusedf("cbsdmq"+typeField(err), "%s", typeReason(err))
	}
	if m.V != MetaVersion {
		return m, refusedf("cbsdmq.v", "version %d is not known here, only %d", m.V, MetaVersion).
			WithHint("client and agent are of different ages: update the older one")
	}
	return m, nil
}

func parseArgs(raw []byte) ([]Arg, error) {
	if string(raw) == "null" {
		return nil, nil
	}
	fields, err := members("CommandArgs", raw)
	if err != nil {
		return nil, err
	}
	args := make([]Arg, 0, len(fields))
	for _, f := range fields {
		v, err := argValue(f.value)
		if err != nil {
			return nil, refusedf("CommandArgs."+f.name, "%w", err).
				WithHint(`write the value as a string: %s`, strconv.Quote(f.name)+`:"..."`)
		}
		args = append(args, Arg{Name: f.name, Value: v})
	}
	return args, nil
}

func argValue(raw []byte) (string, error) {
	switch raw[0] {
	case '"':
		var s string
		err := json.Unmarshal(raw, &s)
		return s, err
	case 't':
		return "1", nil
	case 'f':
		return "0", nil
	case 'n':
		return "", errors.New("null is not a value")
	case '[':
		return "", errors.New("an array is not a value")
	case '{':
		return "", errors.New("an object is not a value")
	}
	return string(raw), nil // a number, as it is written
}

// A member is one key of a JSON object with its value, undecoded.
type member struct {
	name  string
	value json.RawMessage
}

func (m member) into(field string, v any) error {
	if err := json.Unmarshal(m.value, v); err != nil {
		return refusedf(field, "%s", typeReason(err))
	}
	return nil
}

// members returns the members of the object raw in their order. encoding/json
// would keep the last of two equal keys and match them without regard to case,
// so that a reader and a filter in front of it could see different jobs:
// equal keys are refused.
func members(field string, raw []byte) ([]member, error) {
	dec := json.NewDecoder(bytes.NewReader(raw))
	tok, err := dec.Token()
	if err != nil {
		return nil, refusedf(field, "not JSON: %s", jsonReason(err))
	}
	if tok != json.Delim('{') {
		return nil, refusedf(field, "not a JSON object").
			WithHint(`a job looks like {"Command":"jls","CommandArgs":{"header":"0"}}`)
	}
	var out []member
	seen := make(map[string]bool)
	for dec.More() {
		tok, err := dec.Token()
		if err != nil {
			return nil, refusedf(field, "not JSON: %s", jsonReason(err))
		}
		m := member{name: tok.(string)}
		if err := dec.Decode(&m.value); err != nil {
			return nil, refusedf(join(field, m.name), "not JSON: %s", jsonReason(err))
		}
		folded := strings.ToLower(m.name)
		if seen[folded] {
			return nil, refusedf(join(field, m.name), "the key comes twice").WithHint("keep one of them")
		}
		seen[folded] = true
		out = append(out, m)
	}
	if _, err := dec.Token(); err != nil {
		return nil, refusedf(field, "not JSON: %s", jsonReason(err))
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, refusedf(field, "something follows after the JSON object")
	}
	return out, nil
}

func join(field, name string) string {
	if field == "" {
		return name
	}
	return field + "." + name
}

func refusedf(field, format string, args ...any) *Error {
	return Errorf(CodeRefused, field, format, args...)
}

func jsonReason(err error) string {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return "it ends in the middle"
	}
	if e, ok := errors.AsType[*json.SyntaxError](err); ok {
		return fmt.Sprintf("%s at byte %d", e.Error(), e.Offset)
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
		return fmt.Sprintf("wants %s, not a JSON %s", e.Type, e.Value)
	}
	return err.Error()
}
