package zeromq

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cbsd/cbsdmq"
	"github.com/cbsd/cbsdmq/bus"
	"github.com/cbsd/cbsdmq/internal/testserver"
)

// TestLibzmqClient has testdata/client.py, which is libzmq, submit a job and
// read the replies, with and without encryption.
func TestLibzmqClient(t *testing.T) {
	python := testserver.PyZMQ(t)
	agentFile, agentKey, _ := keyFile(t)
	_, clientKey, clientSecret := keyFile(t)
	clients := filepath.Join(t.TempDir(), "clients")
	if err := os.WriteFile(clients, []byte(clientKey), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		cfg  bus.Config
		keys []string
	}{
		{"NULL", bus.Config{}, nil},
		{"CURVE", bus.Config{CurveKey: agentFile, CurveClients: clients}, []string{agentKey, clientKey, clientSecret}},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.cfg.URI = testserver.FreeAddr(t)
			agent := serve(t, c.cfg)
			cmd := python(append([]string{"testdata/client.py", "tcp://" + c.cfg.URI, "q", "r", `{"Command":"jls","CommandArgs":{"jname":"` + strings.Repeat("j", 300) + `"}}`}, c.keys...)...)
			var out, stderr bytes.Buffer
			cmd.Stdout, cmd.Stderr = &out, &stderr
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			defer cmd.Process.Kill()
			ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
			defer cancel()
			n, err := agent.Consume(ctx, bus.ConsumeOptions{Tubes: []bus.Tube{{Name: "q"}}})
			if err != nil {
				t.Fatal(err)
			}
			ds, err := n.Receive(ctx, 1)
			if err != nil {
				t.Fatalf("no job: %v\n%s", err, stderr.Bytes())
			}
			job, err := cbsdmq.ParseJob(ds[0].Body)
			if err != nil || job.Command != "jls" {
				t.Fatalf("%+v, %v", job, err)
			}
			if err := n.Ack(ctx, ds...); err != nil {
				t.Fatal(err)
			}
			var want []string
			for _, progress := range []int{0, 50, 100} {
				reply := fmt.Sprintf(`{"Message":"%s","Progress":%d}`, strings.Repeat("m", 50_000), progress)
				want = append(want, reply)
				m := bus.Message{Tube: bus.Tube{Name: bus.MailboxName("r", job.JobID), Kind: bus.Mailbox}, Body: []byte(reply)}
				if err := agent.Put(ctx, m)[0].Err; err != nil {
					t.Fatal(err)
				}
			}
			if err := cmd.Wait(); err != nil {
				t.Fatalf("client.py: %v\n%s", err, stderr.Bytes())
			}
			if got := strings.TrimSpace(out.String()); got != strings.Join(want, "\n") {
				t.Errorf("client.py printed %d bytes, want the three replies:\n%.300s", len(got), got)
			}
		})
	}
}

