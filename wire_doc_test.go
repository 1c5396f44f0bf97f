package cbsdmq_test

import (
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/cbsd/cbsdmq"
)

var docBlock = regexp.MustCompile("(?s)```json (\\w+)\n(.*?)```")

func wireDoc(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("docs/WIRE.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// What the page shows is what the program reads.
func TestWireDocExamples(t *testing.T) {
	seen := make(map[string]int)
	for _, block := range docBlock.FindAllStringSubmatch(wireDoc(t), -1) {
		kind, body := block[1], []byte(block[2])
		seen[kind]++
		var err error
		switch kind {
		case "job":
			_, err = cbsdmq.ParseJob(body)
		case "reply":
			_, err = cbsdmq.ParseReply(body)
		case "request":
			_, err = cbsdmq.ParseRequest(body)
		case "response":
			_, err = cbsdmq.ParseResponse(body)
		default:
			t.Errorf("a block of kind %q", kind)
		}
		if err != nil {
			t.Errorf("%v\n%s", err, body)
		}
	}
	for _, kind := range []string{"job", "reply", "request", "response"} {
		if seen[kind] == 0 {
			t.Errorf("the page shows no %s", kind)
		}
	}
}

// The page names every key, and every state, outcome, code and request.
func TestWireDocNamesEverything(t *testing.T) {
	doc := wireDoc(t)
	var names []string
	for _, typ := range []reflect.Type{
		reflect.TypeFor[cbsdmq.Meta](), reflect.TypeFor[cbsdmq.Reply](), reflect.TypeFor[cbsdmq.Request](), reflect.TypeFor[cbsdmq.Response](),
		reflect.TypeFor[cbsdmq.Problem](), reflect.TypeFor[cbsdmq.AgentInfo](), reflect.TypeFor[cbsdmq.JobInfo](), reflect.TypeFor[cbsdmq.Guest](),
	} {
		for f := range typ.Fields() {
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			if name == "" {
				name = f.Name
			}
			names = append(names, name)
		}
	}
	names = append(names, "Command", "CommandArgs", "JobID", "cbsdmq", cbsdmq.ControlSuffix)
	for _, s := range []cbsdmq.State{
		cbsdmq.Queued, cbsdmq.Held, cbsdmq.Running, cbsdmq.Done, cbsdmq.Failed, cbsdmq.Refused, cbsdmq.Cancelled, cbsdmq.Timeout, cbsdmq.Unknown,
	} {
		names = append(names, string(s))
	}
	for _, o := range []cbsdmq.Outcome{cbsdmq.Changed, cbsdmq.Unchanged, cbsdmq.OutcomeFailed} {
		names = append(names, string(o))
	}
	for _, op := range []cbsdmq.Op{cbsdmq.OpStatus, cbsdmq.OpJobs, cbsdmq.OpOutput, cbsdmq.OpCancel, cbsdmq.OpGuests, cbsdmq.OpHeld} {
		names = append(names, string(op))
	}
	for _, c := range []cbsdmq.Code{
		cbsdmq.CodeRefused, cbsdmq.CodeBadConfig, cbsdmq.CodeNotFound, cbsdmq.CodeUnreachable, cbsdmq.CodeGaveUp, cbsdmq.CodeHeld,
		cbsdmq.CodeUnavailable, cbsdmq.CodeInternal,
	} {
		names = append(names, string(c))
	}
	for _, name := range names {
		if !strings.Contains(doc, "`"+name+"`") {
			t.Errorf("the page does not name `%s`", name)
		}
	}
}
