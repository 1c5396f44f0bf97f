package e2e

import (
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/cbsd/cbsdmq"
	"github.com/cbsd/cbsdmq/bus"
	"github.com/cbsd/cbsdmq/cbsd/cbsdsim"
	"github.com/cbsd/cbsdmq/internal/testserver"
)

// ours is the body of a job with the additions of cbsdmq.
func ours(meta string, command string, args ...string) string {
	return strings.TrimSuffix(body(command, args...), "}") + `,"cbsdmq":{"v":1,` + meta + `}}`
}

// id is a new id of a job that was made at a moment.
func id(at time.Time) string { return ulid.MustNew(ulid.Timestamp(at), rand.Reader).String() }

// TestBadJobs puts everything that is not a job, or not one that may run, on
// the tube. Each is refused with the field, the reason and a way out; nothing
// runs.
func TestBadJobs(t *testing.T) {
	t.Parallel()
	for name, broker := range map[string]func(*testing.T) map[string]any{
		"beanstalkd": func(t *testing.T) map[string]any { return beanstalkdAt(testserver.Beanstalkd(t, "-z", "200000").Addr) },
		"nats":       embeddedNATS,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, broker(t))
			w.guest("vm1")
			w.record()
			canary := filepath.Join(w.dir, "canary")
			w.simulate(cbsdsim.Config{Evaluate: true, Canary: canary})
			a := w.agent("")
			w.logged("serving")
			o := w.original()
			for i, tt := range badJobs() {
				t.Run(fmt.Sprintf("%d %.40s", i, strconv.QuoteToASCII(tt.body)), func(t *testing.T) {
					wantRefused(t, o.run(tt.body), tt.reason)
				})
			}
			if ran := w.calls(); len(ran) > 0 {
				t.Errorf("cbsd was called: %q", ran)
			}
			if _, err := os.Stat(canary); err == nil {
				t.Error("something was evaluated")
			}
			o.good()
			if a.gone() {
				t.Error("the agent is gone")
			}
		})
	}
}

type badJob struct{ body, reason string }

