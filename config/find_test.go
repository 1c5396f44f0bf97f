package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/cbsd/cbsdmq"
)

func write(t *testing.T, dir, name, text string) string {
	t.Helper()
	file := filepath.Join(dir, name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

const section = `,"beanstalkd":{"uri":"127.0.0.1"}}`

func TestFind(t *testing.T) {
	etc := t.TempDir()
	dir := filepath.Join(etc, "cbs[d]mq*")
	one := write(t, dir, "a.json", `{"cbsdenv":"/pool1"`+section)
	web := write(t, dir, "web.json", `{"pool":"shop"`+section)
	remote := write(t, dir, "remote.json", `{"broker":"beanstalkd"`+section)
	write(t, dir, "notes.txt", "not a pool")
	broken := write(t, dir, "broken.json", `{"cbsdenv":`)
	old := write(t, etc, "pool9.json", `{"cbsdenv":"/pool9"`+section)
	write(t, etc, "pool8.json", `{"no":"cbsdenv"`+section)
	if err := os.Symlink(one, filepath.Join(etc, "cbsdmq.json")); err != nil {
		t.Fatal(err)
	}
	p := Find(Places{Dirs: []string{dir, filepath.Join(etc, "none")}, Globs: []string{filepath.Join(etc, "pool*.json"), filepath.Join(etc, "cbsdmq.json")}})

	if diff := cmp.Diff([]string{"pool1", "pool9", "remote", "shop"}, p.Names()); diff != "" {
		t.Errorf("names (-want +got):\n%s", diff)
	}
	for name, file := range map[string]string{"pool1": one, "pool9": old, "remote": remote, "shop": web} {
		f, err := p.Get(name)
		if err != nil || f.File != file || f.Config.Pool != name {
			t.Errorf("%s: %+v, %v", name, f, err)
		}
	}
	if f, _ := p.Get("remote"); f.Config.Sections["beanstalkd"].Tube != "cbsd_remote" {
		t.Errorf("remote's tube is %q", f.Config.Sections["beanstalkd"].Tube)
	}
	if len(p.Broken) != 1 || !strings.HasPrefix(p.Broken[0].Error(), broken+":1:12: not JSON") {
		t.Errorf("broken: %v", p.Broken)
	}

	_, err := p.Get("pool3")
	if cbsdmq.CodeOf(err) != cbsdmq.CodeNotFound || !strings.Contains(err.Error(), broken) {
		t.Errorf("not found: %v", err)
	}
	hint := cbsdmq.HintOf(err)
	for _, want := range []string{"did you mean pool", "known pools: pool1, pool9, remote, shop", dir, filepath.Join(etc, "pool*.json")} {
		if !strings.Contains(hint, want) {
			t.Errorf("hint %q lacks %q", hint, want)
		}
	}
}

func TestFindTwice(t *testing.T) {
	dir := t.TempDir()
	a := write(t, dir, "a.json", `{"cbsdenv":"/pool1"`+section)
	b := write(t, dir, "b.json", `{"cbsdenv":"/old/pool1"`+section)
	_, err := Find(Places{Dirs: []string{dir}}).Get("pool1")
	if cbsdmq.CodeOf(err) != cbsdmq.CodeBadConfig || !strings.Contains(err.Error(), a) || !strings.Contains(err.Error(), b) {
		t.Errorf("got %v, want an error that names both files", err)
	}
}

func TestFindNothing(t *testing.T) {
	dir := t.TempDir()
	_, err := Find(Places{Dirs: []string{dir}}).Get("pool1")
	if cbsdmq.CodeOf(err) != cbsdmq.CodeNotFound || cbsdmq.HintOf(err) != "no pool was found; looked in "+dir {
		t.Errorf("got %v, hint %q", err, cbsdmq.HintOf(err))
	}
}

// A directory that cannot be read is not taken for one without pools.
func TestFindUnreadable(t *testing.T) {
	file := write(t, t.TempDir(), "pool1.json", `{"cbsdenv":"/pool1"`+section)
	closed := filepath.Join(t.TempDir(), "closed")
	if err := os.Mkdir(closed, 0o000); err != nil {
		t.Fatal(err)
	}
	for dir, want := range map[string]string{file: "not a directory", closed: "permission denied"} {
		if dir == closed && os.Geteuid() == 0 {
			continue // root may
		}
		_, err := Find(Places{Dirs: []string{dir}}).Get("pool1")
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), dir) {
			t.Errorf("%s: %v", dir, err)
		}
	}
}

func TestPoolPlaces(t *testing.T) {
	if got := PoolPlaces("/a:/b", "/c"); !cmp.Equal(got, Places{Dirs: []string{"/a", "/b"}}) {
		t.Errorf("the flag wins: %+v", got)
	}
	if got := PoolPlaces("", "/c"); !cmp.Equal(got, Places{Dirs: []string{"/c"}}) {
		t.Errorf("then the environment: %+v", got)
	}
	got := PoolPlaces("", "")
	want := Places{
		Dirs:  []string{"/usr/local/etc/cbsdmq"},
		Globs: []string{"/usr/local/etc/pool*.json", "/usr/local/etc/cbsdmq.json", "/usr/local/etc/cbsd-mq-router.json"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("default (-want +got):\n%s", diff)
	}
}
