package cbsdmq_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/cbsd/cbsdmq"
)

// hostile are bodies that are not a job, with the beginning of the error.
var hostile = map[string]struct{ body, want string }{
	"empty":                {"", "not JSON: it ends in the middle"},
	"text":                 {"jls\n", "not JSON: invalid character 'j'"},
	"half a message":       {`{"Command":"jremove","CommandArgs":{"jname":"ja`, "CommandArgs: not JSON: it ends in the middle"},
	"half, no brace":       {`{"Command":"jremove"`, "not JSON: it ends in the middle"},
	"array":                {`["jls"]`, "not a JSON object"},
	"string":               {`"jls"`, "not a JSON object"},
	"null":                 {"null", "not a JSON object"},
	"number":               {"4", "not a JSON object"},
	"no command":           {`{}`, "Command: missing"},
	"empty command":        {`{"Command":""}`, "Command: missing"},
	"null command":         {`{"Command":null}`, "Command: missing"},
	"command array":        {`{"Command":["jls"]}`, "Command: wants a text, not a JSON array"},
	"command number":       {`{"Command":4}`, "Command: wants a text, not a JSON number"},
	"args string":          {`{"Command":"jremove","CommandArgs":"jname=jail1"}`, "CommandArgs: not a JSON object"},
	"args array":           {`{"Command":"jremove","CommandArgs":["jname=jail1"]}`, "CommandArgs: not a JSON object"},
	"args number":          {`{"Command":"jremove","CommandArgs":4}`, "CommandArgs: not a JSON object"},
	"args true":            {`{"Command":"jremove","CommandArgs":true}`, "CommandArgs: not a JSON object"},
	"value null":           {`{"Command":"jremove","CommandArgs":{"jname":null}}`, "CommandArgs.jname: null is not a value"},
	"value array":          {`{"Command":"jremove","CommandArgs":{"jname":["a"]}}`, "CommandArgs.jname: an array is not a value"},
	"value object":         {`{"Command":"jremove","CommandArgs":{"jname":{}}}`, "CommandArgs.jname: an object is not a value"},
	"repeated":             {`{"Command":"jls","Command":"jremove"}`, "Command: the key comes twice"},
	"repeated by case":     {`{"Command":"jls","cOMMAND":"jremove"}`, "cOMMAND: the key comes twice"},
	"repeated by long s":   {`{"Command":"jls","CommandArgs":{},"commandargſ":{"jname":"x"}}`, "commandargſ: the key comes twice"},
	"repeated unknown":     {`{"Command":"jls","x":1,"x":2}`, "x: the key comes twice"},
	"repeated by escape":   {`{"Command":"jls","\u0043ommand":"jremove"}`, "Command: the key comes twice"},
	"repeated argument":    {`{"Command":"jls","CommandArgs":{"jname":"a","jname":"b"}}`, "CommandArgs.jname: the key comes twice"},
	"argument by case":     {`{"Command":"jls","CommandArgs":{"jname":"a","JNAME":"b"}}`, "CommandArgs.JNAME: the key comes twice"},
	"argument, other form": {`{"Command":"jls","CommandArgs":{"jname":"4","jname":4}}`, "CommandArgs.jname: the key comes twice"},
	"argument, three":      {`{"Command":"jls","CommandArgs":{"jname":"a","jname":"a","jname":"b"}}`, "CommandArgs.jname: the key comes twice"},
	"repeated in ours":     {`{"Command":"jls","cbsdmq":{"v":1,"id":"` + testULID + `","ID":"x"}}`, "cbsdmq.ID: the key comes twice"},
	"JobID string":         {`{"Command":"jls","JobID":"5"}`, "JobID: wants a whole number from 0 to 18446744073709551615, not a JSON string"},
	"JobID negative":       {`{"Command":"jls","JobID":-1}`, "JobID: wants a whole number from 0 to 18446744073709551615, not a JSON number -1"},
	"JobID fraction":       {`{"Command":"jls","JobID":1.5}`, "JobID: wants a whole number from 0 to 18446744073709551615, not a JSON number 1.5"},
	"JobID too large":      {`{"Command":"jls","JobID":18446744073709551616}`, "JobID: wants a whole number from 0 to 18446744073709551615, not a JSON number 18446744073709551616"},
	"ours null":            {`{"Command":"jls","cbsdmq":null}`, "cbsdmq: not a JSON object"},
	"ours array":           {`{"Command":"jls","cbsdmq":[]}`, "cbsdmq: not a JSON object"},
	"ours of another age":  {`{"Command":"jls","cbsdmq":{"v":2,"id":"` + testULID + `"}}`, "cbsdmq.v: version 2 is not known"},
	"ours without id":      {`{"Command":"jls","cbsdmq":{"v":1}}`, "cbsdmq.id: not a ULID"},
	"ours with a path":     {`{"Command":"jls","cbsdmq":{"v":1,"id":"../../etc/passwd"}}`, "cbsdmq.id: not a ULID"},
	"words string":         {`{"Command":"jls","cbsdmq":{"v":1,"id":"` + testULID + `","words":"a b"}}`, "cbsdmq.words: wants a list"},
	"words number":         {`{"Command":"jls","cbsdmq":{"v":1,"id":"` + testULID + `","words":[4]}}`, "cbsdmq.words: wants a text"},
	"words null":           {`{"Command":"jls","cbsdmq":{"v":1,"id":"` + testULID + `","words":["a",null]}}`, "cbsdmq.words: word 2 is null"},
	"stream string":        {`{"Command":"jls","cbsdmq":{"v":1,"id":"` + testULID + `","stream":"yes"}}`, "cbsdmq.stream: wants true or false"},
	"expires tomorrow":     {`{"Command":"jls","cbsdmq":{"v":1,"id":"` + testULID + `","expires":"tomorrow"}}`, "cbsdmq.expires: not a time"},
	"expires number":       {`{"Command":"jls","cbsdmq":{"v":1,"id":"` + testULID + `","expires":1795341600}}`, "cbsdmq.expires: not a time"},
	"ours is a text":       {`{"Command":"jls","cbsdmq":"v1"}`, "cbsdmq: not a JSON object"},
	"sender too long":      {`{"Command":"jls","cbsdmq":{"v":1,"id":"` + testULID + `","sender":"` + strings.Repeat("x", cbsdmq.NameMax+1) + `"}}`, "cbsdmq.sender: 513 bytes, more than 512"},
	"sender in colour":     {`{"Command":"jls","cbsdmq":{"v":1,"id":"` + testULID + `","sender":"\u001b[31mroot"}}`, "cbsdmq.sender: not a line of text"},
	"key too long":         {`{"Command":"jls","cbsdmq":{"v":1,"id":"` + testULID + `","key":"` + strings.Repeat("x", cbsdmq.NameMax+1) + `"}}`, "cbsdmq.key: 513 bytes, more than 512"},
	"key of two lines":     {`{"Command":"jls","cbsdmq":{"v":1,"id":"` + testULID + `","key":"a\nb"}}`, "cbsdmq.key: not a line of text"},
	"NUL byte":             {"{\"Command\":\"jls\x00\"}", `Command: not JSON: invalid character '\x00'`},
	"NUL in the command":   {`{"Command":"jls\u0000"}`, "Command: contains NUL"},
	"NUL in a value":       {`{"Command":"jls","CommandArgs":{"jname":"a\u0000b"}}`, "CommandArgs.jname: contains NUL"},
	"NUL in a name":        {`{"Command":"jls","CommandArgs":{"jn\u0000":"a"}}`, `CommandArgs."jn\x00": contains NUL`},
	"NUL in a word":        {`{"Command":"jls","cbsdmq":{"v":1,"id":"` + testULID + `","words":["\u0000"]}}`, "cbsdmq.words: word 1 contains NUL"},
	"invalid UTF-8":        {"{\"Command\":\"jls\xff\"}", "not valid UTF-8"},
	"UTF-16":               {"{\x00\"\x00", "not JSON: invalid character '\\x00'"},
	"byte order mark":      {"\xef\xbb\xbf{\"Command\":\"jls\"}", "not JSON: it begins with a byte order mark"},
	"low surrogate":        {`{"Command":"jls","CommandArgs":{"jname":"\udc00"}}`, "half a surrogate pair"},
	"high surrogate":       {`{"Command":"jls","CommandArgs":{"jname":"\ud800x"}}`, "half a surrogate pair"},
	"two high surrogates":  {`{"Command":"jls","CommandArgs":{"jname":"\ud800\ud800"}}`, "half a surrogate pair"},
	"trailing text":        {`{"Command":"jls"} rm -rf /`, "something follows after the JSON object"},
	"trailing object":      {`{"Command":"jls"}{"Command":"jremove"}`, "something follows after the JSON object"},
	"trailing NUL":         {"{\"Command\":\"jls\"}\x00", "something follows after the JSON object"},
	"trailing comma":       {`{"Command":"jls",}`, "not JSON: "},
	"leading comma":        {`{,"Command":"jls"}`, "not JSON: "},
	"missing comma":        {`{"Command":"jls" "JobID":1}`, "not JSON: "},
	"missing colon":        {`{"Command" "jls"}`, "Command: not JSON: "},
	"wrong bracket":        {`{"Command":"jls"]`, "not JSON: "},
	"comment":              {`{"Command":"jls" /* x */}`, "not JSON: "},
	"single quotes":        {`{'Command':'jls'}`, "not JSON: "},
	"leading zero":         {`{"Command":"jls","CommandArgs":{"a":01}}`, "CommandArgs: not JSON: "},
	"plus sign":            {`{"Command":"jls","CommandArgs":{"a":+1}}`, "CommandArgs: not JSON: "},
	"NaN":                  {`{"Command":"jls","CommandArgs":{"a":NaN}}`, "CommandArgs: not JSON: "},
	"newline in a string":  {"{\"Command\":\"j\nls\"}", `Command: not JSON: invalid character '\n'`},
	"deep array":           {`{"Command":"jls","x":` + strings.Repeat("[", 60000), "x: not JSON: invalid character '[' exceeded max depth"},
	"deep objects":         {`{"Command":"jls","CommandArgs":` + strings.Repeat(`{"a":`, 12000), "CommandArgs: not JSON: invalid character '{' exceeded max depth"},
	"deep and whole":       {strings.Repeat("[", 30000) + strings.Repeat("]", 30000), "not a JSON object"},
	"64 KiB":               {`{"Command":"jls","x":"` + strings.Repeat("x", cbsdmq.JobMax) + `"}`, "the job has 65559 bytes, more than 65535"},
	"64 MB":                {strings.Repeat(" ", 64<<20), "the job has 67108864 bytes, more than 65535"},
	"long name, unprinted": {`{"Command":"jls","` + strings.Repeat("x", 5000) + "\":1,\"" + strings.Repeat("x", 5000) + `":2}`, strings.Repeat("x", 64) + "...: the key comes twice"},
}

