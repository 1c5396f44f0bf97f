package cbsdmq_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/cbsd/cbsdmq"
)

// outputs are the worst cases of escaping and the ordinary one.
var outputs = map[string][]byte{
	"text":           bytes.Repeat([]byte("jail1   On  10.0.0.1\n"), 4000),
	"control bytes":  bytes.Repeat([]byte{1}, cbsdmq.ReplyOutput), // 6 bytes each
	"angle brackets": bytes.Repeat([]byte("<"), cbsdmq.ReplyOutput),
	"separators":     bytes.Repeat([]byte("\u2028"), 20000),
	"quotes":         bytes.Repeat([]byte(`"`), cbsdmq.ReplyOutput),
	"not UTF-8":      bytes.Repeat([]byte{0xff}, cbsdmq.ReplyOutput), // in Message and in Raw
	"cyrillic":       []byte(strings.Repeat("клетка", 10000)),
	"emoji":          []byte(strings.Repeat("😀", 20000)),
	"a bad tail":     append(bytes.Repeat([]byte("x"), cbsdmq.ReplyOutput), 0xf0, 0x9f),
	"bad beginning":  append([]byte{0xff}, bytes.Repeat([]byte("x"), cbsdmq.ReplyOutput+10000)...),
}

func TestReplyFits(t *testing.T) {
	for name, out := range outputs {
		for _, progress := range []int{50, 100} {
			r := cbsdmq.Reply{Progress: progress, ID: "pool1/" + testULID, State: cbsdmq.Done, Offset: 7, Stderr: strings.Repeat("e\n", cbsdmq.ReplyStderr/2)}
			r.SetOutput(out)
			checkFit(t, name, r, cbsdmq.JobMax)
		}
	}
}

func TestReplyFitKeepsWhatFits(t *testing.T) {
	r := cbsdmq.Reply{Progress: 100, Message: "<é>\x01\n", Stderr: "e", Warnings: []string{"w"}, Offset: 5, Cut: 5}
	if diff := cmp.Diff(r, r.Fit(cbsdmq.JobMax)); diff != "" {
		t.Errorf("changed (-want +got):\n%s", diff)
	}
}

func TestReplyFitCutsTextsLast(t *testing.T) {
	long := strings.Repeat("\x02<ü", 30000)
	r := cbsdmq.Reply{
		Progress: 100, Message: strings.Repeat("m", 100000), DskGuid: long, Guid: long, Vnc: long, ID: long, Key: long,
		Reason: long, Hint: long, Stderr: long, Warnings: []string{"first", long, "third"},
	}
	before := r.Warnings[1]
	got := checkFit(t, "long texts", r, cbsdmq.JobMax)
	if len(got.Message) < cbsdmq.JobMax/3 {
		t.Errorf("only %d bytes of output are left", len(got.Message))
	}
	for name, s := range map[string]string{"Reason": got.Reason, "Hint": got.Hint, "Stderr": got.Stderr, "a warning": got.Warnings[1]} {
		if len(s) < 500 || !utf8.ValidString(s) {
			t.Errorf("%s: %d bytes, valid %v", name, len(s), utf8.ValidString(s))
		}
	}
	if got.Warnings[0] != "first" || r.Warnings[1] != before {
		t.Error("the first warning was cut, or the caller's")
	}
	if !strings.HasSuffix(long, got.Stderr) || !strings.HasPrefix(long, strings.TrimSuffix(got.Reason, "...")) {
		t.Error("stderr keeps its end and a reason its beginning")
	}
	checkFit(t, "smallest", r, 1024)
}

