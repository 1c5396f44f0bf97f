package agent

import (
	"bytes"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/cbsd/cbsdmq"
	"github.com/cbsd/cbsdmq/cbsd"
)

const canary = "CANARY-pa55word"

// Nothing that is left of jobs holds a secret of theirs, however they ended.
func TestSecretsAreNotKept(t *testing.T) {
	b := newBench(t)
	var log bytes.Buffer
	b.adjust = func(c *Config) { c.Log = slog.New(slog.NewTextHandler(&log, nil)) }
	b.start()
	secret := "ci_user_pw_root=" + canary
	done := b.submit("jprint", "before=1", secret, "vnc_password="+canary, "after=2")
	r := b.want(done, cbsdmq.Done, 0)
	if strings.Contains(r.Message, canary) || !strings.Contains(r.Message, "before=1") || !strings.Contains(r.Message, "after=2") {
		t.Errorf("printed: %q", r.Message)
	}
	b.want(b.submit("jfail", "jname=jail1", secret), cbsdmq.Failed, 1)
	b.want(b.submit("nosuch", "jname=jail1", secret), cbsdmq.Refused, 2)
	long := b.submit("jstart", "jname=jail2", secret)
	cancelled := b.submit("jset", "jname=jail2", secret)
	b.running(long)
	b.finish(long, 0, strings.Repeat("x", 100_000)+canary+strings.Repeat("y", 100_000))
	b.want(long, cbsdmq.Done, 0)
	b.want(cancelled, cbsdmq.Done, 0)
	b.raw(`{"Command":"jset","CommandArgs":{"pw":"` + canary + `","pw":1},"JobID":4503599627370496,"cbsdmq":{"v":1,"id":"` + newID() + `"}}`)
	b.raw(`{"Command":"jset","CommandArgs":{"pw":"` + canary + `"` + `},"JobID":4503599627370496,"cbsdmq":{"v":2,"id":"` + newID() + `"}}`)
	b.want(b.submit("jls"), cbsdmq.Done, 0)
	row, err := b.row(done)
	if err != nil || !bytes.Contains(row.Plan, []byte("ci_user_pw_root=***")) || !bytes.Contains(row.Plan, []byte("after=2")) {
		t.Errorf("%s, %v", row.Plan, err)
	}
	b.stop()
	err = filepath.WalkDir(b.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || strings.HasSuffix(path, ".err") || filepath.Dir(path) == b.dir { // what the fake runner keeps
			return err
		}
		text, err := os.ReadFile(path)
		if bytes.Contains(text, []byte(canary)) {
			t.Errorf("%s holds it", path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(log.String(), canary) {
		t.Errorf("the log: %s", log.String())
	}
	for id, rs := range b.got {
		for _, r := range rs {
			if strings.Contains(r.Message+r.Reason+r.Hint+r.Stderr, canary) {
				t.Errorf("%s: %+v", id, r)
			}
		}
	}
}

func TestMask(t *testing.T) {
	values := [][]byte{[]byte("secret"), []byte("1"), []byte("secretary")}
	for _, size := range []int{0, 5, 6, 7, 32 << 10, 32<<10 + 3, 100_000} {
		text := strings.Repeat("-", size) + "secret" + strings.Repeat("1", 9) + "secretsecret"
		want := strings.Repeat("-", size) + "******" + strings.Repeat("1", 9) + "************"
		for name, r := range map[string]io.Reader{
			"whole": strings.NewReader(text), "by byte": iotest.OneByteReader(strings.NewReader(text)), "error with data": iotest.DataErrReader(strings.NewReader(text)),
		} {
			if name == "by byte" && size > 100 {
				continue
			}
			got, err := io.ReadAll(masked(r, values))
			if err != nil || string(got) != want {
				t.Errorf("%d %s: %v", size, name, err)
			}
		}
	}
}

// One secret may be the beginning of another.
func TestMaskLongest(t *testing.T) {
	p := []byte("with pass and with password1")
	_, values := withoutSecrets(cbsd.Plan{Argv: []string{"bcreate", "vnc_password=pass", "ci_user_pw_root=password1"}})
	mask(p, values)
	if got, want := string(p), "with **** and with *********"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