func TestParseJobRefuses(t *testing.T) {
	for name, tt := range hostile {
		t.Run(name, func(t *testing.T) {
			job, err := cbsdmq.ParseJob([]byte(tt.body))
			if cbsdmq.CodeOf(err) != cbsdmq.CodeRefused {
				t.Fatalf("got %+v, %v; want a refusal", job, err)
			}
			if !strings.HasPrefix(err.Error(), tt.want) {
				t.Errorf("error %q does not begin with %q", err, tt.want)
			}
			if len(err.Error()) > 300 {
				t.Errorf("an error of %d bytes", len(err.Error()))
			}
			if cbsdmq.HintOf(err) == "" {
				t.Errorf("no way out of %q", err)
			}
			if len(tt.body) > 1<<20 {
				return
			}
			var direct cbsdmq.Job
			if err := json.Unmarshal([]byte(tt.body), &direct); err == nil {
				t.Errorf("json.Unmarshal took it: %+v", direct)
			}
		})
	}
}

func TestParseJobTakes(t *testing.T) {
	arg := func(value string) cbsdmq.Job {
		return cbsdmq.Job{Command: "jset", Args: []cbsdmq.Arg{{"a", value}}}
	}
	tests := map[string]struct {
		body string
		want cbsdmq.Job
	}{
		"any case":       {`{"command":"jset","COMMANDARGS":{"a":"x"}}`, arg("x")},
		"newlines":       {"\n{ \"Command\" :\n\"jset\" , \"CommandArgs\" : { \"a\" : \"x\" } }\r\n\t ", arg("x")},
		"unknown keys":   {`{"Date":"2026-11-22T10:00:00Z","Command":"jset","CommandArgs":{"a":"x"},"more":{"y":[1,{"z":null}]}}`, arg("x")},
		"integer":        {`{"Command":"jset","CommandArgs":{"a":4}}`, arg("4")},
		"spaced integer": {"{\"Command\":\"jset\",\"CommandArgs\":{\"a\":\n4 }}", arg("4")},
		"fraction":       {`{"Command":"jset","CommandArgs":{"a":4.5}}`, arg("4.5")},
		"exponent":       {`{"Command":"jset","CommandArgs":{"a":1e3}}`, arg("1e3")},
		"negative":       {`{"Command":"jset","CommandArgs":{"a":-4}}`, arg("-4")},
		"huge":           {`{"Command":"jset","CommandArgs":{"a":123456789012345678901234567890}}`, arg("123456789012345678901234567890")},
		"guid":           {`{"Command":"jset","CommandArgs":{"a":18446744073709551615}}`, arg("18446744073709551615")},
		"true":           {`{"Command":"jset","CommandArgs":{"a":true}}`, arg("1")},
		"false":          {`{"Command":"jset","CommandArgs":{"a": false }}`, arg("0")},
		"empty value":    {`{"Command":"jset","CommandArgs":{"a":""}}`, arg("")},
		"escapes":        {`{"Command":"jset","CommandArgs":{"a":"\u00e9\ud83d\ude00\\ud800\n"}}`, arg("é😀\\ud800\n")},
		"no args":        {`{"Command":"jls"}`, cbsdmq.Job{Command: "jls"}},
		"null args":      {`{"Command":"jls","CommandArgs":null,"JobID":null}`, cbsdmq.Job{Command: "jls"}},
		"JobID":          {`{"Command":"jls","jobid":18446744073709551615}`, cbsdmq.Job{Command: "jls", JobID: 1<<64 - 1}},
		"said again":     {`{"Command":"jset","CommandArgs":{"a":"x", "a": "x"}}`, arg("x")}, // cbsd-mq-api does
		"order":          {`{"Command":"jls","CommandArgs":{"b":"1","a":"2"}}`, cbsdmq.Job{Command: "jls", Args: []cbsdmq.Arg{{"b", "1"}, {"a", "2"}}}},
		"ours": {
			`{"Command":"jls","cbsdmq":{"v":1,"id":"` + testULID + `","words":["a"],"sign":{"x":1},"later":true}}`,
			cbsdmq.Job{Command: "jls", Meta: &cbsdmq.Meta{V: 1, ID: testULID, Words: []string{"a"}}},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := cbsdmq.ParseJob([]byte(tt.body))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got, cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("job (-want +got):\n%s", diff)
			}
		})
	}
}

