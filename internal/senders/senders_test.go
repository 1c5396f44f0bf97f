package senders

import (
	"crypto/ed25519"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cbsd/cbsdmq"
)

const (
	one = "ed25519:A6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg="
	two = "ed25519:11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="
)

func TestParse(t *testing.T) {
	s, err := Parse("# who may what\n\nshop " + one + "  pools=pool1,pool9* commands=b*,jls guests=web*,db1 # a shop\n" +
		"shop " + two + " guests= commands=* pools=* not_after=2027-03-01\n")
	if err != nil {
		t.Fatal(err)
	}
	k := s.Key(one)
	if k == nil || k.Name != "shop" || k.ID() != one || s.Len() != 2 {
		t.Fatalf("%+v", k)
	}
	for what, got := range map[string]bool{
		"pool1": k.MayPool("pool1"), "pool97": k.MayPool("pool97"), "bstart": k.MayCommand("bstart"), "jls": k.MayCommand("jls"),
		"web7 and db1": k.MayGuests("web7", "db1"), "no guest": k.MayGuests(), "the other": s.Key(two).MayGuests(),
	} {
		if !got {
			t.Errorf("%s: may not", what)
		}
	}
	for what, got := range map[string]bool{
		"pool2": k.MayPool("pool2"), "jstart": k.MayCommand("jstart"), "B": k.MayCommand("Bstart"), "db10": k.MayGuests("db10"),
		"web7 and db2": k.MayGuests("web7", "db2"), "all": k.All(), "all guests": k.AllGuests(), "any of none": s.Key(two).MayGuests("web1"),
	} {
		if got {
			t.Errorf("%s: may", what)
		}
	}
	if end := s.Key(two).NotAfter; !end.Equal(time.Date(2027, 3, 1, 23, 59, 59, 0, time.UTC)) {
		t.Errorf("ends at %s", end)
	}
}

func TestParseRefuses(t *testing.T) {
	const all = " pools=* commands=* guests=*"
	for name, tt := range map[string]struct{ text, want string }{
		"no key":          {"shop\n", "not a line of a sender"},
		"name":            {"sh/op " + one + all, `"sh/op" is not the name`},
		"unicode name":    {"ѕhop " + one + all, "is not the name"},
		"another kind":    {"shop ssh-ed25519 AAAA" + all, "not a public key"},
		"short key":       {"shop ed25519:AAAA" + all, "not a public key"},
		"secret key":      {"shop ed25519-secret:" + strings.Repeat("A", 43) + "=" + all, "not a public key"},
		"no pools":        {"shop " + one + " commands=* guests=*", "pools= is missing"},
		"no commands":     {"shop " + one + " pools=* guests=*", "commands= is missing"},
		"no guests":       {"shop " + one + " pools=* commands=*", "guests= is missing"},
		"misspelt":        {"shop " + one + all + " notafter=2027-01-01", `"notafter=2027-01-01" is not known`},
		"list with space": {"shop " + one + " pools=a, b commands=* guests=*", `"" is not a name or pattern`},
		"twice":           {"shop " + one + all + " guests=web1", "guests= comes twice"},
		"bad pattern":     {"shop " + one + " pools=[ commands=* guests=*", `"[" is not a name or pattern`},
		"bad time":        {"shop " + one + all + " not_after=tomorrow", "not_after=: not a time"},
		"one key for two": {"shop " + one + all + "\nother " + one + all, ":2: senders: the key is in the line of shop already"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Parse(tt.text)
			if err == nil || !strings.Contains(err.Error(), tt.want) || cbsdmq.CodeOf(err) != cbsdmq.CodeBadConfig || cbsdmq.HintOf(err) == "" {
				t.Errorf("%v, hint %q", err, cbsdmq.HintOf(err))
			}
			if err != nil && strings.Contains(err.Error(), "AAAA") {
				t.Errorf("what may be a secret is told: %v", err)
			}
		})
	}
}

