package cbsdmq_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/cbsd/cbsdmq"
)

var update = flag.Bool("update", false, "write testdata/signed anew")

// vectorSigner is the signer of docs/WIRE.md: its secret key is the bytes 0 to 31.
func vectorSigner() *cbsdmq.Signer {
	seed := make([]byte, ed25519.SeedSize)
	for i := range seed {
		seed[i] = byte(i)
	}
	return &cbsdmq.Signer{Name: "shop", Key: ed25519.NewKeyFromSeed(seed)}
}

func vectorJob() cbsdmq.Job {
	return cbsdmq.Job{
		Command: "bcreate", JobID: 6755399441055744,
		Args: []cbsdmq.Arg{{"vm_os_type", "linux"}, {"jname", "web7"}, {"comment", "größer"}},
		Meta: &cbsdmq.Meta{
			V: 1, ID: testULID, Pool: "pool1", Key: "ORDER-4711", Sender: "alice@shop", Stream: true,
			Words: []string{"quiet"}, Expires: testTime,
		},
	}
}

func vectorRequest() cbsdmq.Request {
	return cbsdmq.Request{
		V: 1, Op: cbsdmq.OpCancel, Reply: "01K9ZR3M5Q2X7B8N0P4T6V9W1Y", Req: "3", Pool: "pool1", Job: testULID,
		Expires: testTime.Add(10 * time.Minute), Made: testTime,
	}
}

// The bytes of a signature are a contract with programs in other languages.
func TestSignedGolden(t *testing.T) {
	s := vectorSigner()
	job, request := vectorJob(), vectorRequest()
	if err := s.SignJob(&job); err != nil {
		t.Fatal(err)
	}
	if err := s.SignRequest(&request); err != nil {
		t.Fatal(err)
	}
	for name, v := range map[string]interface{ SignedText() ([]byte, error) }{"job": &job, "request": &request} {
		text, err := v.SignedText()
		if err != nil {
			t.Fatal(err)
		}
		body, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		golden(t, name+".txt", text)
		golden(t, name+".json", append(body, '\n'))
		for _, part := range [][]byte{text, body[bytes.LastIndex(body, []byte(`"sig":`)):]} {
			if !strings.Contains(wireDoc(t), string(part)) {
				t.Errorf("docs/WIRE.md does not show %s", part)
			}
		}
	}
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	file := filepath.Join("testdata/signed", name)
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s (-want +got):\n%s", file, diff)
	}
}

