package cbsdmq

import (
	"cmp"
	"encoding/json"
	"errors"
	"slices"
	"time"
)

// ControlSuffix follows the name of a pool's tube in the name of its control
// lane, which is served beside the jobs and answered from the journal.
const ControlSuffix = "_ctl"

// An Op is what a request of the control lane asks for.
type Op string

// The requests.
const (
	OpStatus Op = "status" // the agent, or one job
	OpJobs   Op = "jobs"   // the newest jobs
	OpOutput Op = "output" // output of a job from Offset on; with Wait also what is still to come
	OpCancel Op = "cancel" // end a job, or keep it from beginning
	OpGuests Op = "guests" // the pool's inventory
	OpImages Op = "images" // the images of VM profiles, and the room for them
	OpHeld   Op = "held"   // release or drop the jobs held after the journal went back in time

	OpPause   Op = "pause"   // begin nothing that changes Guest, or the pool where that is ""
	OpResume  Op = "resume"  // the end of that
	OpPauses  Op = "pauses"  // what is paused
	OpWhy     Op = "why"     // what the jobs of a guest wait for, or one job, or all
	OpResolve Op = "resolve" // a person's verdict on a job that ended unknown
	OpActs    Op = "acts"    // what people did beside submitting jobs, the newest first
)

// A Request is put on the control lane. The answer comes as a Response to the
// mailbox <reply_tube_prefix>c<Reply>.
type Request struct {
	V       int           `json:"v"`
	Op      Op            `json:"op"`
	Reply   string        `json:"reply"`            // ULID of the requester's own mailbox
	Req     string        `json:"req"`              // chosen by the requester, returned in the Response
	Pool    string        `json:"pool,omitempty"`   // refused by the agent of any other pool
	Job     string        `json:"job,omitempty"`    // id without the pool, or "" where none is meant
	Offset  int64         `json:"offset,omitempty"` // OpOutput: bytes of stdout that the requester has
	Wait    time.Duration `json:"wait,omitempty"`   // OpOutput: answer when there is more or the job has ended, at the latest after this (nanoseconds)
	Limit   int           `json:"limit,omitempty"`  // OpJobs, OpActs: at most so many; 0 = 100
	After   string        `json:"after,omitempty"`  // OpJobs, OpGuests, OpImages, OpPauses, OpActs: go on after this id, name, guest or seq, where a Response had More
	State   State         `json:"state,omitempty"`  // OpJobs: only these; OpResolve: Done or Failed
	Guest   string        `json:"guest,omitempty"`  // OpJobs, OpGuests, OpWhy, OpActs: only this one; OpPause, OpResume
	Since   time.Time     `json:"since,omitzero"`   // OpJobs, OpActs: not those of before
	By      string        `json:"by,omitempty"`     // who asks
	Reason  string        `json:"reason,omitempty"` // OpPause, OpResolve: for people
	Work    bool          `json:"work,omitempty"`   // OpOutput with Wait: answer, too, with how far the command is, every two seconds or so
	Action  string        `json:"action,omitempty"` // OpHeld: "release" or "drop"
	Expires time.Time     `json:"expires,omitzero"` // not answered later than this
	Made    time.Time     `json:"made,omitzero"`    // when it was asked, of a request that is signed
	Signer  string        `json:"signer,omitempty"` // whose key signed it
	Sig     string        `json:"sig,omitempty"`    // Ed25519 signature of SignedText, in base64
}

