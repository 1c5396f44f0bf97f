package cbsdmq

import (
	"bytes"
	"encoding/json"
	"errors"
	"unicode/utf8"
)

// A Reply is what the agent sends back about a job. The first six fields are
// the original's, with its key order, and are always there; old peers ignore
// the rest.
//
// A job ends with one reply of Progress 100 on each of its reply addresses.
// Replies before it carry the next piece of output, or how far a command is that
// takes more than seconds, and come only when the job asked for them
// (Meta.Stream).
type Reply struct {
	DskGuid  string // zfs guid of the guest's first disk with a newline, or "0"
	ErrCode  int    // exit status of the command, or one of the Exit constants
	Guid     string // zfs guid of the guest with a newline, or "0"
	Message  string // stdout from Offset on; on the last reply its end, as much as fits
	Progress int    // 100 on the last reply; below it how far the command is in percent, 0 where that is not known
	Vnc      string // address of the VNC server with a newline after a start, else ""

	ID       string   `json:",omitempty"` // printed id of the job, pool/ULID or pool/17
	Key      string   `json:",omitempty"` // the sender's own name for the work, where it gave one
	State    State    `json:",omitempty"` // on the last reply: how the job ended
	Outcome  Outcome  `json:",omitempty"` // on the last reply: what became of the guest
	Reason   string   `json:",omitempty"` // why the state is not Done, or why the outcome is not what the exit status says
	Hint     string   `json:",omitempty"` // what a person can do about it
	Warnings []string `json:",omitempty"`
	Stderr   string   `json:",omitempty"` // last 4 KiB of stderr, on the last reply
	Cut      int64    `json:",omitempty"` // bytes of stdout that are not in Message: they did not fit, or are not kept; the former can be had by id
	Seq      int      `json:",omitempty"` // 1, 2, ... over the replies of one address where output is streamed
	Offset   int64    `json:",omitempty"` // where in stdout Message begins, in bytes
	Raw      []byte   `json:",omitempty"` // the bytes of Message where they are not valid UTF-8, base64
	Work     *Work    `json:",omitempty"` // how far the command is; on replies below Progress 100 without output
}

// ReplyOutput and ReplyStderr are the most bytes of output to put into one
// reply before Fit. Escaped as JSON, a byte of output can take six: only Fit
// makes a reply that every broker takes.
const (
	ReplyOutput = 60 << 10
	ReplyStderr = 4 << 10
)

// Final reports whether r is the last reply of its job.
func (r *Reply) Final() bool { return r.Progress >= 100 }

// Output returns the bytes of stdout that r carries.
func (r *Reply) Output() []byte {
	if len(r.Raw) > 0 {
		return r.Raw
	}
	return []byte(r.Message)
}

// SetOutput puts p into Message and, where p is not valid UTF-8, into Raw.
func (r *Reply) SetOutput(p []byte) {
	r.Message, r.Raw = string(p), nil
	if !utf8.Valid(p) {
		// As encoding/json would write it: one U+FFFD for each bad byte.
		r.Message, r.Raw = string([]rune(r.Message)), p
	}
}

// Fit returns r cut so that its JSON has at most max bytes; max is at least
// 1024. A last reply keeps the end of its output, and Offset and Cut grow by
// what it lost. A piece of output keeps its beginning: the next piece begins at
// Offset + len(Output()). Output is cut between characters. Other fields are
// cut only where they leave less than half of max to the output.
func (r Reply) Fit(max int) Reply {
	out := r.Output()
	r.SetOutput(out)
	if !r.Final() && len(r.Raw) > 0 {
		out = wholeRunes(out)
		r.SetOutput(out)
	}
	r.Stderr = string([]rune(r.Stderr))
	if jsonSize(r) <= max {
		return r
	}
	bare := r
	bare.Message, bare.Raw = "", nil
	bare.Offset, bare.Cut = 1<<62, 1<<62 // room for their digits
	if jsonSize(bare) > max/2 {
		bare.cutTexts(max)
	}
	room := max - jsonSize(bare)
	bare.Offset, bare.Cut = r.Offset, r.Cut
	if !r.Final() {
		bare.SetOutput(wholeRunes(fitHead(out, room)))
		return bare
	}
	kept := fitTail(out, room)
	lost := int64(len(out) - len(kept))
	bare.Offset += lost
	bare.Cut += lost
	bare.SetOutput(kept)
	return bare
}

// cutTexts cuts the fields beside Message to less than half of max in sum.
func (r *Reply) cutTexts(max int) {
	r.Work = r.Work.short()
	r.Stderr = string(fitTail([]byte(r.Stderr), max/8))
	r.Reason = cutText(r.Reason, max/10)
	r.Hint = cutText(r.Hint, max/20)
	room := max / 20
	for i, w := range r.Warnings {
		w = cutText(w, room)
		if w == "" {
			r.Warnings = r.Warnings[:i:i]
			break
		}
		if w != r.Warnings[i] {
			r.Warnings = append(r.Warnings[:i:i], w)
			break
		}
		room -= stringSize(w) + 3
	}
	for _, s := range []*string{&r.DskGuid, &r.Guid, &r.Vnc, &r.ID, &r.Key} {
		*s = cutText(*s, max/64)
	}
}

// ParseReply reads a reply. Fields that it does not know are ignored: they come
// from a newer agent.
func ParseReply(body []byte) (Reply, error) {
	var r Reply
	if err := unmarshalObject(body, &r); err != nil {
		return Reply{}, Errorf(CodeInternal, "reply", "not a reply: %s", typeReason(err))
	}
	return r, nil
}

// unmarshalObject is json.Unmarshal, but does not take null for an empty object.
func unmarshalObject(body []byte, v any) error {
	if string(bytes.TrimSpace(body)) == "null" {
		return errors.New("it is null")
	}
	return json.Unmarshal(body, v)
}