// What is read from the body verifies, however its JSON is written; what is
// changed does not.
func TestSignedJobOnTheWire(t *testing.T) {
	signed, err := os.ReadFile("testdata/signed/job.json")
	if err != nil {
		t.Fatal(err)
	}
	public := vectorSigner().Key.Public().(ed25519.PublicKey)
	verify := func(body string) bool {
		job, err := cbsdmq.ParseJob([]byte(body))
		if err != nil {
			return false
		}
		text, err := job.SignedText()
		return err == nil && cbsdmq.Signed(public, text, job.Meta.Sig)
	}
	swap := func(pairs ...string) string {
		out := string(signed)
		for i := 0; i < len(pairs); i += 2 {
			if !strings.Contains(out, pairs[i]) {
				t.Fatalf("there is no %s", pairs[i])
			}
			out = strings.Replace(out, pairs[i], pairs[i+1], 1)
		}
		return out
	}
	sig := signed[bytes.Index(signed, []byte(`"sig":"`))+7:][:88]
	for name, tt := range map[string]struct {
		body string
		good bool
	}{
		"as it is":             {string(signed), true},
		"arguments reordered":  {swap(`"vm_os_type":"linux","jname":"web7"`, `"jname":"web7","vm_os_type":"linux"`), true},
		"escaped":              {swap("ö", `\u00f6`), true},
		"key in lower case":    {swap(`"Command"`, `"command"`), true},
		"argument twice":       {swap(`"jname":"web7"`, `"jname":"web7","jname":"web7"`), true},
		"other zone":           {swap("2026-11-22T10:00:00Z", "2026-11-22T12:00:00+02:00"), true},
		"argument added":       {swap(`"jname"`, `"astart":"1","jname"`), false},
		"argument gone":        {swap(`"vm_os_type":"linux",`, ``), false},
		"value":                {swap(`"web7"`, `"web8"`), false},
		"name":                 {swap(`"comment"`, `"comments"`), false},
		"decomposed":           {swap("ö", "o\u0308"), false},
		"command":              {swap("bcreate", "bremove"), false},
		"id":                   {swap(testULID, "01K9ZQ6V4S8H2M0W3C5D7E9F1H"), false},
		"pool":                 {swap("pool1", "pool2"), false},
		"no pool":              {swap(`"pool":"pool1",`, ``), false},
		"reply address":        {swap("6755399441055744", "6755399441055745"), false},
		"no reply address":     {swap(`"JobID":6755399441055744,`, ``), false},
		"key":                  {swap("ORDER-4711", "ORDER-4712"), false},
		"sender":               {swap("alice", "bob"), false},
		"signer":               {swap(`"shop"`, `"shop2"`), false},
		"stream":               {swap(`"stream":true,`, ``), false},
		"in order":             {swap(`"stream":true`, `"stream":true,"in_order":true`), false},
		"expires later":        {swap("2026-11-22T10", "2026-11-22T11"), false},
		"a part of a second":   {swap("10:00:00Z", "10:00:00.5Z"), false},
		"never expires":        {swap(`,"expires":"2026-11-22T10:00:00Z"`, ``), false},
		"word":                 {swap(`["quiet"]`, `["quiet","x"]`), false},
		"a word to argument":   {swap(`["quiet"]`, `[]`, `"comment"`, `"quiet":"","comment"`), false},
		"sig of zeros":         {swap(string(sig), strings.Repeat("A", 86)+"=="), false},
		"sig with line breaks": {swap(string(sig), string(sig[:44])+`\n`+string(sig[44:])), false},
		"sig with other bits":  {swap(string(sig), string(sig[:85])+string(sig[85]+1)+"=="), false},
		"short sig":            {swap(string(sig), string(sig[:40])), false},
		"no sig":               {swap(string(sig), ""), false},
		"huge sig":             {swap(string(sig), strings.Repeat("A", 60000)), false},
	} {
		t.Run(name, func(t *testing.T) {
			if got := verify(tt.body); got != tt.good {
				t.Errorf("verified: %v\n%.2000s", got, tt.body)
			}
		})
	}
}

// The signature of a request is none of a job, and the other way around.
func TestSignedKinds(t *testing.T) {
	job, request := vectorJob(), vectorRequest()
	a, err := job.SignedText()
	if err != nil {
		t.Fatal(err)
	}
	b, err := request.SignedText()
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.HasPrefix(a, []byte("13:cbsdmq-job-v1,")) || !bytes.HasPrefix(b, []byte("17:cbsdmq-request-v1,")) {
		t.Errorf("%s\n%s", a, b)
	}
}

