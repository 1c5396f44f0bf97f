package agent

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cbsd/cbsdmq"
	"github.com/cbsd/cbsdmq/bus"
	"github.com/cbsd/cbsdmq/internal/senders"
	"github.com/cbsd/cbsdmq/journal"
)

// signedBench has three senders: ops may do everything, shop some things with
// guests web*, and gone is known to nobody.
func signedBench(t *testing.T, required bool) (b *bench, lines map[string]string, keys map[string]*cbsdmq.Signer) {
	b = newBench(t)
	keys, lines = make(map[string]*cbsdmq.Signer), make(map[string]string)
	for name, rights := range map[string]string{
		"ops":  "pools=* commands=* guests=*",
		"shop": "pools=pool1 commands=jset,jstart,jls,jprint guests=web*",
		"desk": "pools=* commands=pause guests=jail*",
		"gone": "",
	} {
		public, private, err := ed25519.GenerateKey(nil)
		if err != nil {
			t.Fatal(err)
		}
		keys[name] = &cbsdmq.Signer{Name: name, Key: private}
		if rights != "" {
			lines[name] = name + " " + senders.ID(public) + " " + rights + "\n"
		}
	}
	b.adjust = func(c *Config) {
		set, err := senders.Parse(lines["ops"] + lines["shop"] + lines["desk"])
		if err != nil {
			t.Fatal(err)
		}
		c.Senders, c.RequireSigned = set, required
	}
	return b, lines, keys
}

func (b *bench) sign(s *cbsdmq.Signer, j cbsdmq.Job) cbsdmq.Job {
	b.t.Helper()
	if err := s.SignJob(&j); err != nil {
		b.t.Fatal(err)
	}
	return j
}

func TestSignedJobs(t *testing.T) {
	b, _, keys := signedBench(t, true)
	b.start()
	for name, tt := range map[string]struct {
		job    func() cbsdmq.Job
		state  cbsdmq.State
		reason string // begins so
	}{
		"ops":          {func() cbsdmq.Job { return b.sign(keys["ops"], b.job("jset", "jname=db1")) }, cbsdmq.Done, ""},
		"shop":         {func() cbsdmq.Job { return b.sign(keys["shop"], b.job("jset", "jname=web1")) }, cbsdmq.Done, ""},
		"no guest":     {func() cbsdmq.Job { return b.sign(keys["shop"], b.job("jls")) }, cbsdmq.Done, ""},
		"not signed":   {func() cbsdmq.Job { return b.job("jls") }, cbsdmq.Refused, "cbsdmq.sig: missing: this pool takes signed jobs only"},
		"unknown":      {func() cbsdmq.Job { return b.sign(keys["gone"], b.job("jls")) }, cbsdmq.Refused, `cbsdmq.signer: no key of "gone" is known here`},
		"other guest":  {func() cbsdmq.Job { return b.sign(keys["shop"], b.job("jset", "jname=db1")) }, cbsdmq.Refused, "cbsdmq.signer: the key of shop is not for db1"},
		"one of two":   {func() cbsdmq.Job { return b.sign(keys["shop"], b.job("jset", "jname=web1,db1")) }, cbsdmq.Refused, "cbsdmq.signer: the key of shop is not for web1, db1"},
		"all guests":   {func() cbsdmq.Job { return b.sign(keys["shop"], b.job("jset", "jname=*")) }, cbsdmq.Refused, "cbsdmq.signer: the key of shop is for some guests only"},
		"whole pool":   {func() cbsdmq.Job { return b.sign(keys["shop"], b.job("jset")) }, cbsdmq.Refused, "cbsdmq.signer: the key of shop is for some guests only"},
		"command":      {func() cbsdmq.Job { return b.sign(keys["shop"], b.job("jremove", "jname=web1")) }, cbsdmq.Refused, "cbsdmq.signer: the key of shop is not for the command jremove"},
		"other's name": {func() cbsdmq.Job { j := b.sign(keys["shop"], b.job("jls")); j.Meta.Signer = "ops"; return j }, cbsdmq.Refused, "cbsdmq.sig: not a signature of this"},
		"changed": {func() cbsdmq.Job {
			j := b.sign(keys["ops"], b.job("jset", "jname=db1"))
			j.Args[0].Value = "db2"
			return j
		}, cbsdmq.Refused, "cbsdmq.sig: not a signature of this by a key of ops"},
		"other pool's": {func() cbsdmq.Job {
			j := b.job("jset", "jname=db1")
			j.Meta.Pool = "pool2"
			return b.sign(keys["ops"], j)
		}, cbsdmq.Refused, `cbsdmq.pool: the job is for pool "pool2"`},
		"no pool": {func() cbsdmq.Job {
			j := b.job("jset", "jname=db1")
			j.Meta.Pool = ""
			return b.sign(keys["ops"], j)
		}, cbsdmq.Refused, `cbsdmq.pool: the job is for pool ""`},
	} {
		t.Run(name, func(t *testing.T) {
			b.t = t
			job := tt.job()
			id := b.put(job)
			r := b.final(id)
			if r.State != tt.state || !strings.HasPrefix(r.Reason, tt.reason) || tt.reason != "" && r.Hint == "" {
				t.Errorf("ended %s: %q, hint %q", r.State, r.Reason, r.Hint)
			}
			row, err := b.row(id)
			if err != nil || tt.state == cbsdmq.Done && (row == nil || row.Signer != job.Meta.Signer) {
				t.Errorf("in the journal: %+v, %v", row, err)
			}
		})
	}
	b.t = t
	id := b.raw(`{"Command":"jls","CommandArgs":{},"JobID":4503599627370496}`)
	if r := b.want(strconv.FormatUint(id, 10), cbsdmq.Refused, 2); !strings.Contains(r.Message, "not those of original clients") || !strings.Contains(r.Message, "hint: make a key") {
		t.Errorf("what an original client is told: %q", r.Message)
	}
	if begun, _ := b.machine.snapshot(); len(begun) != 3 {
		t.Errorf("begun: %v", begun)
	}
}

