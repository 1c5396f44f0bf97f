package cbsdmq

import (
	"strconv"
	"time"
	"unicode/utf8"
)

// JobMax is the largest body of a job in bytes, on every broker. It is
// beanstalkd's default limit, so that a job that fits one bus fits all.
const JobMax = 65535

// A Job is one CBSD command for one pool, as a client puts it on the tube.
//
// Its JSON is the one of the original programs with all additions in one
// object that they ignore:
//
//	{"Command":"jcreate","CommandArgs":{"jname":"jail1","astart":"1"},
//	 "JobID":4711,"cbsdmq":{"v":1,"id":"01K...","pool":"pool1","stream":true}}
type Job struct {
	Command string
	Args    []Arg  // in the order of the body
	JobID   uint64 // names the reply tube in place of the broker's id; 0 = not given
	Meta    *Meta  // nil for a job of an original client
}

// An Arg is one key=value argument of a command.
type Arg struct {
	Name, Value string
}

// Meta is what a job of ours carries beyond the original's fields.
type Meta struct {
	V       int       `json:"v"`                  // MetaVersion
	ID      string    `json:"id"`                 // the client's ULID: the job's identity
	Pool    string    `json:"pool,omitempty"`     // refused by the agent of any other pool
	Key     string    `json:"key,omitempty"`      // the sender's own name for the work; unique per pool and sender
	Sender  string    `json:"sender,omitempty"`   // who asks
	Stream  bool      `json:"stream,omitempty"`   // send output as it comes
	InOrder bool      `json:"in_order,omitempty"` // a read that takes its place in the guest's lane
	Force   bool      `json:"force,omitempty"`    // even if it cuts the pool off from its broker
	Words   []string  `json:"words,omitempty"`    // positional arguments, after the key=value ones
	Expires time.Time `json:"expires,omitzero"`   // not begun by then: refused
	Signer  string    `json:"signer,omitempty"`   // whose key signed it; Sender is a text that nobody has checked
	Sig     string    `json:"sig,omitempty"`      // Ed25519 signature of Job.SignedText, in base64
}

// MetaVersion is the version of Meta that this package writes and reads.
const MetaVersion = 1

// Arg returns the value of the argument name, and whether the job has it.
func (j *Job) Arg(name string) (string, bool) {
	for _, a := range j.Args {
		if a.Name == name {
			return a.Value, true
		}
	}
	return "", false
}

// Words returns the positional arguments.
func (j *Job) Words() []string {
	if j.Meta == nil {
		return nil
	}
	return j.Meta.Words
}

// MarshalJSON writes the job in the form that ParseJob reads, its arguments in
// their order. Text that is not UTF-8 is an *Error: JSON cannot hold it.
func (j Job) MarshalJSON() ([]byte, error) {
	b, err := appendString([]byte(`{"Command":`), "Command", j.Command)
	if err != nil {
		return nil, err
	}
	b = append(b, `,"CommandArgs":{`...)
	for i, a := range j.Args {
		if i > 0 {
			b = append(b, ',')
		}
		if b, err = appendString(b, "CommandArgs", a.Name); err != nil {
			return nil, err
		}
		b = append(b, ':')
		if b, err = appendString(b, join("CommandArgs", a.Name), a.Value); err != nil {
			return nil, err
		}
	}
	b = append(b, '}')
	if j.JobID != 0 {
		b = append(b, `,"JobID":`...)
		b = strconv.AppendUint(b, j.JobID, 10)
	}
	if j.Meta != nil {
		if err := j.Meta.checkUTF8(); err != nil {
			return nil, err
		}
		b = append(b, `,"cbsdmq":`...)
		if b, err = appendJSON(b, j.Meta); err != nil {
			return nil, err
		}
	}
	return append(b, '}'), nil
}

// UnmarshalJSON is ParseJob.
func (j *Job) UnmarshalJSON(body []byte) (err error) {
	*j, err = ParseJob(body)
	return err
}

func (m *Meta) checkUTF8() error {
	for _, s := range append([]string{m.ID, m.Pool, m.Key, m.Sender, m.Signer, m.Sig}, m.Words...) {
		if !utf8.ValidString(s) {
			return refusedf("cbsdmq", "not valid UTF-8")
		}
	}
	return nil
}