func TestReplyFitProperty(t *testing.T) {
	piece := rapid.OneOf(
		rapid.SliceOfN(rapid.Byte(), 0, 2000),
		rapid.Map(rapid.String(), func(s string) []byte { return []byte(s) }),
		rapid.Map(rapid.SampledFrom([]string{"\x01", "<", "x", "é", "😀", "\u2028", "\xff", "\xe2\x80"}), func(s string) []byte {
			return []byte(strings.Repeat(s, 700))
		}),
	)
	rapid.Check(t, func(t *rapid.T) {
		r := cbsdmq.Reply{
			Progress: rapid.SampledFrom([]int{0, 99, 100}).Draw(t, "progress"),
			Reason:   rapid.String().Draw(t, "reason"),
			Stderr:   string(piece.Draw(t, "stderr")),
			Warnings: rapid.SliceOfN(rapid.String(), 0, 50).Draw(t, "warnings"),
			Offset:   rapid.Int64Range(0, 1<<40).Draw(t, "offset"),
			Cut:      rapid.Int64Range(0, 1<<40).Draw(t, "cut"),
		}
		r.SetOutput(bytes.Join(rapid.SliceOfN(piece, 0, 8).Draw(t, "output"), nil))
		checkFit(t, "drawn", r, rapid.IntRange(1024, 20000).Draw(t, "max"))
	})
}

// checkFit fits r into max bytes and checks every promise of Fit.
func checkFit(t interface {
	Helper()
	Errorf(string, ...any)
	Fatal(...any)
}, name string, r cbsdmq.Reply, max int) cbsdmq.Reply {
	t.Helper()
	whole := r.Output()
	got := r.Fit(max)
	body, err := json.Marshal(got)
	if err != nil {
		t.Fatal(err)
	}
	if len(body) > max {
		t.Errorf("%s: %d bytes do not fit %d", name, len(body), max)
	}
	out := got.Output()
	lost := len(whole) - len(out)
	if r.Final() {
		if !bytes.HasSuffix(whole, out) || got.Offset != r.Offset+int64(lost) || got.Cut != r.Cut+int64(lost) {
			t.Errorf("%s: a last reply keeps the end: lost %d, Offset %d, Cut %d", name, lost, got.Offset, got.Cut)
		}
	} else {
		if !bytes.HasPrefix(whole, out) || got.Offset != r.Offset || got.Cut != r.Cut {
			t.Errorf("%s: a piece keeps its beginning: lost %d, Offset %d, Cut %d", name, lost, got.Offset, got.Cut)
		}
		if len(whole) > 0 && len(out) == 0 {
			t.Errorf("%s: a piece without output makes no progress", name)
		}
	}
	if utf8.Valid(whole) != utf8.Valid(out) && utf8.Valid(whole) {
		t.Errorf("%s: cut within a character", name)
	}
	if utf8.Valid(out) != (len(got.Raw) == 0) {
		t.Errorf("%s: valid %v, Raw has %d bytes", name, utf8.Valid(out), len(got.Raw))
	}
	// The first bad byte after text takes the place of all that text in Raw.
	if lost > 3 && len(body) < max*2/5-100 || lost > 3 && len(got.Raw) == 0 && utf8.Valid(whole) && len(body) < max-100 {
		t.Errorf("%s: cut to %d of %d bytes", name, len(body), max)
	}
	back, err := cbsdmq.ParseReply(body)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(got, back, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("%s: read back (-want +got):\n%s", name, diff)
	}
	return got
}

// Pieces of a stream, each cut to fit, join to the whole output.
func TestPiecesJoin(t *testing.T) {
	for name, out := range outputs {
		var joined []byte
		for n := 0; len(joined) < len(out); n++ {
			if n > 100 {
				t.Fatalf("%s: %d of %d bytes after %d pieces", name, len(joined), len(out), n)
			}
			r := cbsdmq.Reply{Offset: int64(len(joined))}
			r.SetOutput(out[len(joined):min(len(out), len(joined)+cbsdmq.ReplyOutput)])
			r = r.Fit(cbsdmq.JobMax)
			joined = append(joined, r.Output()...)
		}
		if !bytes.Equal(joined, out) {
			t.Errorf("%s: the pieces do not join to the output", name)
		}
	}
}