// A refusal must find its way back: what names the reply address is kept.
func TestParseJobKeepsAddress(t *testing.T) {
	for name, body := range map[string]string{
		"half":         `{"JobID":4711,"Command":"jls","CommandArgs":{"jname":"ja`,
		"wrong type":   `{"Command":4,"JobID":4711}`,
		"bad argument": `{"CommandArgs":{"a":null},"Command":"jls","JobID":4711}`,
		"repeated":     `{"JobID":4711,"Command":"jls","command":"jls"}`,
	} {
		job, err := cbsdmq.ParseJob([]byte(body))
		if err == nil || job.JobID != 4711 {
			t.Errorf("%s: JobID %d, error %v", name, job.JobID, err)
		}
	}
	for name, body := range map[string]string{
		"bad argument": `{"cbsdmq":{"v":1,"id":"` + testULID + `"},"Command":"jls","CommandArgs":{"a":null}}`,
		"wrong type":   `{"cbsdmq":{"v":1,"id":"` + testULID + `","words":4},"Command":"jls"}`,
		"version":      `{"cbsdmq":{"v":9,"id":"` + testULID + `"},"Command":"jls"}`,
	} {
		job, err := cbsdmq.ParseJob([]byte(body))
		if err == nil || job.Meta == nil || job.Meta.ID != testULID {
			t.Errorf("%s: meta %+v, error %v", name, job.Meta, err)
		}
	}
}