// Who cannot sign can neither take the place of a job whose id he knows, nor have
// the answer to it.
func TestForgedRepeat(t *testing.T) {
	for _, required := range []bool{true, false} {
		t.Run("required "+strconv.FormatBool(required), func(t *testing.T) {
			b, _, keys := signedBench(t, required)
			b.start()
			theirs := uint64(1<<52 + 77)
			spy, err := b.client.Consume(t.Context(), bus.ConsumeOptions{Tubes: []bus.Tube{{Name: bus.MailboxName("reply", theirs), Kind: bus.Mailbox}}})
			if err != nil {
				t.Fatal(err)
			}
			answer := func() cbsdmq.Reply {
				t.Helper()
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
				defer cancel()
				ds, err := spy.Receive(ctx, 1)
				if err != nil {
					t.Fatal(err)
				}
				_ = spy.Ack(ctx, ds...)
				r, err := cbsdmq.ParseReply(ds[0].Body)
				if err != nil {
					t.Fatal(err)
				}
				return r
			}
			real := b.job("jprint", "text=secret")
			real.Meta.Key = "ORDER-1"
			real = b.sign(keys["ops"], real)

			forge := func(change func(*cbsdmq.Job)) cbsdmq.Job {
				j, m := real, *real.Meta
				j.Meta, j.JobID = &m, theirs
				change(&j)
				return j
			}
			forgeries := map[string]cbsdmq.Job{
				"address changed": forge(func(*cbsdmq.Job) {}),
				"signed by another": b.sign(keys["shop"], forge(func(j *cbsdmq.Job) {
					j.Args = nil
				})),
				"same key, signed by another": b.sign(keys["shop"], forge(func(j *cbsdmq.Job) { j.Meta.ID, j.Args = newID(), nil })),
				"not signed":                  forge(func(j *cbsdmq.Job) { j.Meta.Sig, j.Meta.Signer = "", "" }),
				"not a job":                   forge(func(j *cbsdmq.Job) { j.Command = "" }),
			}
			if required { // else the id is whose who comes first
				for _, name := range []string{"address changed", "not signed", "not a job"} {
					b.put(forgeries[name])
					if r := answer(); r.State != cbsdmq.Refused {
						t.Errorf("%s, before: %+v", name, r)
					}
				}
			}
			b.put(real)
			if r := b.want(real.Meta.ID, cbsdmq.Done, 0); r.Message != "text=secret" {
				t.Errorf("%+v", r)
			}
			for name, j := range forgeries {
				b.put(j)
				r := answer()
				if name != "same key, signed by another" && r.ID == "pool1/"+real.Meta.ID {
					t.Errorf("%s: who waits for the real job takes this for its end: %+v", name, r)
				}
				if strings.Contains(r.Message, "secret") || name != "same key, signed by another" && r.State != cbsdmq.Refused {
					t.Errorf("%s: %+v", name, r)
				}
			}
			// The sender itself may ask again, from another address.
			again := forge(func(j *cbsdmq.Job) { j.JobID = theirs })
			b.put(b.sign(keys["ops"], again))
			if r := answer(); r.State != cbsdmq.Done || r.Message != "text=secret" {
				t.Errorf("a repeat of the sender's own: %+v", r)
			}
			b.begunOnce()
		})
	}
}