// Every field of a job and of a request is signed, those too that are added one
// day.
func TestEveryFieldIsSigned(t *testing.T) {
	text := func(v interface{ SignedText() ([]byte, error) }) string {
		b, err := v.SignedText()
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	each := func(v any, changed func(reflect.Value) string, without string) {
		s := reflect.ValueOf(v).Elem()
		for i := range s.NumField() {
			f, name := s.Field(i), s.Type().Field(i).Name
			was := reflect.New(f.Type()).Elem()
			was.Set(f)
			before := changed(s)
			switch f.Interface().(type) {
			case time.Time:
				f.Set(reflect.ValueOf(testTime.Add(time.Hour)))
			case []string:
				f.Set(reflect.ValueOf([]string{"other"}))
			default:
				switch f.Kind() {
				case reflect.String:
					f.SetString("other")
				case reflect.Bool:
					f.SetBool(!f.Bool())
				case reflect.Int, reflect.Int64:
					f.SetInt(f.Int() + 1)
				case reflect.Uint64:
					f.SetUint(f.Uint() + 1)
				default:
					t.Fatalf("%s: a field of kind %s: teach signedValue and this test", name, f.Kind())
				}
			}
			if same := changed(s) == before; same != (name == without) {
				t.Errorf("%s: its change changes what is signed: %v", name, !same)
			}
			f.Set(was)
		}
	}
	r := vectorRequest()
	each(&r, func(reflect.Value) string { return text(&r) }, "Sig")
	job := vectorJob()
	each(job.Meta, func(reflect.Value) string { return text(&job) }, "Sig")

	for field := range reflect.TypeFor[cbsdmq.Job]().Fields() {
		if !slices.Contains([]string{"Command", "Args", "JobID", "Meta"}, field.Name) {
			t.Errorf("is Job.%s signed?", field.Name)
		}
	}
}

// No two jobs have one text: it can be read back.
func TestSignedTextSaysAll(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		part := rapid.OneOf(rapid.String(), rapid.SampledFrom([]string{"", ",", "1:", "0:,", "1:a,", "5:jname,", "é", "é"}))
		job := cbsdmq.Job{Command: part.Draw(t, "command"), JobID: rapid.Uint64Min(1).Draw(t, "JobID"), Meta: &cbsdmq.Meta{
			V: 1, ID: part.Draw(t, "id"), Pool: part.Draw(t, "pool"), Key: part.Draw(t, "key"), Sender: part.Draw(t, "sender"),
			Signer: part.Draw(t, "signer"), Stream: rapid.Bool().Draw(t, "stream"), InOrder: rapid.Bool().Draw(t, "in_order"),
			Words: rapid.SliceOfN(part, 0, 3).Draw(t, "words"),
		}}
		for name, value := range rapid.MapOfN(part, part, 0, 4).Draw(t, "args") {
			job.Args = append(job.Args, cbsdmq.Arg{Name: name, Value: value})
		}
		slices.SortFunc(job.Args, func(a, b cbsdmq.Arg) int { return strings.Compare(a.Name, b.Name) })
		text, err := job.SignedText()
		if err != nil {
			t.Fatal(err)
		}
		back, err := readSigned(string(text))
		if err != nil {
			t.Fatalf("%v: %q", err, text)
		}
		if diff := cmp.Diff(job, back, cmpopts.EquateEmpty()); diff != "" {
			t.Fatalf("%q (-job +read):\n%s", text, diff)
		}
	})
}

// readSigned reads a job back from its signed text.
func readSigned(text string) (job cbsdmq.Job, err error) {
	next := func() string {
		digits, rest, ok := strings.Cut(text, ":")
		n, e := strconv.Atoi(digits)
		if !ok || e != nil || n < 0 || n >= len(rest) || rest[n] != ',' {
			err = fmt.Errorf("no item at %q", text)
			return ""
		}
		text = rest[n+1:]
		return rest[:n]
	}
	count := func() int { n, _ := strconv.Atoi(next()); return n }
	m := &cbsdmq.Meta{}
	job.Meta = m
	if kind := next(); kind != "cbsdmq-job-v1" {
		return job, fmt.Errorf("of kind %q", kind)
	}
	m.ID, m.Pool = next(), next()
	next() // expires
	job.Command = next()
	for range count() {
		job.Args = append(job.Args, cbsdmq.Arg{Name: next(), Value: next()})
	}
	for range count() {
		m.Words = append(m.Words, next())
	}
	for range count() {
		switch name, value := next(), next(); name {
		case "JobID":
			job.JobID, _ = strconv.ParseUint(value, 10, 64)
		case "v":
			m.V, _ = strconv.Atoi(value)
		case "key":
			m.Key = value
		case "sender":
			m.Sender = value
		case "signer":
			m.Signer = value
		case "stream":
			m.Stream = value == "1"
		case "in_order":
			m.InOrder = value == "1"
		default:
			return job, fmt.Errorf("an attribute %q", name)
		}
	}
	if text != "" && err == nil {
		err = fmt.Errorf("followed by %q", text)
	}
	return job, err
}
