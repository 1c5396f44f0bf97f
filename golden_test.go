package cbsdmq_test

import (
	"bytes"
	"encoding/json"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/cbsd/cbsdmq"
)

const testULID = "01K9ZQ6V4S8H2M0W3C5D7E9F1G"

var testTime = time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)

func TestJobJSON(t *testing.T) {
	tests := map[string]struct {
		job  cbsdmq.Job
		want string
	}{
		"original": {
			cbsdmq.Job{Command: "jcreate", Args: []cbsdmq.Arg{{"jname", "jail1"}, {"host_hostname", "jail1.my.domain"}, {"astart", "1"}}},
			`{"Command":"jcreate","CommandArgs":{"jname":"jail1","host_hostname":"jail1.my.domain","astart":"1"}}`,
		},
		"no arguments": {
			cbsdmq.Job{Command: "jls"},
			`{"Command":"jls","CommandArgs":{}}`,
		},
		"reply tube": {
			cbsdmq.Job{Command: "jls", JobID: 1<<53 - 1},
			`{"Command":"jls","CommandArgs":{},"JobID":9007199254740991}`,
		},
		"everything": {
			cbsdmq.Job{
				Command: "bstart", Args: []cbsdmq.Arg{{"jname", "vm1"}}, JobID: 7,
				Meta: &cbsdmq.Meta{
					V: 1, ID: testULID, Pool: "pool1", Key: "ORDER-4711", Sender: "shop@web1", Stream: true,
					InOrder: true, Words: []string{"a b", "<ü>"}, Expires: testTime,
				},
			},
			`{"Command":"bstart","CommandArgs":{"jname":"vm1"},"JobID":7,"cbsdmq":{"v":1,"id":"01K9ZQ6V4S8H2M0W3C5D7E9F1G",` +
				`"pool":"pool1","key":"ORDER-4711","sender":"shop@web1","stream":true,"in_order":true,` +
				`"words":["a b","\u003cü\u003e"],"expires":"2026-11-22T10:00:00Z"}}`,
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := json.Marshal(tt.job)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, string(got)); diff != "" {
				t.Errorf("JSON (-want +got):\n%s", diff)
			}
			back, err := cbsdmq.ParseJob(got)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.job, back, cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("read back (-want +got):\n%s", diff)
			}
		})
	}
}

// An original agent must not see more than it knows: additions stay in one
// object.
func TestJobForOriginalAgent(t *testing.T) {
	job := cbsdmq.Job{Command: "jls", JobID: 5, Meta: &cbsdmq.Meta{V: 1, ID: testULID, Words: []string{"x"}}}
	body, err := json.Marshal(job)
	if err != nil {
		t.Fatal(err)
	}
	var keys map[string]json.RawMessage
	if err := json.Unmarshal(body, &keys); err != nil {
		t.Fatal(err)
	}
	for key := range keys {
		switch key {
		case "Command", "CommandArgs", "JobID", "cbsdmq":
		default:
			t.Errorf("unexpected key %q", key)
		}
	}
}

func TestJobMarshalRefusesWhatJSONCannotHold(t *testing.T) {
	for name, job := range map[string]cbsdmq.Job{
		"command": {Command: "j\xff"},
		"name":    {Command: "jls", Args: []cbsdmq.Arg{{"j\xff", "x"}}},
		"value":   {Command: "jls", Args: []cbsdmq.Arg{{"jname", "\xff"}}},
		"word":    {Command: "jls", Meta: &cbsdmq.Meta{V: 1, ID: testULID, Words: []string{"\xff"}}},
		"key":     {Command: "jls", Meta: &cbsdmq.Meta{V: 1, ID: testULID, Key: "\xff"}},
	} {
		if got, err := json.Marshal(job); cbsdmq.CodeOf(err) != cbsdmq.CodeRefused {
			t.Errorf("%s: got %s, %v; want a refusal", name, got, err)
		}
	}
}

func TestReplyJSON(t *testing.T) {
	tests := map[string]struct {
		reply cbsdmq.Reply
		want  string
	}{
		"original": { // byte for byte what bs_router sends
			cbsdmq.Reply{
				DskGuid: "987654321\n", Guid: "1234567890\n", Progress: 100,
				Message: "Creating jail1: progress\njail1 created\n",
			},
			`{"DskGuid":"987654321\n","ErrCode":0,"Guid":"1234567890\n","Message":"Creating jail1: progress\njail1 created\n","Progress":100,"Vnc":""}`,
		},
		"everything": {
			cbsdmq.Reply{
				DskGuid: "0", ErrCode: 124, Guid: "0", Message: "\ufffd", Progress: 100, Vnc: "127.0.0.1:5900\n",
				ID: "pool1/" + testULID, Key: "k", State: cbsdmq.Timeout, Outcome: cbsdmq.OutcomeFailed, Reason: "r", Hint: "h",
				Warnings: []string{"w"}, Stderr: "e", Cut: 1, Seq: 2, Offset: 3, Raw: []byte{0xff},
			},
			`{"DskGuid":"0","ErrCode":124,"Guid":"0","Message":"` + "\ufffd" + `","Progress":100,"Vnc":"127.0.0.1:5900\n",` +
				`"ID":"pool1/01K9ZQ6V4S8H2M0W3C5D7E9F1G","Key":"k","State":"timeout","Outcome":"failed","Reason":"r","Hint":"h",` +
				`"Warnings":["w"],"Stderr":"e","Cut":1,"Seq":2,"Offset":3,"Raw":"/w=="}`,
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := json.Marshal(tt.reply)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, string(got)); diff != "" {
				t.Errorf("JSON (-want +got):\n%s", diff)
			}
			back, err := cbsdmq.ParseReply(got)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.reply, back); diff != "" {
				t.Errorf("read back (-want +got):\n%s", diff)
			}
		})
	}
}