// A key that is taken out of the file is good for nothing that has not begun.
func TestRevokedKey(t *testing.T) {
	b, lines, keys := signedBench(t, true)
	b.start()
	running := b.sign(keys["shop"], b.job("jstart", "jname=web1"))
	runs := b.put(running)
	b.running(runs)
	waits := b.put(b.sign(keys["shop"], b.job("jset", "jname=web1")))
	others := b.put(b.sign(keys["ops"], b.job("jset", "jname=web1")))
	eventually(t, "all are in the journal", func() bool { row, err := b.row(others); return err == nil && row != nil })
	b.stop()
	lines["shop"] = ""
	b.start()
	r := b.want(waits, cbsdmq.Refused, cbsdmq.ExitRefused)
	if !strings.Contains(r.Reason, "the key of shop that signed it was revoked before it began") || r.Hint == "" {
		t.Errorf("%+v", r)
	}
	b.put(running) // delivered again: it goes on, and its sender is not told otherwise
	if r := b.final(b.put(b.sign(keys["shop"], b.job("jls")))); r.State != cbsdmq.Refused {
		t.Errorf("%+v", r)
	}
	b.finish(runs, 0, "")
	b.want(runs, cbsdmq.Done, 0)
	b.want(others, cbsdmq.Done, 0)
	b.begunOnce()
}

// A key whose rights were made less has them for what has not begun, too.
func TestNarrowedKey(t *testing.T) {
	b, lines, keys := signedBench(t, true)
	b.start()
	runs := b.put(b.sign(keys["ops"], b.job("jstart", "jname=db1")))
	b.running(runs)
	waits := b.put(b.sign(keys["ops"], b.job("jset", "jname=db1")))
	eventually(t, "it is in the journal", func() bool { row, err := b.row(waits); return err == nil && row != nil })
	b.stop()
	lines["ops"] = strings.Replace(lines["ops"], "guests=*", "guests=web*", 1)
	b.start()
	if r := b.want(waits, cbsdmq.Refused, cbsdmq.ExitRefused); !strings.Contains(r.Reason, "the key of ops is not for db1") {
		t.Errorf("%+v", r)
	}
	b.finish(runs, 0, "")
	b.want(runs, cbsdmq.Done, 0)
}