func badJobs() []badJob {
	now := time.Now()
	list := []badJob{
		// Not JSON, half of it, too much of it.
		{``, "not JSON"},
		{`bls header=0`, "not JSON"},
		{`{"Command":"bset","CommandArgs":{"jname":"vm1","vm_r`, "not JSON: it ends in the middle"},
		{`{"Command":"bls"}{"Command":"bls"}`, "something follows"},
		{"\xef\xbb\xbf" + body("bls"), "byte order mark"},
		{`"bls"`, "not a JSON object"},
		{strings.Repeat("[", 20_000), "not a JSON object"},
		{body("bls", "header="+strings.Repeat("0", cbsdmq.JobMax)), "bytes, more than 65535"},

		// Wrong types.
		{`{"Command":5}`, "Command"},
		{`{"Command":null}`, "Command"},
		{`{"Command":"bls","CommandArgs":7}`, "CommandArgs"},
		{`{"Command":"bls","CommandArgs":{"header":null}}`, "CommandArgs.header"},
		{`{"Command":"bls","CommandArgs":{"header":[0]}}`, "CommandArgs.header"},
		{`{"Command":"bls","CommandArgs":{"header":{}}}`, "CommandArgs.header"},
		{`{"Command":"bls","JobID":"seven"}`, "JobID"},
		{`{"Command":"bls","JobID":-1}`, "JobID"},
		{`{"Command":"bls","cbsdmq":[]}`, "cbsdmq"},
		{`{"Command":"bls","cbsdmq":{"v":2}}`, "cbsdmq.v"},
		{`{"Command":"bls","cbsdmq":{"v":1}}`, "cbsdmq.id"},
		{ours(`"id":"../../etc/passwd"`, "bls"), "cbsdmq.id"},
		{ours(`"id":"`+id(now)+`","words":"x"`, "bls"), "cbsdmq.words"},
		{ours(`"id":"`+id(now)+`","words":[null]`, "bls"), "cbsdmq.words"},

		// Repeated keys.
		{`{"Command":"bls","command":"bremove"}`, "twice"},
		{`{"Command":"bls","CommandArgs":{},"COMMANDARGS":{"jname":"vm1"}}`, "twice"},
		{`{"Command":"bremove","CommandArgs":{"jname":"vm2","jname":"vm1"}}`, "CommandArgs.jname: the key comes twice"},
		{ours(`"id":"`+id(now)+`","pool":"pool1","pool":"pool2"`, "bls"), "cbsdmq.pool"},

		// Unknown commands and arguments.
		{body("blss"), "Command"},
		{body("reboot"), "Command"},
		{body("bset", "jname=vm1", "vm_rma=1g"), "CommandArgs.vm_rma: bset has no such argument"},
		{body("bset", "jname=vm1", "nosuch=1"), "CommandArgs.nosuch"},
		{body("bstart", "jname=vm1", "quite=1"), "CommandArgs.quite: bstart has no such argument"},
		{body("bset", "H_CBSD_jname=vm1", "vm_ram=1g"), "CommandArgs.H_CBSD_jname"},

		// Guests.
		{body("bremove", "jname=*"), "CommandArgs.jname: contains the character *"},
		{body("bremove", "jname=vm*"), "CommandArgs.jname"},
		{body("bremove", "jname=../vm1"), "CommandArgs.jname: contains a slash"},
		{body("bremove", "jname=/pool1/jails-data/vm1"), "CommandArgs.jname: contains a slash"},
		{body("bremove", "jname=.."), "CommandArgs.jname"},
		{body("bremove", "jname="), "CommandArgs.jname"},
		{body("bremove", "jname=vm1 vm2"), "CommandArgs.jname"},
		{body("bremove", "jname=jname"), "CommandArgs.jname: is the name of a column"},
		{body("bcreate", "jname=vm2", "vnc_password= jname=vm1"), "CommandArgs.vnc_password: begins with a space"},
		{body("bset", "jname=vm1", "tags=/etc/*"), "CommandArgs.tags: contains the character *"},
		{body("bcreate", "jname=VM1"), "CommandArgs.jname: is not a name for a new guest"},
		{body("bclone", "old=vm1", "new=vm1/../x"), "CommandArgs.new"},

		// Text that is none.
		{`{"Command":"bls\u0000"}`, "Command: contains NUL"},
		{`{"Command":"bset","CommandArgs":{"jname":"vm1\u0000x"}}`, "CommandArgs.jname: contains NUL"},
		{`{"Command":"bset","CommandArgs":{"a\u0000":"x"}}`, "contains NUL"},
		{"{\"Command\":\"bls\x00\"}", "not JSON"},
		{"{\"Command\":\"bset\",\"CommandArgs\":{\"jname\":\"vm1\",\"tags\":\"\xff\"}}", "not valid UTF-8"},
		{`{"Command":"bset","CommandArgs":{"jname":"vm1","tags":"\ud800"}}`, "surrogate"},

		// Commands that need a terminal, or run others.
		{body("blogin", "jname=vm1"), "Command: blogin needs a terminal"},
		{body("bconfig", "jname=vm1"), "Command: bconfig needs a terminal"},
		{body("bexec", "jname=vm1", "cmd=reboot"), "Command: bexec runs other programs"},
		{body("task", "mode=new", "cmd=reboot"), "Command: task runs other programs"},

		// Not for here, not for now.
		{ours(`"id":"`+id(now)+`","pool":"pool2"`, "bls"), `cbsdmq.pool: the job is for pool "pool2"`},
		{ours(`"id":"`+id(now.AddDate(0, 0, -31))+`"`, "bls"), "cbsdmq.id: stale"},
		{ours(`"id":"`+id(now.Add(2*time.Hour))+`"`, "bls"), "in the future"},
		{ours(`"id":"`+id(now)+`","expires":"`+now.Add(-time.Minute).UTC().Format(time.RFC3339)+`"`, "bls"), "cbsdmq.expires"},
		{ours(`"id":"`+id(now)+`","expires":"tomorrow"`, "bls"), "cbsdmq.expires"},
		{ours(`"id":"`+id(now)+`","words":["vm1;reboot"]`, "bstart"), "words[0]"},
	}
	// What CBSD would evaluate, or lose: in any value, and in values that are not
	// mere text.
	for _, c := range "$`\\\"~|\n\r\t\x01\x7f\u0085\u2028" {
		for _, name := range []string{"tags", "vm_ram"} {
			list = append(list, badJob{body("bset", "jname=vm1", name+"=a"+string(c)+"(touch $CANARY)"), "CommandArgs." + name})
		}
		list = append(list, badJob{body("bset", "jname=vm1"+string(c), "tags=a"), "CommandArgs.jname"})
		list = append(list, badJob{body("bset", "jname=vm1", "tags"+string(c)+"=a"), "CommandArgs."})
	}
	for _, c := range ";&<>()'" {
		list = append(list, badJob{body("bset", "jname=vm1", "vm_ram=1g"+string(c)+"touch $CANARY"), "CommandArgs.vm_ram"})
		list = append(list, badJob{body("bset", "jname=vm1"+string(c), "tags=a"), "CommandArgs.jname"})
	}
	return list
}

// TestEachCharacter sends each character in a text. What is not refused reaches
// cbsd as one argument, and nothing is evaluated.
func TestEachCharacter(t *testing.T) {
	t.Parallel()
	w := newWorld(t, beanstalkd(t))
	w.guest("vm1")
	w.record()
	canary := filepath.Join(w.dir, "canary")
	w.simulate(cbsdsim.Config{Evaluate: true, Canary: canary})
	w.agent("")
	o := w.original()
	const chars = " !\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~\u00e9\u65e5\U0001f600\u00a0\ufeff"
	var want []string
	ids := make(map[uint64]string)
	for _, c := range chars {
		value := string(c) + "touch " + canary + string(c)
		ids[o.put(body("bset", "jname=vm1", "tags="+value))] = value
	}
	for id, value := range ids {
		switch r := o.replies(id, 1)[0]; r.State {
		case cbsdmq.Done:
			want = append(want, "tags="+value)
		default:
			wantRefused(t, r, "CommandArgs.tags: ")
		}
	}
	var got []string
	for _, c := range w.calls() {
		got = append(got, c.argv[2])
	}
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(got, want) || len(got) < 20 {
		t.Errorf("cbsd got %q, want %q", got, want)
	}
	if _, err := os.Stat(canary); err == nil {
		t.Error("something was evaluated")
	}
}