// A Response answers one Request.
type Response struct {
	V      int        `json:"v"`
	Req    string     `json:"req"`
	Error  *Problem   `json:"error,omitempty"`
	Agent  *AgentInfo `json:"agent,omitempty"`
	Job    *JobInfo   `json:"job,omitempty"`
	Jobs   []JobInfo  `json:"jobs,omitempty"`
	Guests []Guest    `json:"guests,omitempty"`
	Pauses []Pause    `json:"pauses,omitempty"`
	Acts   []Act      `json:"acts,omitempty"`
	Waits  []Wait     `json:"waits,omitempty"` // OpWhy
	Images []Image    `json:"images,omitempty"`
	Store  *Store     `json:"store,omitempty"`
	Data   []byte     `json:"data,omitempty"`   // OpOutput: stdout from Offset on
	Offset int64      `json:"offset,omitempty"` // OpOutput: where Data begins; beyond the one asked for where output was dropped
	Work   *Work      `json:"work,omitempty"`   // OpOutput: how far the command is
	End    bool       `json:"end,omitempty"`    // OpOutput: the job has ended and Data reaches its end
	Final  *Reply     `json:"final,omitempty"`  // the job's last reply, where it has ended
	More   bool       `json:"more,omitempty"`   // OpJobs, OpGuests, OpImages, OpPauses, OpActs: there are more; ask with After
	Next   string     `json:"next,omitempty"`   // OpJobs, OpActs: ask with this as After, where More comes with none
}

// A Problem is an Error on the wire.
type Problem struct {
	Code    Code   `json:"code"`
	Field   string `json:"field,omitempty"`
	Message string `json:"message"`
	Hint    string `json:"hint,omitempty"`
}

// NewProblem puts err on the wire, nil as nil.
func NewProblem(err error) *Problem {
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return &Problem{Code: e.Code, Field: e.Field, Message: e.Err.Error(), Hint: e.Hint}
	}
	return &Problem{Code: CodeInternal, Message: err.Error()}
}

// Err is the problem as an *Error of the same code, nil for nil.
func (p *Problem) Err() error {
	if p == nil {
		return nil
	}
	e := Errorf(cmp.Or(p.Code, CodeInternal), p.Field, "%s", p.Message)
	e.Hint = p.Hint
	return e
}

// AgentInfo says which agent answers and how it is.
type AgentInfo struct {
	Pool      string    `json:"pool"`
	Host      string    `json:"host"`
	Version   string    `json:"version"`
	PID       int       `json:"pid"`
	StartedAt time.Time `json:"started_at"`
	Queued    int       `json:"queued"`
	Running   int       `json:"running"`
	Held      int       `json:"held,omitempty"`
	Workers   int       `json:"workers"`
	Readers   int       `json:"readers"`
	Trouble   string    `json:"trouble,omitempty"` // why it does not take or begin jobs, or ""

	Oldest       time.Time `json:"oldest,omitzero"`         // when the job that has waited longest was accepted
	Backlog      int       `json:"backlog,omitempty"`       // jobs that have not ended, at which it takes no more
	Paused       *Pause    `json:"paused,omitempty"`        // the whole pool is
	PausedGuests int       `json:"paused_guests,omitempty"` // guests that are
	Guests       int       `json:"guests,omitempty"`
	GuestsOn     int       `json:"guests_on,omitempty"`
	DiskUsed     int64     `json:"disk_used,omitempty"` // bytes of the file system of the pool
	DiskSize     int64     `json:"disk_size,omitempty"` // with what is free
	CBSD         string    `json:"cbsd,omitempty"`      // its version
}

// JobInfo is what is known of a job: the journal's row, for people and programs.
type JobInfo struct {
	ID         string    `json:"id"` // printed id
	Pool       string    `json:"pool"`
	Command    string    `json:"command"`
	Args       []string  `json:"args"`                // key=value and words; secrets are hidden
	ArgsLost   bool      `json:"args_lost,omitempty"` // they are not kept any more, or not all of them fit
	Guest      string    `json:"guest"`
	State      State     `json:"state"`
	Outcome    Outcome   `json:"outcome"`
	ErrCode    int       `json:"err_code"`
	Progress   int       `json:"progress"`       // in percent: 100 where it has ended, 0 where it is not known
	Work       *Work     `json:"work,omitempty"` // how far a running command is
	Reason     string    `json:"reason,omitempty"`
	AcceptedAt time.Time `json:"accepted_at,omitzero"`
	BegunAt    time.Time `json:"begun_at,omitzero"`
	FinishedAt time.Time `json:"finished_at,omitzero"`
	Sender     string    `json:"sender"`
	Signer     string    `json:"signer,omitempty"` // whose key signed it
	Paused     bool      `json:"paused,omitempty"` // it waits because a person paused its guest or the pool
	Verdict    *Verdict  `json:"verdict,omitempty"`
	Output     int64     `json:"output"` // bytes of stdout so far
}