// askSigned puts a request on the control lane and returns its answer, nil where there
// is none.
func (b *bench) askSigned(s *cbsdmq.Signer, change func(*cbsdmq.Request), r cbsdmq.Request) *cbsdmq.Response {
	b.t.Helper()
	if r.Reply == "" {
		r.Reply = newID()
	}
	r.V, r.Pool = 1, "pool1"
	r.Made = time.Now().UTC().Truncate(time.Second)
	if change != nil {
		change(&r)
	}
	if s != nil {
		if err := s.SignRequest(&r); err != nil {
			b.t.Fatal(err)
		}
	}
	return b.sendRequest(r)
}

func (b *bench) putRequest(r cbsdmq.Request) {
	b.t.Helper()
	body, err := json.Marshal(r)
	if err != nil {
		b.t.Fatal(err)
	}
	if res := b.client.Put(b.t.Context(), bus.Message{Tube: bus.Tube{Name: "jobs" + cbsdmq.ControlSuffix}, Body: body}); res[0].Err != nil {
		b.t.Fatal(res[0].Err)
	}
}

// sendRequest puts a request and waits for what comes first to its mailbox.
func (b *bench) sendRequest(r cbsdmq.Request) *cbsdmq.Response {
	b.t.Helper()
	mailbox := bus.Tube{Name: bus.ControlMailbox("reply", r.Reply), Kind: bus.Mailbox}
	c, err := b.client.Consume(b.t.Context(), bus.ConsumeOptions{Tubes: []bus.Tube{mailbox}})
	if err != nil {
		b.t.Fatal(err)
	}
	defer c.Close()
	b.putRequest(r)
	ctx, cancel := context.WithTimeout(b.t.Context(), 20*time.Second)
	defer cancel()
	ds, err := c.Receive(ctx, 1)
	if err != nil {
		return nil
	}
	_ = c.Ack(b.t.Context(), ds...)
	resp, err := cbsdmq.ParseResponse(ds[0].Body)
	if err != nil {
		b.t.Fatal(err)
	}
	return &resp
}

