package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/cbsd/cbsdmq"
	"github.com/cbsd/cbsdmq/bus"
	"github.com/cbsd/cbsdmq/bus/all"
	"github.com/cbsd/cbsdmq/internal/faultproxy"
	"github.com/cbsd/cbsdmq/internal/testserver"
)

// An originalPeer answers each job of a tube with a reply that has the fields
// of the original agent and no others.
type originalPeer struct {
	file string         // configuration for its clients
	jobs chan []byte    // bodies, as they came
	code map[string]int // ErrCode by command
	cfg  bus.Config
	bus  *bus.Bus
	in   bus.Consumer
}

func startOriginalPeer(t *testing.T) *originalPeer {
	t.Helper()
	server := testserver.BeanstalkdWithoutBinlog(t)
	p := &originalPeer{
		file: filepath.Join(t.TempDir(), "config.json"),
		jobs: make(chan []byte, 16),
		cfg:  bus.Config{URI: server.Addr, Tube: "cbsd_pool1", ReplyTubePrefix: "cbsd_pool1_result_id"},
		code: map[string]int{"bstart": 1, "nosuch": 127, "odd": 999},
	}
	text := fmt.Sprintf(`{"cbsdenv":"/pool1","broker":"beanstalkd","beanstalkd":{"uri":%q,"tube":"cbsd_pool1","reply_tube_prefix":"cbsd_pool1_result_id"}}`, server.Addr)
	if err := os.WriteFile(p.file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	b, closer, err := new(all.Opener).Open(t.Context(), "beanstalkd", p.cfg)
	if err != nil {
		t.Fatal(err)
	}
	if p.in, err = b.Consume(t.Context(), bus.ConsumeOptions{Tubes: []bus.Tube{{Name: p.cfg.Tube}}}); err != nil {
		t.Fatal(err)
	}
	p.bus = b
	done := make(chan struct{})
	ctx, cancel := context.WithCancel(context.Background())
	go func() { defer close(done); p.serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		<-done
		closer.Close()
	})
	return p
}

func (p *originalPeer) serve(ctx context.Context) {
	for {
		ds, err := p.in.Receive(ctx, 1)
		if err != nil {
			return
		}
		for _, d := range ds {
			p.jobs <- d.Body
			var job struct {
				Command string
				JobID   uint64
			}
			_ = json.Unmarshal(d.Body, &job) // the original ignores it too
			if job.JobID == 0 {
				job.JobID = d.ID
			}
			reply := fmt.Sprintf(`{"DskGuid":"0","ErrCode":%d,"Guid":"0","Message":"%s: done\n","Progress":100,"Vnc":""}`, p.code[job.Command], job.Command)
			p.bus.Put(ctx, bus.Message{Tube: bus.Tube{Name: bus.MailboxName(p.cfg.ReplyTubePrefix, job.JobID), Kind: bus.Mailbox}, Body: []byte(reply)})
		}
		_ = p.in.Ack(ctx, ds...)
	}
}

// The client by the original's name gives an original agent the body as it is,
// and prints what the original prints, to the byte.
func TestOriginalClientWithOriginalAgent(t *testing.T) {
	p := startOriginalPeer(t)
	const unknown = `{"Command":"jls", "Frobnicate": [1,2],
		"CommandArgs":{}}`
	for i, tt := range []struct {
		body, stdout string
		status       int
	}{
		{`{"Command":"jls","CommandArgs":{"header":"0"}}`, "got id: 1,callback queue name: cbsd_pool1_result_id1\njls: done\n\n", 0},
		{`{"Command":"bstart","CommandArgs":{"jname":"vm1"}}`, "got id: 3,callback queue name: cbsd_pool1_result_id3\nbstart: done\n\n", 1},
		{`{"Command":"nosuch","JobID":4711}`, "got id: 4711,callback queue name: cbsd_pool1_result_id4711\nnosuch: done\n\n", 127},
		{`{"Command":"odd","JobID":4712}`, "got id: 4712,callback queue name: cbsd_pool1_result_id4712\nodd: done\n\n", 255},
		{unknown, "got id: 9,callback queue name: cbsd_pool1_result_id9\njls: done\n\n", 0},
	} {
		var stdout, stderr bytes.Buffer
		status := run([]string{"/usr/local/bin/bs_router-client", "-config", p.file, "-body", tt.body}, &stdout, &stderr)
		if status != tt.status {
			t.Errorf("%d: exit status %d, want %d", i, status, tt.status)
		}
		if d := cmp.Diff("Using config file: "+p.file+"\n"+tt.stdout, stdout.String()); d != "" {
			t.Errorf("%d: stdout (-want +got):\n%s", i, d)
		}
		if stderr.Len() > 0 {
			t.Errorf("%d: stderr: %s", i, stderr.Bytes())
		}
		if got := <-p.jobs; string(got) != tt.body {
			t.Errorf("%d: the agent got %q", i, got)
		}
	}
}

// An original agent does not know our additions, and `run` works with it all
// the same.
func TestRunWithOriginalAgent(t *testing.T) {
	p := startOriginalPeer(t)
	for _, tt := range []struct {
		args           []string
		status         int
		stdout, stderr string
	}{
		{[]string{"run", "--config", p.file, "jls"}, 0, "jls: done\n", ""},
		{[]string{"run", "--config", p.file, "--accept-timeout", "0", "bstart", "jname=vm1"}, 1, "bstart: done\n", "cbsdmq: failed\n"},
		{[]string{"run", "--config", p.file, "--no-stream", "nosuch"}, 127, "nosuch: done\n", "cbsdmq: failed\n"},
	} {
		var stdout, stderr bytes.Buffer
		status := run(append([]string{"cbsdmq"}, tt.args...), &stdout, &stderr)
		if status != tt.status || stdout.String() != tt.stdout || stderr.String() != tt.stderr {
			t.Errorf("%q: exit status %d, stdout %q, stderr %q", tt.args, status, &stdout, &stderr)
		}
		<-p.jobs
	}
}

// A broker that takes the job and is lost before it says so leaves a doubt, and
// the client says that: the job must not be sent again, it would run twice.
func TestOriginalClientInDoubt(t *testing.T) {
	server := testserver.BeanstalkdWithoutBinlog(t)
	proxy := faultproxy.Start(t, server.Addr)
	open := func(addr string) *bus.Bus {
		b, closer, err := new(all.Opener).Open(t.Context(), "beanstalkd", bus.Config{URI: addr})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { closer.Close() })
		return b
	}
	tube := bus.Tube{Name: "cbsd_pool1"}
	through, beside := open(proxy.Addr()), open(server.Addr)
	if _, err := through.Inspect(t.Context(), tube); err != nil { // it is connected
		t.Fatal(err)
	}
	proxy.Mute(true)
	failed := make(chan error, 1)
	go func() {
		_, err := putOriginal(t.Context(), through, tube.Name, `{"Command":"jls"}`)
		failed <- err
	}()
	in, err := beside.Consume(t.Context(), bus.ConsumeOptions{Tubes: []bus.Tube{tube}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := in.Receive(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	proxy.Cut()
	if err := <-failed; cbsdmq.CodeOf(err) != cbsdmq.CodeUnreachable || !strings.Contains(err.Error(), "may have the job or not") {
		t.Errorf("got %v", err)
	}
}
