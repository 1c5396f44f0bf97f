package cbsdmq

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// The two readers of an object have to see the same in it.
func FuzzMembers(f *testing.F) {
	for _, s := range []string{
		`{}`, ` { } `, `[]`, `null`, `"x"`, `7`,
		`{"a":1,"b":"x","c":null}`,
		"\t{ \"a\" : 1 ,\r\n \"b\" : [1,{\"c\":\"]}\"}] , \"d\":{} }\n",
		`{"a\"":"\\\"","\u0041":-1.5e+7,"":true,"\ud83d\ude00":[]}`,
		`{"a":1,"A":2}`, `{"k":1,"\u212a":2}`, `{"s":"\u017f","\u017f":false,"S":0}`,
		"{\"\xff\":1}", "{\"a\":\"\xff\"}", `{"a":{"a":1,"a":2}}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		if !json.Valid(raw) {
			if _, err := members("", raw); err == nil {
				t.Fatal("not JSON, and no error")
			}
			return
		}
		want, wantErr := decodeMembers("x", raw)
		got, err := splitMembers("x", raw)
		if bytes.TrimLeft(raw, space)[0] != '{' {
			if err == nil || wantErr == nil {
				t.Fatalf("%v and %v for what is no object", err, wantErr)
			}
			return
		}
		if (err == nil) != (wantErr == nil) || err != nil && err.Error() != wantErr.Error() {
			t.Fatalf("%v, expected %v", err, wantErr)
		}
		if diff := cmp.Diff(want, got, cmp.AllowUnexported(member{}), cmpopts.EquateEmpty()); diff != "" {
			t.Fatalf("differs (-decoded +split):\n%s", diff)
		}
	})
}

func BenchmarkParseJob(b *testing.B) {
	body, err := json.Marshal(Job{
		Command: "bset", Args: []Arg{{Name: "jname", Value: "web7"}, {Name: "vm_ram", Value: "4g"}}, JobID: 1<<52 + 5,
		Meta: &Meta{V: MetaVersion, ID: "01M82R0N9EXPGHS416HKWVED2E", Pool: "pool1", Sender: "root@vm"},
	})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ParseJob(body); err != nil {
			b.Fatal(err)
		}
	}
}