func TestSignedRequests(t *testing.T) {
	b, _, keys := signedBench(t, true)
	b.start()
	b.want(b.put(b.sign(keys["ops"], b.job("jset", "jname=db1"))), cbsdmq.Done, 0)
	web := b.put(b.sign(keys["ops"], b.job("jset", "jname=web1")))
	b.want(web, cbsdmq.Done, 0)
	db := b.put(b.sign(keys["ops"], b.job("jstart", "jname=db1")))
	b.running(db)

	late := func(d time.Duration) func(*cbsdmq.Request) {
		return func(r *cbsdmq.Request) { r.Made = r.Made.Add(d) }
	}
	for name, tt := range map[string]struct {
		key     string
		change  func(*cbsdmq.Request)
		request cbsdmq.Request
		want    string // of the error; "" = there is none
	}{
		"ops":               {"ops", nil, cbsdmq.Request{Op: cbsdmq.OpStatus, Job: db}, ""},
		"agent":             {"shop", nil, cbsdmq.Request{Op: cbsdmq.OpStatus}, ""},
		"a web job":         {"shop", nil, cbsdmq.Request{Op: cbsdmq.OpStatus, Job: web}, ""},
		"a db job":          {"shop", nil, cbsdmq.Request{Op: cbsdmq.OpStatus, Job: db}, "the key of shop is not for this job"},
		"its output":        {"shop", nil, cbsdmq.Request{Op: cbsdmq.OpOutput, Job: db}, "the key of shop is not for this job"},
		"its cancel":        {"shop", nil, cbsdmq.Request{Op: cbsdmq.OpCancel, Job: db}, "the key of shop is not for this job"},
		"cancel before":     {"shop", nil, cbsdmq.Request{Op: cbsdmq.OpCancel, Job: newID()}, "knows no job"},
		"held":              {"shop", nil, cbsdmq.Request{Op: cbsdmq.OpHeld, Action: "drop"}, "the key of shop is not for what concerns the whole pool"},
		"held by ops":       {"ops", nil, cbsdmq.Request{Op: cbsdmq.OpHeld, Action: "drop"}, ""},
		"pause":             {"shop", nil, cbsdmq.Request{Op: cbsdmq.OpPause, Guest: "web1", By: "x"}, "the key of shop is not for pause"},
		"pause by desk":     {"desk", nil, cbsdmq.Request{Op: cbsdmq.OpPause, Guest: "jail1", By: "eve"}, ""},
		"pause another":     {"desk", nil, cbsdmq.Request{Op: cbsdmq.OpPause, Guest: "db1", By: "eve"}, "the key of desk is not for db1"},
		"pause the pool":    {"desk", nil, cbsdmq.Request{Op: cbsdmq.OpPause, By: "eve"}, "the key of desk is not for the whole pool"},
		"resume":            {"desk", nil, cbsdmq.Request{Op: cbsdmq.OpResume, Guest: "web1", By: "eve"}, "the key of desk is not for resume"},
		"resolve":           {"shop", nil, cbsdmq.Request{Op: cbsdmq.OpResolve, Job: web, State: cbsdmq.Done, By: "x"}, "the key of shop is not for resolve"},
		"why db1":           {"shop", nil, cbsdmq.Request{Op: cbsdmq.OpWhy, Guest: "db1"}, "the key of shop is not for db1"},
		"jobs of db1":       {"shop", nil, cbsdmq.Request{Op: cbsdmq.OpJobs, Guest: "db1"}, "the key of shop is not for db1"},
		"newer":             {"shop", nil, cbsdmq.Request{Op: "newer"}, "op: not known here"},
		"unknown":           {"gone", nil, cbsdmq.Request{Op: cbsdmq.OpStatus}, `no key of "gone"`},
		"not signed":        {"", nil, cbsdmq.Request{Op: cbsdmq.OpStatus}, "sig: missing: this pool answers signed requests only"},
		"old":               {"ops", late(-11 * time.Minute), cbsdmq.Request{Op: cbsdmq.OpStatus}, "ago by the sender's clock, more than 10m0s"},
		"ahead":             {"ops", late(11 * time.Minute), cbsdmq.Request{Op: cbsdmq.OpStatus}, "in the future"},
		"before this agent": {"ops", late(-5 * time.Minute), cbsdmq.Request{Op: cbsdmq.OpHeld, Action: "drop"}, "before this agent began"},
		"clock behind":      {"ops", late(-5 * time.Minute), cbsdmq.Request{Op: cbsdmq.OpStatus}, ""},
		"other pool":        {"ops", func(r *cbsdmq.Request) { r.Pool = "pool2" }, cbsdmq.Request{Op: cbsdmq.OpStatus}, `the request is for pool "pool2"`},
		"no pool":           {"ops", func(r *cbsdmq.Request) { r.Pool = "" }, cbsdmq.Request{Op: cbsdmq.OpStatus}, `the request is for pool ""`},
		"no time":           {"ops", func(r *cbsdmq.Request) { r.Made = time.Time{} }, cbsdmq.Request{Op: cbsdmq.OpStatus}, "made: missing"},
	} {
		t.Run(name, func(t *testing.T) {
			b.t = t
			resp := b.askSigned(keys[tt.key], tt.change, tt.request)
			switch {
			case resp == nil:
				t.Error("no answer")
			case tt.want == "" && resp.Error != nil, tt.want != "" && (resp.Error == nil || !strings.Contains(resp.Error.Err().Error(), tt.want)):
				t.Errorf("%+v", resp.Error)
			}
		})
	}
	b.t = t
	// Lists have what the key has the right of.
	for key, want := range map[string]int{"ops": 3, "shop": 1} {
		if resp := b.askSigned(keys[key], nil, cbsdmq.Request{Op: cbsdmq.OpJobs}); resp == nil || len(resp.Jobs) != want || resp.Jobs[0].Signer != "ops" {
			t.Errorf("%s sees %+v", key, resp)
		}
	}
	for key, want := range map[string]int{"ops": 1, "shop": 0} {
		if resp := b.askSigned(keys[key], nil, cbsdmq.Request{Op: cbsdmq.OpGuests}); resp == nil || len(resp.Guests) != want {
			t.Errorf("%s sees %+v", key, resp)
		}
	}
	for key, used := range map[string]bool{"ops": true, "shop": false} { // of whose guests is not for everybody
		if resp := b.askSigned(keys[key], nil, cbsdmq.Request{Op: cbsdmq.OpImages}); resp == nil || len(resp.Images) != 1 || resp.Images[0].Used != used {
			t.Errorf("%s sees %+v", key, resp)
		}
	}
	if resp := b.askSigned(keys["ops"], nil, cbsdmq.Request{Op: cbsdmq.OpActs}); resp == nil || len(resp.Acts) == 0 || !slices.ContainsFunc(resp.Acts, func(a cbsdmq.Act) bool { return a.By == "desk: eve" }) {
		t.Errorf("who paused it: %+v", resp)
	}
	if resp := b.askSigned(keys["shop"], nil, cbsdmq.Request{Op: cbsdmq.OpWhy}); resp == nil || resp.Error != nil || len(resp.Waits) != 0 {
		t.Errorf("of the job of db1: %+v", resp)
	}
	// A request is answered once.
	r := cbsdmq.Request{Op: cbsdmq.OpCancel, Job: db, Reply: newID(), Req: "1"}
	r.V, r.Pool, r.Made = 1, "pool1", time.Now().UTC().Truncate(time.Second)
	if err := keys["ops"].SignRequest(&r); err != nil {
		t.Fatal(err)
	}
	if resp := b.sendRequest(r); resp == nil || resp.Error != nil {
		t.Fatalf("%+v", resp)
	}
	for range 2 {
		b.putRequest(r)
	}
	again := r
	again.Req, again.Op, again.Job = "2", cbsdmq.OpStatus, ""
	if err := keys["ops"].SignRequest(&again); err != nil {
		t.Fatal(err)
	}
	if resp := b.sendRequest(again); resp == nil || resp.Req != "2" {
		t.Errorf("a replay was answered: %+v", resp)
	}
	b.final(db)
}

