package cbsdmq

import (
	"encoding/json"
	"errors"
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
	OpHeld   Op = "held"   // release or drop the jobs held after the journal went back in time
)

// A Request is put on the control lane. The answer comes as a Response to the
// mailbox <reply_tube_prefix>c<Reply>.
type Request struct {
	V       int           `json:"v"`
	Op      Op            `json:"op"`
	Reply   string        `json:"reply"`             // ULID of the requester's own mailbox
	Req     string        `json:"req"`               // chosen by the requester, returned in the Response
	Pool    string        `json:"pool,omitempty"`    // refused by the agent of any other pool
	Job     string        `json:"job,omitempty"`     // id without the pool, or "" where none is meant
	Offset  int64         `json:"offset,omitempty"`  // OpOutput: bytes of stdout that the requester has
	Wait    time.Duration `json:"wait,omitempty"`    // OpOutput: answer when there is more or the job has ended, at the latest after this (nanoseconds)
	Limit   int           `json:"limit,omitempty"`   // OpJobs: at most so many; 0 = 100
	State   State         `json:"state,omitempty"`   // OpJobs: only these
	Action  string        `json:"action,omitempty"`  // OpHeld: "release" or "drop"
	Expires time.Time     `json:"expires,omitempty"` // not answered later than this
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
	Data   []byte     `json:"data,omitempty"`   // OpOutput: stdout from Offset on
	Offset int64      `json:"offset,omitempty"` // OpOutput: where Data begins; beyond the one asked for where output was dropped
	End    bool       `json:"end,omitempty"`    // OpOutput: the job has ended and Data reaches its end
	Final  *Reply     `json:"final,omitempty"`  // the job's last reply, where it has ended
	More   bool       `json:"more,omitempty"`   // OpJobs, OpGuests: there were more than fit
}

// A Problem is an Error on the wire.
type Problem struct {
	Code    Code   `json:"code"`
	Field   string `json:"field,omitempty"`
	Message string `json:"message"`
	Hint    string `json:"hint,omitempty"`
}

// NewProblem puts err on the wire.
func NewProblem(err error) *Problem {
	if e, ok := errors.AsType[*Error](err); ok {
		return &Problem{Code: e.Code, Field: e.Field, Message: e.Err.Error(), Hint: e.Hint}
	}
	return &Problem{Code: CodeInternal, Message: err.Error()}
}

// Err is the problem as an error of the same code.
func (p *Problem) Err() error {
	if p == nil {
		return nil
	}
	e := Errorf(p.Code, p.Field, "%s", p.Message)
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
	Trouble   string    `json:"trouble,omitempty"` // why it does not take new jobs, or ""
}

// JobInfo is what is known of a job: the journal's row, for people and programs.
type JobInfo struct {
	ID         string    `json:"id"` // printed id
	Pool       string    `json:"pool"`
	Command    string    `json:"command"`
	Args       []string  `json:"args"` // key=value and words; secrets are hidden
	Guest      string    `json:"guest"`
	State      State     `json:"state"`
	Outcome    Outcome   `json:"outcome"`
	ErrCode    int       `json:"err_code"`
	Progress   int       `json:"progress"`
	Reason     string    `json:"reason,omitempty"`
	AcceptedAt time.Time `json:"accepted_at,omitzero"`
	BegunAt    time.Time `json:"begun_at,omitzero"`
	FinishedAt time.Time `json:"finished_at,omitzero"`
	Sender     string    `json:"sender"`
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
}

// ParseRequest reads a request of the control lane; like ParseJob it
// understands all of it or nothing.
func ParseRequest(body []byte) (Request, error) {
	var r Request
	if _, err := members("", body); err != nil {
		return r, err
	}
	if err := json.Unmarshal(body, &r); err != nil {
		return r, refusedf("request"+typeField(err), "%s", typeReason(err))
	}
	if r.V != MetaVersion {
		return r, refusedf("v", "version %d is not known here, only %d", r.V, MetaVersion)
	}
	return r, nil
}