func TestResponseFits(t *testing.T) {
	long := strings.Repeat("\x01<é", 20000)
	job := cbsdmq.JobInfo{ID: "pool1/" + testULID, Pool: "pool1", Command: "bcreate", Args: []string{"jname=vm1", long, "x"}, Reason: long, AcceptedAt: testTime}
	final := &cbsdmq.Reply{Progress: 100, Message: strings.Repeat("m", 65000), State: cbsdmq.Done, ID: job.ID}
	jobs := make([]cbsdmq.JobInfo, 300)
	guests := make([]cbsdmq.Guest, 1000)
	for i := range jobs {
		jobs[i] = job
		jobs[i].Args, jobs[i].Reason = []string{"jname=vm1", long[:2000]}, long[:2000]
	}
	for i := range guests {
		guests[i] = cbsdmq.Guest{Pool: "pool1", Name: "vm1", Emulator: "bhyve", Hostname: "vm1.my.domain"}
	}
	tests := map[string]struct {
		in    cbsdmq.Response
		check func(cbsdmq.Response) bool
	}{
		"small":          {cbsdmq.Response{Data: []byte("x"), End: true, Final: &cbsdmq.Reply{}}, func(r cbsdmq.Response) bool { return r.End && r.Final != nil && len(r.Data) == 1 }},
		"data":           {cbsdmq.Response{Data: make([]byte, 60000), End: true}, func(r cbsdmq.Response) bool { return !r.End && len(r.Data) > 48000 }},
		"data and final": {cbsdmq.Response{Data: make([]byte, 30000), End: true, Final: final}, func(r cbsdmq.Response) bool { return !r.End && r.Final == nil && len(r.Data) == 30000 }},
		"final":          {cbsdmq.Response{End: true, Final: final}, func(r cbsdmq.Response) bool { return r.End && len(r.Final.Message) > 64000 }},
		"final and job":  {cbsdmq.Response{Job: &job, Final: final}, func(r cbsdmq.Response) bool { return len(r.Final.Message) > 60000 && r.Job.Args[0] == "jname=vm1" }},
		"jobs":           {cbsdmq.Response{Jobs: jobs}, func(r cbsdmq.Response) bool { return r.More && len(r.Jobs) > 50 }},
		"acts":           {cbsdmq.Response{Acts: make([]cbsdmq.Act, 3000)}, func(r cbsdmq.Response) bool { return r.More && len(r.Acts) > 500 }},
		"pauses":         {cbsdmq.Response{Pauses: make([]cbsdmq.Pause, 3000)}, func(r cbsdmq.Response) bool { return r.More && len(r.Pauses) > 500 }},
		"waits":          {cbsdmq.Response{Waits: make([]cbsdmq.Wait, 3000), More: true}, func(r cbsdmq.Response) bool { return r.More && len(r.Waits) > 500 }},
		"guests":         {cbsdmq.Response{Guests: guests}, func(r cbsdmq.Response) bool { return r.More && len(r.Guests) > 200 }},
		"error": {cbsdmq.Response{Error: &cbsdmq.Problem{Code: cbsdmq.CodeInternal, Message: long, Hint: long, Field: long}}, func(r cbsdmq.Response) bool {
			return r.Error.Code == cbsdmq.CodeInternal && len(r.Error.Message) > 1000
		}},
		"all at once": {cbsdmq.Response{
			Error: &cbsdmq.Problem{Message: long, Hint: long, Field: long}, Agent: &cbsdmq.AgentInfo{Trouble: long}, Job: &job,
			Data: make([]byte, 60000),
		}, func(r cbsdmq.Response) bool { return len(r.Data) > 1000 }},
		"agent's trouble": {cbsdmq.Response{Agent: &cbsdmq.AgentInfo{Trouble: long}}, func(r cbsdmq.Response) bool { return len(r.Agent.Trouble) > 1000 }},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			before, err := json.Marshal(tt.in)
			if err != nil {
				t.Fatal(err)
			}
			got := tt.in.Fit(cbsdmq.JobMax)
			body, err := json.Marshal(got)
			if err != nil {
				t.Fatal(err)
			}
			if len(body) > cbsdmq.JobMax {
				t.Errorf("%d bytes", len(body))
			}
			if !tt.check(got) {
				t.Errorf("cut to %.300s", body)
			}
			if after, _ := json.Marshal(tt.in); !bytes.Equal(before, after) {
				t.Error("the caller's response was changed")
			}
		})
	}
}