// TestLibzmqSockets tries what else libzmq may do: a REQ socket, heartbeats that
// find a dead peer, frames of every size, reconnecting, a wrong key.
func TestLibzmqSockets(t *testing.T) {
	python := testserver.PyZMQ(t)
	p := agent(t)
	run := func(script string, args ...string) string {
		t.Helper()
		out, err := python(append([]string{"-c", script}, args...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return strings.TrimSpace(string(out))
	}
	const head = `
import sys, zmq
def opened(kind, **options):
    s = zmq.Context.instance().socket(kind)
    s.linger = 0
    s.rcvtimeo = 20000
    for name, value in options.items():
        setattr(s, name, value)
    s.connect("tcp://" + sys.argv[1])
    return s
`
	t.Run("REQ", func(t *testing.T) {
		if got := run(head+`
s = opened(zmq.REQ)
def ask(*frames):
    s.send_multipart(frames)
    return s.recv_multipart()
print(ask(b"MAIL", b"1", b"box", b"60000", b"hello")[:2])
m = ask(b"GET", b"2", b"1000", b"9", b"0", b"box")
print(m[0], m[2], m[5:])
print(ask(b"ACK", b"3", m[3]), ask(b"GET", b"4", b"0", b"9", b"0", b"box"), ask(b"what", b"5"))
`, p.Addr); got != strings.TrimSpace(`
[b'OK', b'1']
b'MSG' b'box' [b'5', b'hello']
[b'OK', b'3'] [b'OK', b'4'] [b'ERR', b'5', b'bad', b'not a request of this protocol']`) {
			t.Errorf("got\n%s", got)
		}
	})
	t.Run("heartbeats", func(t *testing.T) {
		got := ""
		for timeout := 1500; timeout <= 12_000; timeout *= 2 { // the machine may stop for longer than that
			if got = run(head+`
timeout = int(sys.argv[2])
s = opened(zmq.DEALER, heartbeat_ivl=100, heartbeat_timeout=timeout, heartbeat_ttl=2*timeout)
m = s.get_monitor_socket(zmq.EVENT_DISCONNECTED)
s.send_multipart([b"ASK", b"1", b"x"])
print(s.recv_multipart()[:2], m.poll(2*timeout))
`, p.Addr, fmt.Sprint(timeout)); got == "[b'OK', b'1'] 0" {
				return
			}
			t.Logf("got %s, with a timeout of %d ms", got, timeout)
		}
		t.Errorf("got %s, want no disconnection", got)
	})
	t.Run("sizes", func(t *testing.T) {
		if got := run(head+`
s = opened(zmq.DEALER)
for size in [0, 1, 254, 255, 256, 257, 65535, 65536, 1 << 20]:
    body = bytes(i % 251 for i in range(size))
    s.send_multipart([b"MAIL", b"a", b"box", b"0", body]); s.recv_multipart()
    s.send_multipart([b"GET", b"b", b"0", b"1", b"0", b"box"]); m = s.recv_multipart()
    assert m[6] == body, size
    s.send_multipart([b"ACK", b"c", m[3]]); s.recv_multipart()
s.send_multipart([b"MAIL", b"a", b"box", b"0", bytes((1 << 20) + 1)])
print(s.recv_multipart()[2:3])
`, p.Addr); got != "[b'large']" {
			t.Errorf("got %s", got)
		}
	})
	t.Run("reconnects", func(t *testing.T) {
		// What is sent at the moment at which the agent ends is lost: it is sent again.
		cmd := python("-c", head+`
s = opened(zmq.DEALER, reconnect_ivl=20, rcvtimeo=1000)
for i in range(2):
    for again in range(60):
        s.send_multipart([b"ASK", b"%d" % i, b"x"])
        try:
            m = s.recv_multipart()
            while m[1] != b"%d" % i:
                m = s.recv_multipart()
            print(m[:2], flush=True)
            break
        except zmq.Again:
            pass
    sys.stdin.readline()
`, p.Addr)
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		defer cmd.Process.Kill()
		lines := bufio.NewScanner(out)
		for i := range 2 {
			if want := fmt.Sprintf("[b'OK', b'%d']", i); !lines.Scan() || lines.Text() != want {
				t.Fatalf("got %q, want %s; %v\n%s", lines.Text(), want, lines.Err(), stderr.Bytes())
			}
			if i == 0 {
				p.Kill(t)
				p.Start(t)
			}
			fmt.Fprintln(in)
		}
		if err := cmd.Wait(); err != nil {
			t.Errorf("%v\n%s", err, stderr.Bytes())
		}
	})
	t.Run("wrong keys", func(t *testing.T) {
		agentFile, agentKey, _ := keyFile(t)
		_, public, secret := keyFile(t)
		addr := testserver.FreeAddr(t)
		serve(t, bus.Config{URI: addr, CurveKey: agentFile})
		for name, c := range map[string]struct{ server, want string }{
			"of a stranger":    {agentKey, "HANDSHAKE_FAILED_AUTH 400"},
			"of another agent": {public, "DISCONNECTED"}, // libzmq has no event for the text of an ERROR
		} {
			if got := run(head+`
s = zmq.Context.instance().socket(zmq.DEALER)
s.linger = 0
s.rcvtimeo = 20000
m = s.get_monitor_socket()
s.curve_serverkey, s.curve_publickey, s.curve_secretkey = (k.encode() for k in sys.argv[2:])
s.connect("tcp://" + sys.argv[1])
from zmq.utils.monitor import recv_monitor_message
while True:
    e = recv_monitor_message(m)
    name = zmq.Event(e["event"]).name
    if name == "HANDSHAKE_FAILED_AUTH":
        print(name, e["value"])
        break
    if name in ("DISCONNECTED", "HANDSHAKE_SUCCEEDED"):
        print(name)
        break
`, addr, c.server, public, secret); got != c.want {
				t.Errorf("%s: got %s, want %s", name, got, c.want)
			}
		}
	})
}