// The additions come after the original's fields: a reply of ours begins with
// the original reply.
func TestReplyBeginsWithOriginal(t *testing.T) {
	full := cbsdmq.Reply{DskGuid: "0", Guid: "0", Message: "m\n", Progress: 100, ID: "pool1/17", State: cbsdmq.Done}
	old := cbsdmq.Reply{DskGuid: "0", Guid: "0", Message: "m\n", Progress: 100}
	long, err := json.Marshal(full)
	if err != nil {
		t.Fatal(err)
	}
	short, err := json.Marshal(old)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.HasPrefix(long, short[:len(short)-1]) {
		t.Errorf("%s\ndoes not begin with\n%s", long, short)
	}
}

func TestControlJSON(t *testing.T) {
	request := cbsdmq.Request{
		V: 1, Op: cbsdmq.OpOutput, Reply: testULID, Req: "3", Pool: "pool1", Job: testULID,
		Offset: 5, Wait: 30 * time.Second, Limit: 6, After: "17", State: cbsdmq.Running,
		Guest: "vm1", Since: testTime, By: "anna@host1", Reason: "disk swap", Action: "drop", Expires: testTime,
	}
	wantJSON(t, request, `{"v":1,"op":"output","reply":"01K9ZQ6V4S8H2M0W3C5D7E9F1G","req":"3","pool":"pool1",`+
		`"job":"01K9ZQ6V4S8H2M0W3C5D7E9F1G","offset":5,"wait":30000000000,"limit":6,"after":"17","state":"running",`+
		`"guest":"vm1","since":"2026-11-22T10:00:00Z","by":"anna@host1","reason":"disk swap","action":"drop","expires":"2026-11-22T10:00:00Z"}`)
	wantJSON(t, cbsdmq.Request{V: 1, Op: cbsdmq.OpStatus, Reply: testULID}, `{"v":1,"op":"status","reply":"`+testULID+`","req":""}`)

	body, err := json.Marshal(request)
	if err != nil {
		t.Fatal(err)
	}
	got, err := cbsdmq.ParseRequest(body)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(request, got); diff != "" {
		t.Errorf("request read back (-want +got):\n%s", diff)
	}

	response := cbsdmq.Response{
		V: 1, Req: "3",
		Error:  &cbsdmq.Problem{Code: cbsdmq.CodeNotFound, Field: "job", Message: "no such job", Hint: "h"},
		Agent:  &cbsdmq.AgentInfo{Pool: "pool1", Host: "h1", Version: "v", PID: 2, StartedAt: testTime, Queued: 3, Running: 4, Held: 5, Workers: 6, Readers: 7, Trouble: "t"},
		Job:    &cbsdmq.JobInfo{ID: "pool1/17", Pool: "pool1", Command: "jls", Args: []string{"a=b"}, State: cbsdmq.Queued, AcceptedAt: testTime, Output: 9},
		Jobs:   []cbsdmq.JobInfo{},
		Guests: []cbsdmq.Guest{{Pool: "pool1", Name: "vm1", Emulator: "bhyve", Status: "On", PID: 5, Hostname: "vm1.my.domain", IP4: "10.0.0.2", CPUs: 2, RAM: 1 << 30, OSType: "linux", VNC: "127.0.0.1:5900", AStart: true}},
		Data:   []byte("out"), Offset: 5, End: true, Final: &cbsdmq.Reply{Progress: 100}, More: true,
	}
	wantJSON(t, response, `{"v":1,"req":"3","error":{"code":"not_found","field":"job","message":"no such job","hint":"h"},`+
		`"agent":{"pool":"pool1","host":"h1","version":"v","pid":2,"started_at":"2026-11-22T10:00:00Z","queued":3,"running":4,"held":5,"workers":6,"readers":7,"trouble":"t"},`+
		`"job":{"id":"pool1/17","pool":"pool1","command":"jls","args":["a=b"],"guest":"","state":"queued","outcome":"","err_code":0,"progress":0,"accepted_at":"2026-11-22T10:00:00Z","sender":"","output":9},`+
		`"guests":[{"pool":"pool1","name":"vm1","emulator":"bhyve","status":"On","pid":5,"hostname":"vm1.my.domain","ip4_addr":"10.0.0.2","vm_cpus":2,"vm_ram":1073741824,"vm_os_type":"linux","vnc":"127.0.0.1:5900","astart":true}],`+
		`"data":"b3V0","offset":5,"end":true,"final":{"DskGuid":"","ErrCode":0,"Guid":"","Message":"","Progress":100,"Vnc":""},"more":true}`)
	body, err = json.Marshal(response)
	if err != nil {
		t.Fatal(err)
	}
	back, err := cbsdmq.ParseResponse(body)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(response, back, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("response read back (-want +got):\n%s", diff)
	}
}

func wantJSON(t *testing.T, v any, want string) {
	t.Helper()
	got, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("JSON (-want +got):\n%s", diff)
	}
}