func TestParseReplyRefuses(t *testing.T) {
	for _, body := range []string{"", "null", " null\n", "4", "[]", `"x"`, `{"Message":4}`, `{"Progress":"100"}`, `{"Message":"x"`, `{"Raw":"%"}`, "jail1 created\n"} {
		if r, err := cbsdmq.ParseReply([]byte(body)); err == nil {
			t.Errorf("%q: took it: %+v", body, r)
		}
		if r, err := cbsdmq.ParseResponse([]byte(body)); err == nil && body != `{"Message":4}` && body != `{"Progress":"100"}` && body != `{"Raw":"%"}` {
			t.Errorf("%q: took it: %+v", body, r)
		}
	}
}

func TestParseReplyIgnoresUnknown(t *testing.T) {
	got, err := cbsdmq.ParseReply([]byte(`{"progress":100,"Message":"a","Later":[1]}`))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(cbsdmq.Reply{Progress: 100, Message: "a"}, got); diff != "" {
		t.Errorf("reply (-want +got):\n%s", diff)
	}
	if !got.Final() {
		t.Error("not final at Progress 100")
	}
}

func TestParseRequestRefuses(t *testing.T) {
	ok := `"v":1,"op":"status","reply":"` + testULID + `","req":"1"`
	for name, tt := range map[string]struct{ body, want string }{
		"text":        {"status", "not JSON"},
		"null":        {"null", "not a JSON object"},
		"half":        {`{"v":1,"op":"sta`, "op: not JSON: it ends in the middle"},
		"repeated":    {`{` + ok + `,"REQ":"2"}`, "REQ: the key comes twice"},
		"version":     {`{"v":2,"op":"status","reply":"` + testULID + `"}`, "v: version 2"},
		"no reply":    {`{"v":1,"op":"status"}`, "reply: not a ULID"},
		"tube name":   {`{"v":1,"op":"status","reply":"x\r\ndelete 1"}`, "reply: not a ULID"},
		"long req":    {`{"v":1,"op":"status","reply":"` + testULID + `","req":"` + strings.Repeat("x", 65) + `"}`, "req: 65 bytes"},
		"op":          {`{"v":1,"op":"shutdown","reply":"` + testULID + `"}`, "op: not known"},
		"cancel what": {`{"v":1,"op":"cancel","reply":"` + testULID + `"}`, "job: missing"},
		"job":         {`{` + ok + `,"job":"../x"}`, "job: not the id"},
		"offset":      {`{` + ok + `,"offset":-1}`, "offset: negative"},
		"wait":        {`{` + ok + `,"wait":-1}`, "wait: negative"},
		"wait text":   {`{` + ok + `,"wait":"5s"}`, "request.wait: wants a whole number"},
		"limit":       {`{` + ok + `,"limit":-1}`, "limit: negative"},
		"too large":   {`{` + ok + `,"x":"` + strings.Repeat("x", cbsdmq.JobMax) + `"}`, "the request has"},
		"surrogate":   {`{` + ok + `,"pool":"\ud800"}`, "half a surrogate pair"},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := cbsdmq.ParseRequest([]byte(tt.body))
			if cbsdmq.CodeOf(err) != cbsdmq.CodeRefused || !strings.HasPrefix(err.Error(), tt.want) {
				t.Fatalf("got %+v, %v; want a refusal %q", r, err, tt.want)
			}
		})
	}
	r, err := cbsdmq.ParseRequest([]byte(`{` + ok + `,"wait":"5s"}`))
	if err == nil || r.Reply != testULID || r.Req != "1" {
		t.Errorf("a bad request lost its address: %+v, %v", r, err)
	}
}

