package cbsdmq

import (
	"cmp"
	"crypto/ed25519"
	"encoding/base64"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The first item of a signed text says what was signed, so that the signature of
// a request is never one of a job.
const (
	signedJob     = "cbsdmq-job-v1"
	signedRequest = "cbsdmq-request-v1"
)

// A Signer signs what a client sends.
type Signer struct {
	Name string // of the sender, as the agent's file of senders has it
	Key  ed25519.PrivateKey
}

// SignJob puts the name and a signature into the job's Meta. Whatever is changed
// in the job afterwards makes the signature wrong.
func (s *Signer) SignJob(j *Job) error {
	m := *j.Meta
	m.Signer = s.Name
	j.Meta = &m
	text, err := j.SignedText()
	if err == nil {
		m.Sig = base64.StdEncoding.EncodeToString(ed25519.Sign(s.Key, text))
	}
	return err
}

// SignRequest puts the name and a signature into the request.
func (s *Signer) SignRequest(r *Request) error {
	r.Signer = s.Name
	text, err := r.SignedText()
	if err == nil {
		r.Sig = base64.StdEncoding.EncodeToString(ed25519.Sign(s.Key, text))
	}
	return err
}

// Signed reports whether sig is a signature of text by the key public.
func Signed(public ed25519.PublicKey, text []byte, sig string) bool {
	if len(sig) != base64.StdEncoding.EncodedLen(ed25519.SignatureSize) {
		return false
	}
	raw, err := base64.StdEncoding.Strict().DecodeString(sig)
	return err == nil && ed25519.Verify(public, text, raw)
}

// SignedText is what the signature of a job signs: all of the job but the
// signature, in one form whatever its JSON looks like. docs/WIRE.md says how it is
// made in other languages. A job that cannot be signed is an *Error.
func (j *Job) SignedText() ([]byte, error) {
	if j.Meta == nil {
		return nil, refusedf("cbsdmq", "missing").WithHint("a job that is signed has an id: see docs/WIRE.md")
	}
	if j.JobID == 0 {
		return nil, refusedf("JobID", "missing").WithHint("a signature is also for the address that the answer goes to: choose one, see docs/WIRE.md")
	}
	m := j.Meta
	rest, err := attributes("cbsdmq", m, "id", "pool", "expires", "words", "sig")
	if err != nil {
		return nil, err
	}
	expires, err := signedValue("cbsdmq.expires", reflect.ValueOf(m.Expires))
	if err != nil {
		return nil, err
	}
	rest = append(rest, attribute{"JobID", strconv.FormatUint(j.JobID, 10)})
	args := make([]attribute, len(j.Args))
	for i, a := range j.Args {
		args[i] = attribute{a.Name, a.Value}
	}
	b := appendItems(nil, signedJob, m.ID, m.Pool, expires, j.Command)
	b = appendAttributes(b, args)
	b = appendItems(b, strconv.Itoa(len(m.Words)))
	b = appendItems(b, m.Words...)
	return appendAttributes(b, rest), nil
}

// SignedText is what the signature of a request signs: every field of it but the
// signature.
func (r *Request) SignedText() ([]byte, error) {
	all, err := attributes("", r, "sig")
	if err != nil {
		return nil, err
	}
	return appendAttributes(appendItems(nil, signedRequest), all), nil
}

// An attribute is a field with its value as text.
type attribute struct{ name, value string }

// attributes are the fields of the struct that v points to, under their names in
// JSON, but for those that are empty and those in except: a field that is added
// to the struct is signed without further ado.
func attributes(path string, v any, except ...string) ([]attribute, error) {
	s := reflect.ValueOf(v).Elem()
	out := make([]attribute, 0, s.NumField()+1)
	for i := range s.NumField() {
		name, _, _ := strings.Cut(s.Type().Field(i).Tag.Get("json"), ",")
		if slices.Contains(except, name) {
			continue
		}
		value, err := signedValue(join(path, name), s.Field(i))
		if err != nil {
			return nil, err
		}
		if value != "" {
			out = append(out, attribute{name, value})
		}
	}
	return out, nil
}

// signedValue is the text of a field's value, "" where it is empty: zero, false,
// no text, no time, no list.
func signedValue(field string, v reflect.Value) (string, error) {
	if t, ok := reflect.TypeAssert[time.Time](v); ok {
		switch {
		case t.IsZero():
			return "", nil
		case t.Nanosecond() != 0:
			return "", refusedf(field, "holds a part of a second").WithHint("a time that is signed is in whole seconds")
		}
		return strconv.FormatInt(t.Unix(), 10), nil
	}
	if v.IsZero() {
		return "", nil
	}
	switch v.Kind() {
	case reflect.String:
		return v.String(), nil
	case reflect.Bool:
		return "1", nil
	case reflect.Int, reflect.Int64:
		return strconv.FormatInt(v.Int(), 10), nil
	case reflect.Uint64:
		return strconv.FormatUint(v.Uint(), 10), nil
	}
	if list, ok := reflect.TypeAssert[[]string](v); ok {
		if len(list) == 0 {
			return "", nil
		}
		return string(appendItems(appendItems(nil, strconv.Itoa(len(list))), list...)), nil
	}
	return "", refusedf(field, "cannot be signed by this version")
}

// appendItems appends texts so that none can run into the next: the length in
// bytes, a colon, the text, a comma.
func appendItems(b []byte, items ...string) []byte {
	for _, s := range items {
		b = strconv.AppendInt(b, int64(len(s)), 10)
		b = append(b, ':')
		b = append(b, s...)
		b = append(b, ',')
	}
	return b
}

// appendAttributes appends how many there are, and then each name and value in
// the order of the bytes of the names.
func appendAttributes(b []byte, list []attribute) []byte {
	slices.SortFunc(list, func(a, b attribute) int {
		return cmp.Or(strings.Compare(a.name, b.name), strings.Compare(a.value, b.value))
	})
	b = appendItems(b, strconv.Itoa(len(list)))
	for _, a := range list {
		b = appendItems(b, a.name, a.value)
	}
	return b
}
