package cbsdmq_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/cbsd/cbsdmq"
)

func FuzzParseJob(f *testing.F) {
	for _, tt := range hostile {
		if len(tt.body) < 1000 {
			f.Add([]byte(tt.body))
		}
	}
	f.Add([]byte(`{"Command":"jset","commandargs":{"a":4.5,"b":true,"<":"\u2028"},"JobID":7,"cbsdmq":{"v":1,"id":"` + testULID + `","words":["x"],"expires":"2026-11-22T10:00:00+01:00"}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		job, err := cbsdmq.ParseJob(body)
		if err != nil {
			if cbsdmq.CodeOf(err) != cbsdmq.CodeRefused || cbsdmq.HintOf(err) == "" && fieldOf(err) == "" {
				t.Fatalf("a refusal without its code, or with neither field nor hint: %#v", err)
			}
			return
		}
		if job.Command == "" {
			t.Fatal("no command and no error")
		}
		again, err := json.Marshal(job)
		if err != nil {
			t.Fatalf("what was read cannot be written: %v", err)
		}
		if len(again) > cbsdmq.JobMax {
			return // escaped, it grew over the limit
		}
		back, err := cbsdmq.ParseJob(again)
		if err != nil {
			t.Fatalf("what was written cannot be read: %v\n%s", err, again)
		}
		if diff := cmp.Diff(job, back, cmpopts.EquateEmpty()); diff != "" {
			t.Fatalf("changed (-first +second):\n%s", diff)
		}
	})
}

func FuzzParseReply(f *testing.F) {
	f.Add([]byte(`{"DskGuid":"0","ErrCode":0,"Guid":"0","Message":"m","Progress":100,"Vnc":""}`))
	f.Add([]byte(`{"Progress":5,"Raw":"/w==","Seq":-1,"Offset":-5,"Warnings":[null]}`))
	f.Add([]byte("null"))
	f.Fuzz(func(t *testing.T, body []byte) {
		r, err := cbsdmq.ParseReply(body)
		if err != nil {
			return
		}
		r = r.Fit(4096)
		if diff := cmp.Diff(r, r.Fit(4096), cmpopts.EquateEmpty()); diff != "" {
			t.Fatalf("what fits was cut (-first +second):\n%s", diff)
		}
		again, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		if len(again) > 4096 && len(r.State)+len(r.Outcome) < 100 {
			t.Fatalf("%d bytes after Fit", len(again))
		}
		if _, err := cbsdmq.ParseReply(again); err != nil {
			t.Fatalf("what was written cannot be read: %v\n%s", err, again)
		}
	})
}

func FuzzParseRequest(f *testing.F) {
	f.Add([]byte(`{"v":1,"op":"output","reply":"` + testULID + `","req":"1","job":"17","offset":5,"wait":1000}`))
	f.Add([]byte(`{"v":1,"op":"jobs","reply":"` + testULID + `","req":"","state":"done","expires":"2026-11-22T10:00:00Z"}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, body []byte) {
		r, err := cbsdmq.ParseRequest(body)
		if err != nil {
			if cbsdmq.CodeOf(err) != cbsdmq.CodeRefused {
				t.Fatalf("an error without the code of a refusal: %v", err)
			}
			return
		}
		if !cbsdmq.ValidULID(r.Reply) || r.Op == "" {
			t.Fatalf("taken: %+v", r)
		}
		again, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		back, err := cbsdmq.ParseRequest(again)
		if err != nil && len(again) <= cbsdmq.JobMax {
			t.Fatalf("what was written cannot be read: %v\n%s", err, again)
		}
		if diff := cmp.Diff(r, back); err == nil && diff != "" {
			t.Fatalf("changed (-first +second):\n%s", diff)
		}
		text, e := r.SignedText()
		other, _ := back.SignedText()
		if err == nil && !bytes.Equal(text, other) {
			t.Fatalf("%v: another text to sign:\n%q\n%q", e, text, other)
		}
	})
}