func TestSplitID(t *testing.T) {
	for printed, want := range map[string][2]string{
		"pool1/" + testULID: {"pool1", testULID},
		"pool1/17":          {"pool1", "17"},
		"a_b-c/17.2":        {"a_b-c", "17.2"},
	} {
		pool, id, err := cbsdmq.SplitID(printed)
		if err != nil || pool != want[0] || id != want[1] {
			t.Errorf("%s: got %q, %q, %v", printed, pool, id, err)
		}
	}
	for _, printed := range []string{"", "17", "/17", "pool1/", "Pool1/17", "pool1/x", "pool1/17/2", "../17", "pool1/" + strings.ToLower(testULID), "pool1/81K9ZQ6V4S8H2M0W3C5D7E9F1G", "pool1/17\n", strings.Repeat("p", 33) + "/1"} {
		if _, _, err := cbsdmq.SplitID(printed); err == nil {
			t.Errorf("%q was taken", printed)
		}
	}
}

func TestULIDTime(t *testing.T) {
	if got, want := cbsdmq.ULIDTime("01ARYZ6S41TSV4RRFFQ69G5FAV").UnixMilli(), int64(1469918176385); got != want {
		t.Errorf("got %d, want %d: the example of the specification", got, want)
	}
	for _, bad := range []string{"", "x", strings.Repeat("u", 26), strings.Repeat("Z", 26)} {
		if got := cbsdmq.ULIDTime(bad); !got.IsZero() {
			t.Errorf("%q: got %v", bad, got)
		}
	}
}