// Every request of the vocabulary says what it asks of a key: one that does not
// needs every right, which may be too much.
func TestRightsOfEveryRequest(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "../control.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	ast.Inspect(file, func(node ast.Node) bool {
		spec, ok := node.(*ast.ValueSpec)
		if !ok || len(spec.Values) != 1 {
			return true
		}
		if typ, ok := spec.Type.(*ast.Ident); ok && typ.Name == "Op" {
			value, err := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
			if err != nil {
				t.Fatal(err)
			}
			n++
			if _, known := rights[cbsdmq.Op(value)]; !known {
				t.Errorf("%s: not among the rights", value)
			}
		}
		return true
	})
	if n < 6 {
		t.Errorf("%d requests found", n)
	}
	for field := range reflect.TypeFor[cbsdmq.Response]().Fields() {
		if field.Type.Kind() == reflect.Slice && !slices.Contains([]string{"Jobs", "Guests", "Pauses", "Acts", "Waits", "Images", "Data"}, field.Name) {
			t.Errorf("does onlyIts know Response.%s?", field.Name)
		}
	}
	if !changes("newer") || rights["newer"].right != wholePool {
		t.Error("a request that is not known needs less than every right")
	}
}

// What is remembered of requests has a bound.
func TestSeenRequests(t *testing.T) {
	var s seen
	now := time.Now()
	for i := range requestsMax {
		if first, full := s.first(strconv.Itoa(i), now); !first || full {
			t.Fatalf("%d: %v %v", i, first, full)
		}
	}
	if first, full := s.first("one more", now); first || !full {
		t.Errorf("one more: %v %v", first, full)
	}
	if first, _ := s.first("5", now); first {
		t.Error("an old one counts as new")
	}
	if first, full := s.first("one more", now.Add(2*requestAge+time.Second)); !first || full {
		t.Errorf("later: %v %v", first, full)
	}
	if len(s.until) != 1 {
		t.Errorf("%d are remembered", len(s.until))
	}
}