// A Guest is a jail or a VM of a pool.
type Guest struct {
	Pool     string `json:"pool"`
	Name     string `json:"name"` // jname
	Emulator string `json:"emulator"`
	Status   string `json:"status"` // On, Off, Slave, Maintenance, Unregister: the words of cbsd's lists
	PID      int    `json:"pid"`    // of the hypervisor, or the jid of a jail; 0 when it is off
	Hostname string `json:"hostname"`
	IP4      string `json:"ip4_addr"`
	CPUs     int    `json:"vm_cpus"`
	RAM      int64  `json:"vm_ram"` // bytes
	OSType   string `json:"vm_os_type"`
	VNC      string `json:"vnc"` // host:port of the last start
	AStart   bool   `json:"astart"`

	Busy   string `json:"busy,omitempty"`   // the command that changes it now, ours or another's
	Job    string `json:"job,omitempty"`    // printed id of that, where it is ours
	Queued int    `json:"queued,omitempty"` // jobs that wait for it
	Paused *Pause `json:"paused,omitempty"` // it, or the whole pool, is
}

// ParseRequest reads a request of the control lane; like ParseJob it
// understands all of it or nothing.
//
// Where the request is bad, the one returned holds what could be read; it can
// be answered if its Reply is a valid ULID.
func ParseRequest(body []byte) (Request, error) {
	var r Request
	if len(body) > JobMax {
		return r, refusedf("", "the request has %d bytes, more than %d", len(body), JobMax)
	}
	if err := checkText(body); err != nil {
		return r, err
	}
	typed := json.Unmarshal(body, &r)
	if _, err := members("", body); err != nil {
		return r, err
	}
	if typed != nil {
		return r, refusedf("request"+typeField(typed), "%s", typeReason(typed))
	}
	return r, r.check()
}

func (r *Request) check() error {
	const reqMax = 64
	switch {
	case r.V != MetaVersion:
		return refusedf("v", "version %d is not known here, only %d", r.V, MetaVersion).
			WithHint("client and agent are of different ages: update the older one")
	case !ValidULID(r.Reply):
		return refusedf("reply", "not a ULID")
	case len(r.Req) > reqMax:
		return refusedf("req", "%d bytes, more than %d", len(r.Req), reqMax)
	case r.Job != "" && !ValidID(r.Job):
		return refusedf("job", "not the id of a job")
	case r.Offset < 0:
		return refusedf("offset", "negative")
	case r.Wait < 0:
		return refusedf("wait", "negative")
	case r.Limit < 0:
		return refusedf("limit", "negative")
	}
	for _, line := range []struct {
		field, text string
		most        int
	}{{"guest", r.Guest, WhoMax}, {"by", r.By, WhoMax}, {"reason", r.Reason, ReasonMax}} {
		if err := checkLine(line.field, line.text, line.most); err != nil {
			return err
		}
	}
	switch r.Op {
	case OpStatus, OpJobs, OpGuests, OpImages, OpHeld, OpPauses, OpWhy, OpActs:
	case OpPause, OpResume:
		if r.By == "" {
			return refusedf("by", "missing").WithHint("say who asks for it")
		}
	case OpResolve:
		switch {
		case r.Job == "":
			return refusedf("job", "missing")
		case r.By == "":
			return refusedf("by", "missing").WithHint("say who found it out")
		case r.State != Done && r.State != Failed:
			return refusedf("state", "%q is neither done nor failed", r.State)
		}
	case OpOutput, OpCancel:
		if r.Job == "" {
			return refusedf("job", "missing")
		}
	default:
		return refusedf("op", "not known here").
			WithHint("client and agent are of different ages: update the older one")
	}
	return nil
}

