package cbsdmq

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"strconv"
	"strings"
)

// ParseJob reads a job from the body of a message. It understands all of the
// body or nothing: what is not a job, or could be read in two ways, is an
// *Error of CodeRefused that names the field.
//
// Keys match without regard to case and unknown keys are ignored, as the
// original programs do; a key that comes twice is refused, but for an argument
// that has the same value. Numbers and booleans in CommandArgs are taken as CBSD
// writes them (4, true is 1, false is 0); null, arrays and objects are refused.
// Which commands and which characters may be run is not decided here.
//
// Where the body is bad but its JobID or id could be read, the returned job
// holds them, so that the refusal finds its way back.
func ParseJob(body []byte) (Job, error) {
	var j Job
	if len(body) > JobMax {
		return j, refusedf("", "the job has %d bytes, more than %d", len(body), JobMax).
			WithHint("send less: put long texts into a file on the host and name the file")
	}
	if err := checkText(body); err != nil {
		return j, err
	}
	fields, err := members("", body)
	for _, f := range fields {
		if e := j.set(f); e != nil && err == nil {
			err = e
		}
	}
	if err != nil {
		if e, ok := errors.AsType[*Error](err); ok && e.Hint == "" {
			e.Hint = `a job looks like {"Command":"jls","CommandArgs":{"header":"0"}}`
		}
		return j, err
	}
	if j.Command == "" {
		return j, refusedf("Command", "missing").
			WithHint(`a job looks like {"Command":"jls","CommandArgs":{"header":"0"}}`)
	}
	return j, j.checkNUL()
}

// set takes one member of a job's body. The keys are folded.
func (j *Job) set(f member) (err error) {
	switch f.key {
	case "COMMAND":
		err = f.into("Command", &j.Command)
	case "COMMANDARGS":
		j.Args, err = parseArgs(f.value)
	case "JOBID":
		err = f.into("JobID", &j.JobID)
	case "CBSDMQ":
		j.Meta, err = parseMeta(f.value)
	}
	return err
}

const leaveOut = "leave it out"

// checkNUL refuses the one byte that no argument of a program can hold.
func (j *Job) checkNUL() error {
	if strings.ContainsRune(j.Command, 0) {
		return refusedf("Command", "contains NUL").WithHint(leaveOut)
	}
	for _, a := range j.Args {
		if strings.ContainsRune(a.Name, 0) || strings.ContainsRune(a.Value, 0) {
			return refusedf(join("CommandArgs", a.Name), "contains NUL").WithHint(leaveOut)
		}
	}
	for i, w := range j.Words() {
		if strings.ContainsRune(w, 0) {
			return refusedf("cbsdmq.words", "word %d contains NUL", i+1).WithHint(leaveOut)
		}
	}
	return nil
}

// parseMeta returns what it could read also beside an error.
func parseMeta(raw []byte) (*Meta, error) {
	if string(raw) == "null" {
		return nil, refusedf("cbsdmq", "not a JSON object")
	}
	m := new(Meta)
	typed := json.Unmarshal(raw, m)
	if _, err := members("cbsdmq", raw); err != nil {
		return m, err
	}
	switch field := typeField(typed); {
	case typed != nil && field == "": // the one field that reads itself
		return m, refusedf("cbsdmq.expires", "not a time").WithHint(`write it like "2026-11-22T12:00:00Z"`)
	case typed != nil:
		return m, refusedf("cbsdmq"+field, "%s", typeReason(typed))
	}
	if m.V != MetaVersion {
		return m, refusedf("cbsdmq.v", "version %d is not known here, only %d", m.V, MetaVersion).
			WithHint("client and agent are of different ages: update the older one")
	}
	if !ValidULID(m.ID) {
		return m, refusedf("cbsdmq.id", "not a ULID")
	}
	if err := cmp.Or(checkLine("cbsdmq.sender", m.Sender, NameMax), checkLine("cbsdmq.key", m.Key, NameMax)); err != nil {
		return m, err
	}
	return m, checkWords(raw)
}

// checkWords refuses a null among the words, which encoding/json takes for "".
func checkWords(meta []byte) error {
	if !bytes.Contains(meta, []byte("null")) {
		return nil
	}
	var m struct {
		Words []*string `json:"words"`
	}
	if err := json.Unmarshal(meta, &m); err != nil {
		return refusedf("cbsdmq.words", "%s", typeReason(err))
	}
	for i, w := range m.Words {
		if w == nil {
			return refusedf("cbsdmq.words", "word %d is null", i+1)
		}
	}
	return nil
}

const fieldArgs = "CommandArgs"

func parseArgs(raw []byte) ([]Arg, error) {
	if string(raw) == "null" {
		return nil, nil
	}
	fields, err := members(fieldArgs, raw)
	if err != nil {
		return nil, err
	}
	args := make([]Arg, 0, len(fields))
	for _, f := range fields {
		v, err := argValue(f.value)
		if err != nil {
			return nil, refusedf(join("CommandArgs", f.name), "%w", err).
				WithHint(`write the value as a string: %s:"..."`, strconv.Quote(f.name))
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