func TestVerify(t *testing.T) {
	dir := t.TempDir()
	var lines string
	signers := make([]*cbsdmq.Signer, 3)
	for i, end := range []string{"", " not_after=2026-11-22T10:00:00Z", ""} {
		file := filepath.Join(dir, string(rune('a'+i)))
		public, err := Make("shop", file)
		if err != nil {
			t.Fatal(err)
		}
		if signers[i], err = LoadSigner("sign_key", file); err != nil {
			t.Fatal(err)
		}
		if i < 2 { // the third is not in the file
			lines += Line("shop", public) + end + "\n"
		}
	}
	s, err := Parse(lines)
	if err != nil {
		t.Fatal(err)
	}
	at := time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)
	sign := func(i int) cbsdmq.Request {
		r := cbsdmq.Request{Op: cbsdmq.OpJobs}
		if err := signers[i].SignRequest(&r); err != nil {
			t.Fatal(err)
		}
		return r
	}
	verify := func(r cbsdmq.Request, name string, now time.Time) (*Key, error) {
		text, err := r.SignedText()
		if err != nil {
			t.Fatal(err)
		}
		return s.Verify("", name, r.Sig, text, now)
	}
	for i := range 2 {
		if k, err := verify(sign(i), "shop", at); err != nil || string(k.Public) != string(signers[i].Key.Public().(ed25519.PublicKey)) {
			t.Errorf("key %d: %v", i, err)
		}
	}
	for name, tt := range map[string]struct {
		key    int
		sender string
		now    time.Time
		want   string
	}{
		"ended":          {1, "shop", at.Add(time.Second), "sig: the key of shop was good until 2026-11-22T10:00:00Z"},
		"unknown sender": {0, "other", at, `signer: no key of "other" is known here`},
		"revoked":        {2, "shop", at, "sig: not a signature of this by a key of shop"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := verify(sign(tt.key), tt.sender, tt.now)
			if err == nil || !strings.HasPrefix(err.Error(), tt.want) || cbsdmq.HintOf(err) == "" {
				t.Errorf("%v", err)
			}
		})
	}
}

func TestFiles(t *testing.T) {
	dir := t.TempDir()
	key := filepath.Join(dir, "secret")
	public, err := Make("alice@shop", key)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(key); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info.Mode(), err)
	}
	before, _ := os.ReadFile(key)
	if _, err := Make("alice@shop", key); err == nil || !strings.Contains(err.Error(), "is there already") {
		t.Errorf("made again: %v", err)
	}
	if after, _ := os.ReadFile(key); string(after) != string(before) {
		t.Error("the key was overwritten")
	}
	if err := os.Chmod(key, 0o604); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadSigner("sign_key", key); err == nil || !strings.Contains(err.Error(), "everybody can read the key") {
		t.Errorf("read by everybody: %v", err)
	}

	many := filepath.Join(dir, "senders.d")
	if err := os.Mkdir(many, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"shop": Line("shop", public), "ops": "ops " + one + " pools=* commands=* guests=*", ".old": "nonsense"} {
		if err := os.WriteFile(filepath.Join(many, name), []byte(text+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	s, err := Load(many)
	if err != nil || s.Len() != 2 {
		t.Fatalf("%+v, %v", s, err)
	}
	if err := os.Chmod(filepath.Join(many, "ops"), 0o664); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(many); err == nil || !strings.Contains(err.Error(), "others can write to it") {
		t.Errorf("written by others: %v", err)
	}
	if err := os.Chmod(filepath.Join(many, "ops"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadSigner("sign_key", filepath.Join(many, "ops")); err == nil || !strings.Contains(err.Error(), "holds no secret key") {
		t.Errorf("a public key to sign with: %v", err)
	}
	if _, err := Load(filepath.Join(dir, "none")); err == nil || cbsdmq.HintOf(err) == "" {
		t.Errorf("none: %v", err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add("shop " + one + " pools=pool1 commands=b*,[a-z]ls guests=web? not_after=2027-01-01T00:00:00+02:00 # c\n")
	f.Fuzz(func(t *testing.T, text string) {
		s, err := Parse(text)
		if err != nil {
			if cbsdmq.CodeOf(err) != cbsdmq.CodeBadConfig || cbsdmq.HintOf(err) == "" {
				t.Fatalf("%v, hint %q", err, cbsdmq.HintOf(err))
			}
			return
		}
		for id, k := range s.byID {
			if k.ID() != id || !ValidName(k.Name) || len(k.Public) != ed25519.PublicKeySize {
				t.Fatalf("%+v", k)
			}
			k.MayGuests("web1")
		}
	})
}
