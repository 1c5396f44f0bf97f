package cbsdmq

import "encoding/json"

// A Reply is what the agent sends back about a job. The first six fields are
// the original's, with its key order, and are always there; old peers ignore
// the rest.
//
// A job ends with one reply of Progress 100 on each of its reply addresses.
// Replies before it carry the next piece of output and come only when the job
// asked for them (Meta.Stream).
type Reply struct {
	DskGuid  string // zfs guid of the guest's first disk with a newline, or "0"
	ErrCode  int    // exit status of the command, or one of the Exit constants
	Guid     string // zfs guid of the guest with a newline, or "0"
	Message  string // stdout from Offset on; at most ReplyOutput bytes of its end on the last reply
	Progress int    // 100 on the last reply, below it on pieces of output
	Vnc      string // address of the VNC server with a newline after a start, else ""

	ID       string   `json:",omitempty"` // printed id of the job, pool/ULID or pool/17
	State    State    `json:",omitempty"` // on the last reply: how the job ended
	Outcome  Outcome  `json:",omitempty"` // on the last reply: what became of the guest
	Reason   string   `json:",omitempty"` // why the state is not Done, or why the outcome is not what the exit status says
	Hint     string   `json:",omitempty"` // what a person can do about it
	Warnings []string `json:",omitempty"`
	Stderr   string   `json:",omitempty"` // last 4 KiB of stderr, on the last reply
	Cut      int64    `json:",omitempty"` // bytes of stdout that were dropped or are not in Message; the whole stays available by id
	Seq      int      `json:",omitempty"` // 1, 2, ... over the replies of one address where output is streamed
	Offset   int64    `json:",omitempty"` // where in stdout Message begins, in bytes
	Raw      []byte   `json:",omitempty"` // the bytes of Message where they are not valid UTF-8, base64
}

// Bytes of output in one reply. With every other field at its largest and
// every character escaped once, a reply stays below JobMax.
const (
	ReplyOutput = 16 << 10
	ReplyStderr = 4 << 10
)

// Final reports whether r is the last reply of its job.
func (r *Reply) Final() bool { return r.Progress >= 100 }

// Output returns the bytes of stdout that r carries.
func (r *Reply) Output() []byte {
	if r.Raw != nil {
		return r.Raw
	}
	return []byte(r.Message)
}

// ParseReply reads a reply. Fields that it does not know are ignored: they come
// from a newer agent.
func ParseReply(body []byte) (Reply, error) {
	var r Reply
	if err := json.Unmarshal(body, &r); err != nil {
		return Reply{}, Errorf(CodeInternal, "reply", "not a reply: %s", typeReason(err))
	}
	return r, nil
}
