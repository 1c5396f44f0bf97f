package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/cbsd/cbsdmq"
)

// A report is the end of a job as one JSON object.
type report struct {
	ID       string         `json:"id"`
	State    cbsdmq.State   `json:"state"`
	Outcome  cbsdmq.Outcome `json:"outcome"`
	ErrCode  int            `json:"err_code"`
	Reason   string         `json:"reason,omitempty"`
	Hint     string         `json:"hint,omitempty"`
	Warnings []string       `json:"warnings,omitempty"`
	Output   string         `json:"output"`        // the end of stdout
	Cut      int64          `json:"cut,omitempty"` // bytes of stdout before Output
	Stderr   string         `json:"stderr,omitempty"`
	VNC      string         `json:"vnc,omitempty"`
	GUID     string         `json:"guid,omitempty"`     // zfs guid of the guest
	DskGUID  string         `json:"dsk_guid,omitempty"` // zfs guid of its first disk
}

// finish reports the end of a job and returns its exit status as an error. With
// printed the output was printed as it came.
func (g *globals) finish(id string, r cbsdmq.Reply, printed bool) error {
	status := statusOf(r.ErrCode)
	if r.State == "" { // an original agent
		r.State = cbsdmq.Done
		if status != cbsdmq.ExitOK {
			r.State = cbsdmq.Failed
		}
	}
	if g.json() {
		if err := g.print(reportOf(id, r)); err != nil {
			return err
		}
		return exit(status)
	}
	if !printed {
		if r.Cut > 0 {
			warn(g.stderr, "the first %d bytes of output are left out; `cbsdmq output %s` shows what is kept", r.Cut, id)
		}
		if _, err := g.stdout.Write(r.Output()); err != nil {
			return err
		}
	}
	for _, w := range r.Warnings {
		warn(g.stderr, "%s", w)
	}
	if vnc := strings.TrimSpace(r.Vnc); vnc != "" && r.State == cbsdmq.Done {
		warn(g.stderr, "VNC at %s", vnc)
	}
	if status == cbsdmq.ExitOK {
		switch {
		case r.Outcome != "":
			warn(g.stderr, "%s: %s", r.State, r.Outcome)
		case r.Reason != "": // why there is none
			warn(g.stderr, "%s: %s", r.State, r.Reason)
		}
		return nil
	}
	for line := range strings.Lines(r.Stderr) {
		warn(g.stderr, "stderr: %s", strings.TrimRight(line, "\r\n"))
	}
	why := &cbsdmq.Error{Err: errors.New(string(r.State)), Hint: r.Hint}
	if r.Reason != "" {
		why.Err = fmt.Errorf("%s: %s", r.State, r.Reason)
		if strings.HasPrefix(r.Reason, string(r.State)) { // "cancelled clean: ..."
			why.Err = errors.New(r.Reason)
		}
	}
	return &exitError{status: status, err: why}
}

func reportOf(id string, r cbsdmq.Reply) report {
	guid := func(s string) string {
		if s = strings.TrimSpace(s); s == "0" {
			return ""
		}
		return s
	}
	if r.ID != "" {
		id = r.ID
	}
	return report{
		ID: id, State: r.State, Outcome: r.Outcome, ErrCode: r.ErrCode, Reason: r.Reason, Hint: r.Hint,
		Warnings: r.Warnings, Output: r.Message, Cut: r.Cut, Stderr: r.Stderr,
		VNC: strings.TrimSpace(r.Vnc), GUID: guid(r.Guid), DskGUID: guid(r.DskGuid),
	}
}

// print prints v as JSON on a line of its own.
func (g *globals) print(v any) error {
	enc := json.NewEncoder(g.stdout)
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}