// An agent that knows no senders takes a signed job as any other, as one of before
// signatures does.
func TestSignatureNobodyLooksAt(t *testing.T) {
	b, _, keys := signedBench(t, false)
	b.adjust = nil
	b.start()
	job := b.sign(keys["gone"], b.job("jset", "jname=db1"))
	job.Args[0].Value = "db2"
	id := b.put(job)
	b.want(id, cbsdmq.Done, 0)
	if row, err := b.row(id); err != nil || row.Signer != "" || row.SignKey != "" {
		t.Errorf("said to be signed: %+v, %v", row, err)
	}
}

// A key that may see few jobs is told of them however many of others are newer.
func TestJobsBehindThoseOfOthers(t *testing.T) {
	b, _, keys := signedBench(t, true)
	b.start()
	old := b.put(b.sign(keys["shop"], b.job("jset", "jname=web1")))
	b.want(old, cbsdmq.Done, 0)
	b.stop()
	j, err := journal.Open(t.Context(), journal.Options{
		Path: filepath.Join(b.dir, "pool", "journal.sqlite"), State: filepath.Join(b.dir, "state"), Host: "host1", Boot: b.machine.boot,
	})
	if err != nil {
		t.Fatal(err)
	}
	var batch journal.Batch
	for range pagesMax*pageSize + 1 {
		id := newID()
		batch.Accept = append(batch.Accept, &journal.Accept{
			Job: &journal.Job{ID: id, Ident: id, Bus: "mem", Command: "jset", Guest: "db1", Signer: "ops", Accepted: time.Now()},
			End: &journal.Finish{State: cbsdmq.Refused, Result: []byte("{}")},
		})
	}
	if err := j.Commit(&batch); err != nil {
		t.Fatal(err)
	}
	j.Close()
	b.start()
	first := b.askSigned(keys["shop"], nil, cbsdmq.Request{Op: cbsdmq.OpJobs, Limit: 1})
	if first == nil || first.Error != nil || len(first.Jobs) > 0 || !first.More || first.Next == "" {
		t.Fatalf("%+v", first)
	}
	rest := b.askSigned(keys["shop"], nil, cbsdmq.Request{Op: cbsdmq.OpJobs, Limit: 1, After: first.Next})
	if rest == nil || rest.Error != nil || len(rest.Jobs) != 1 || rest.Jobs[0].ID != "pool1/"+old || rest.More {
		t.Errorf("%+v", rest)
	}

	// What people did: the newest are not about its guests.
	b.askSigned(keys["ops"], nil, cbsdmq.Request{Op: cbsdmq.OpPause, Guest: "jail1", By: "anna"})
	for range 3 {
		b.askSigned(keys["ops"], nil, cbsdmq.Request{Op: cbsdmq.OpPause, By: "anna"})
	}
	first = b.askSigned(keys["desk"], nil, cbsdmq.Request{Op: cbsdmq.OpActs, Limit: 3})
	if first == nil || first.Error != nil || len(first.Acts) > 0 || !first.More || first.Next == "" {
		t.Fatalf("%+v", first)
	}
	rest = b.askSigned(keys["desk"], nil, cbsdmq.Request{Op: cbsdmq.OpActs, Limit: 3, After: first.Next})
	if rest == nil || rest.Error != nil || len(rest.Acts) != 1 || rest.Acts[0].Guest != "jail1" {
		t.Errorf("%+v", rest)
	}
}