// TestHugeJob puts 64 MB on the tube, and half of a message.
func TestHugeJob(t *testing.T) {
	needProc(t)
	t.Parallel()
	broker := testserver.BeanstalkdWithoutBinlog(t, "-z", "70000000")
	config := beanstalkdAt(broker.Addr)
	config["beanstalkd"].(map[string]any)["publish_timeout"] = 60 // to send 64 MB in
	w := newWorld(t, config)
	w.record()
	a := w.agent("")
	o := w.original()
	o.good()
	calls := len(w.calls())
	before := status(t, a.pid(), "VmRSS")
	forgetPeak(t, a.pid())

	c, err := net.Dial("tcp", broker.Addr)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(c, "use cbsd_pool1\r\nput 1 0 5 1000\r\n%s", body("bls"))
	c.Close()

	huge := body("bls", "header="+strings.Repeat("0", 64<<20))
	wantRefused(t, o.run(huge), fmt.Sprintf("the job has %d bytes, more than 65535", len(huge)))
	peak := status(t, a.pid(), "VmHWM")
	t.Logf("%d kB before, at most %d kB", before, peak)
	if peak-before > someGarbage {
		t.Errorf("the agent grew from %d to %d kB for a job of 64 MB", before, peak)
	}
	if n := len(w.calls()); n != calls {
		t.Errorf("cbsd was called: %q", w.calls()[calls:])
	}
	o.good()
}

// TestBadRequests puts everything that is not a request on the control lane.
// What has a mailbox is answered with what is wrong.
func TestBadRequests(t *testing.T) {
	t.Parallel()
	w := newWorld(t, beanstalkdAt(testserver.Beanstalkd(t, "-z", "200000").Addr))
	a := w.agent("")
	o := w.original()
	mailbox := id(time.Now())
	put := func(body string) {
		t.Helper()
		r := o.bus.Put(t.Context(), bus.Message{Tube: bus.Tube{Name: o.to.Tube + cbsdmq.ControlSuffix}, Body: []byte(body)})[0]
		if r.Err != nil {
			t.Fatal(r.Err)
		}
	}
	for _, body := range []string{
		``, `x`, `{`, `[]`, `null`, `{"v":1}`, `{"v":1,"op":"jobs"}`, `{"v":1,"op":"jobs","reply":"../x"}`, "\x00\xff", strings.Repeat("[", 100_000),
		`{"v":1,"op":"jobs","reply":"` + mailbox + `","expires":"2001-01-01T00:00:00Z"}`,
	} {
		put(body)
	}
	reply := fmt.Sprintf(`"reply":%q,"req":"7"`, mailbox)
	in, err := o.bus.Consume(t.Context(), bus.ConsumeOptions{Tubes: []bus.Tube{{Name: bus.ControlMailbox(o.to.ReplyTubePrefix, mailbox), Kind: bus.Mailbox}}})
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	for _, tt := range []struct{ body, field string }{
		{`{"v":9,"op":"jobs",` + reply + `}`, "v"},
		{`{"v":1,"op":"reboot",` + reply + `}`, "op"},
		{`{"v":1,"op":"jobs","pool":"pool2",` + reply + `}`, "pool"},
		{`{"v":1,"op":"status","job":"nosuch",` + reply + `}`, "job"},
		{`{"v":1,"op":"output","job":"` + mailbox + `","offset":-1,` + reply + `}`, "offset"},
		{`{"v":1,"op":"held","action":"forget",` + reply + `}`, "action"},
		{`{"v":1,"op":"cancel","job":"$(reboot)",` + reply + `}`, "job"},
	} {
		put(tt.body)
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		ds, err := in.Receive(ctx, 1)
		cancel()
		if err != nil {
			t.Fatalf("%s: %v", tt.body, err)
		}
		r, err := cbsdmq.ParseResponse(ds[0].Body)
		if err != nil || r.Req != "7" || r.Error == nil || r.Error.Field != tt.field {
			t.Errorf("%s: got %s, %v; want a complaint about %s", tt.body, ds[0].Body, err, tt.field)
		}
		if err := in.Ack(t.Context(), ds...); err != nil {
			t.Fatal(err)
		}
	}
	if end := w.cbsdmq("guests", "--config", w.file); end.status != 0 || a.gone() {
		t.Errorf("guests ends with %d: %s", end.status, end.stderr)
	}
}