func TestProblem(t *testing.T) {
	cause := errors.New("no such job")
	err := error(cbsdmq.Errorf(cbsdmq.CodeNotFound, "ID", "%w", cause).WithHint("list them"))
	got := cbsdmq.NewProblem(errors.Join(err)).Err()
	if got.Error() != "ID: no such job" || cbsdmq.CodeOf(got) != cbsdmq.CodeNotFound || cbsdmq.HintOf(got) != "list them" {
		t.Errorf("came back as %v, %s, %q", got, cbsdmq.CodeOf(got), cbsdmq.HintOf(got))
	}
	if cbsdmq.NewProblem(nil).Err() != nil {
		t.Error("nil is a problem")
	}
	if code := cbsdmq.CodeOf(cbsdmq.NewProblem(cause).Err()); code != cbsdmq.CodeInternal {
		t.Errorf("a plain error has code %s", code)
	}
	if code := cbsdmq.CodeOf((&cbsdmq.Problem{Message: "x"}).Err()); code != cbsdmq.CodeInternal {
		t.Errorf("a problem without code has code %q", code)
	}
}

func TestExitStatus(t *testing.T) {
	for code, want := range map[cbsdmq.Code]int{
		cbsdmq.CodeRefused: 2, cbsdmq.CodeBadConfig: 78, cbsdmq.CodeNotFound: 1, cbsdmq.CodeUnreachable: 69,
		cbsdmq.CodeGaveUp: 75, cbsdmq.CodeHeld: 1, cbsdmq.CodeUnavailable: 1, cbsdmq.CodeInternal: 1,
	} {
		if got := cbsdmq.ExitStatus(cbsdmq.Errorf(code, "", "x")); got != want {
			t.Errorf("%s: exit status %d, want %d", code, got, want)
		}
	}
	if cbsdmq.ExitStatus(nil) != 0 || cbsdmq.ExitStatus(errors.New("x")) != 1 {
		t.Error("nil is 0, any other error 1")
	}
}

func TestParseJobDoesNotKeepTheBody(t *testing.T) {
	body := []byte(`{"Command":"jls","CommandArgs":{"a":4},"cbsdmq":{"v":1,"id":"` + testULID + `","words":["w"]}}`)
	job, err := cbsdmq.ParseJob(body)
	if err != nil {
		t.Fatal(err)
	}
	clear(body)
	want := cbsdmq.Job{
		Command: "jls", Args: []cbsdmq.Arg{{"a", "4"}},
		Meta: &cbsdmq.Meta{V: 1, ID: testULID, Words: []string{"w"}},
	}
	if diff := cmp.Diff(want, job); diff != "" || bytes.ContainsRune(body, 'j') {
		t.Errorf("job (-want +got):\n%s", diff)
	}
}