func FuzzSplitID(f *testing.F) {
	for _, s := range []string{"pool1/17", "pool1/17.2", "pool1/" + testULID, "/", "pool1/../17"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, printed string) {
		pool, id, err := cbsdmq.SplitID(printed)
		if err != nil {
			return
		}
		if cbsdmq.PrintedID(pool, id) != printed || !cbsdmq.ValidPool(pool) || !cbsdmq.ValidID(id) {
			t.Fatalf("%q came apart as %q and %q", printed, pool, id)
		}
		if cbsdmq.ValidULID(id) == cbsdmq.ULIDTime(id).IsZero() {
			t.Fatalf("the time in %q", id)
		}
	})
}

func FuzzParseResponse(f *testing.F) {
	f.Add([]byte(`{"v":1,"req":"1","error":{"code":"refused","message":"m","hint":"h"},"agent":{"pool":"p","trouble":"t"}}`))
	f.Add([]byte(`{"v":1,"data":"AAAA","offset":5,"end":true,"final":{"Progress":100,"Message":"m"},"more":true}`))
	f.Add([]byte(`{"jobs":[{"id":"p/1","args":["a=b","c"]},{}],"guests":[{"name":"vm1"}]}`))
	f.Add([]byte(`[]`))
	f.Fuzz(func(t *testing.T, body []byte) {
		r, err := cbsdmq.ParseResponse(body)
		if err != nil {
			if cbsdmq.CodeOf(err) != cbsdmq.CodeInternal {
				t.Fatalf("a response that is none has the code %v", cbsdmq.CodeOf(err))
			}
			return
		}
		again, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		back, err := cbsdmq.ParseResponse(again)
		if err != nil {
			t.Fatalf("what was written cannot be read: %v\n%s", err, again)
		}
		if diff := cmp.Diff(r, back, cmpopts.EquateEmpty()); diff != "" {
			t.Fatalf("changed (-first +second):\n%s", diff)
		}
		fit := r.Fit(8192)
		if !bytes.HasPrefix(r.Data, fit.Data) || len(fit.Jobs) > len(r.Jobs) || len(fit.Guests) > len(r.Guests) {
			t.Fatalf("Fit made more of it, or other: %+v", fit)
		}
		if (len(fit.Jobs) < len(r.Jobs) || len(fit.Guests) < len(r.Guests)) && !fit.More {
			t.Fatal("Fit left something out and does not say so")
		}
		if len(fit.Data) < len(r.Data) && (fit.End || fit.Final != nil) {
			t.Fatal("Fit cut the data and still calls it the end")
		}
	})
}

func fieldOf(err error) string {
	e, _ := errors.AsType[*cbsdmq.Error](err)
	return e.Field
}

// What is signed is the same on both sides of the wire.
func FuzzSignedJob(f *testing.F) {
	f.Add([]byte(`{"Command":"jset","CommandArgs":{"a":4.5,"b":true,"<":"\u2028"},"JobID":7,"cbsdmq":{"v":1,"id":"` + testULID + `","pool":"p","words":["x",""],"expires":"2026-11-22T10:00:00+01:00"}}`))
	f.Add([]byte(`{"Command":"jls","JobID":18446744073709551615,"cbsdmq":{"v":1,"id":"` + testULID + `","sig":"AAAA","signer":"\u0000","key":"k"}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		job, err := cbsdmq.ParseJob(body)
		if err != nil || job.Meta == nil {
			return
		}
		s := vectorSigner()
		if err := s.SignJob(&job); err != nil {
			if cbsdmq.CodeOf(err) != cbsdmq.CodeRefused {
				t.Fatalf("not signed: %v", err)
			}
			return
		}
		text, err := job.SignedText()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := readSigned(string(text)); err != nil {
			t.Fatalf("%v in %q", err, text)
		}
		again, err := json.Marshal(job)
		if err != nil || len(again) > cbsdmq.JobMax {
			return
		}
		back, err := cbsdmq.ParseJob(again)
		if err != nil {
			t.Fatal(err)
		}
		other, err := back.SignedText()
		if err != nil || !cbsdmq.Signed(s.Key.Public().(ed25519.PublicKey), other, back.Meta.Sig) {
			t.Fatalf("does not verify: %v\n%q\n%q", err, text, other)
		}
	})
}