// ParseResponse reads a response. Fields that it does not know are ignored:
// they come from a newer agent.
func ParseResponse(body []byte) (Response, error) {
	var r Response
	if err := unmarshalObject(body, &r); err != nil {
		return Response{}, Errorf(CodeInternal, "response", "not a response: %s", typeReason(err))
	}
	return r, nil
}

// Fit returns r cut so that its JSON has at most size bytes; size is at least
// 4096. Data keeps its beginning and then neither End nor Final: the requester
// asks for the rest. Lists keep their first ones, and More says so.
// Long arguments are shortened.
func (r Response) Fit(size int) Response {
	if jsonSize(r) <= size {
		return r
	}
	if r.Error != nil {
		e := *r.Error
		e.Field, e.Message, e.Hint = cutText(e.Field, size/16), cutText(e.Message, size/4), cutText(e.Hint, size/4)
		r.Error = &e
	}
	if r.Agent != nil {
		a := *r.Agent
		a.Trouble = cutText(a.Trouble, size/4)
		r.Agent = &a
	}
	if r.Job != nil {
		j := r.Job.short()
		r.Job = &j
	}
	if len(r.Data) > 0 {
		r.Final, r.End = nil, false
		bare := r
		bare.Data = nil
		room := size - jsonSize(bare) - len(`,"data":""`)
		r.Data = r.Data[:min(len(r.Data), max(room, 0)/4*3)]
	}
	if r.Final != nil {
		bare := r
		bare.Final = nil
		f := r.Final.Fit(size - jsonSize(bare) - len(`,"final":`))
		r.Final = &f
	}
	r.Jobs, r.Images = each(r.Jobs, JobInfo.short), each(r.Images, Image.short)
	cutList(&r, &r.Jobs, "jobs", size)
	cutList(&r, &r.Guests, "guests", size)
	cutList(&r, &r.Pauses, "pauses", size)
	cutList(&r, &r.Acts, "acts", size)
	cutList(&r, &r.Waits, "waits", size)
	cutList(&r, &r.Images, "images", size)
	return r
}

// each returns what f makes of the elements of a list.
func each[T any](list []T, f func(T) T) []T {
	list = slices.Clone(list)
	for i := range list {
		list[i] = f(list[i])
	}
	return list
}

// cutList keeps of a list of r, which is called name in its JSON, as many elements as
// there is room for.
func cutList[T any](r *Response, list *[]T, name string, size int) {
	all, more := *list, r.More
	if len(all) == 0 {
		return
	}
	*list, r.More = nil, true
	n := fitList(all, size-jsonSize(*r)-len(`,"":[]`)-len(name))
	*list, r.More = all[:n], more || n < len(all)
}

// fitList is how many of the list's first elements take at most room bytes.
func fitList[T any](list []T, room int) int {
	for i, v := range list {
		if room -= jsonSize(v) + 1; room < -1 { // no comma after the last one
			return i
		}
	}
	return len(list)
}

// short returns j with its texts cut to what a list shows: less than 2 KiB.
func (j JobInfo) short() JobInfo {
	const text, args = 160, 768
	j.Reason, j.Command = cutText(j.Reason, text), cutText(j.Command, text)
	j.Guest, j.Sender = cutText(j.Guest, text), cutText(j.Sender, text)
	j.Work = j.Work.short()
	room := args
	for i, a := range j.Args {
		whole := a
		a = cutText(a, text)
		j.ArgsLost = j.ArgsLost || a != whole
		if room -= stringSize(a) + 3; room < 0 {
			j.Args, j.ArgsLost = append(j.Args[:i:i], "..."), true
			break
		}
		if a != j.Args[i] {
			j.Args = append(append(j.Args[:i:i], a), j.Args[i+1:]...)
		}
	}
	return j
}
