package config

import (
	"encoding/json"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestDuration(t *testing.T) {
	for text, want := range map[string]time.Duration{
		`"30d"`: 30 * day, `"24h"`: day, `"90s"`: 90 * time.Second, `"1d12h"`: 36 * time.Hour, `"1h30m"`: 90 * time.Minute,
		`5`: 5 * time.Second, `0.5`: time.Second / 2, `0`: 0, `"0"`: 0, `"60"`: time.Minute, `"-5s"`: -5 * time.Second, `1e3`: 1000 * time.Second,
		`"500ms"`: time.Second / 2,
	} {
		var d Duration
		if err := json.Unmarshal([]byte(text), &d); err != nil || time.Duration(d) != want {
			t.Errorf("%s: got %s, %v", text, d, err)
		}
	}
	for _, text := range []string{`"d"`, `"1.5d"`, `"30 d"`, `""`, `"soon"`, `true`, `[]`, `{}`, `1e300`, `"1e9d"`, `"106752d"`, `"99999999999999999999"`, `"5w"`, `"d5h"`} {
		d := Duration(7)
		if err := json.Unmarshal([]byte(text), &d); err == nil {
			t.Errorf("%s: taken as %s", text, d)
		}
	}
	var d Duration = 7
	if err := json.Unmarshal([]byte("null"), &d); err != nil || d != 7 {
		t.Errorf("null: %s, %v: the default stays", d, err)
	}
	rapid.Check(t, func(t *rapid.T) {
		want := Duration(rapid.Int64Range(0, int64(10000*day)).Draw(t, "d"))
		got, err := ParseDuration(want.String())
		if err != nil || got != want {
			t.Fatalf("%s came back as %s, %v", want, got, err)
		}
	})
}

func TestSize(t *testing.T) {
	for text, want := range map[string]Size{
		`"256m"`: 256 << 20, `"1G"`: 1 << 30, `"64k"`: 64 << 10, `"2t"`: 2 << 40, `4096`: 4096, `"4096"`: 4096, `0`: 0,
	} {
		var s Size
		if err := json.Unmarshal([]byte(text), &s); err != nil || s != want {
			t.Errorf("%s: got %s, %v", text, s, err)
		}
	}
	for _, text := range []string{`""`, `"m"`, `"1.5g"`, `"-1m"`, `-1`, `1.5`, `"256mb"`, `"9999999999g"`, `true`, `[]`, `{}`, `"1 m"`} {
		var s Size
		if err := json.Unmarshal([]byte(text), &s); err == nil {
			t.Errorf("%s: taken as %s", text, s)
		}
	}
	s := Size(7)
	if err := json.Unmarshal([]byte("null"), &s); err != nil || s != 7 {
		t.Errorf("null: %s, %v: the default stays", s, err)
	}
	rapid.Check(t, func(t *rapid.T) {
		want := Size(rapid.Int64Range(0, 1<<50).Draw(t, "s"))
		b, err := json.Marshal(want)
		if err != nil {
			t.Fatal(err)
		}
		var got Size
		if err := json.Unmarshal(b, &got); err != nil || got != want {
			t.Fatalf("%s came back as %s, %v", b, got, err)
		}
	})
}

func TestAllow(t *testing.T) {
	var a Allow
	if err := json.Unmarshal([]byte(`"all"`), &a); err != nil || !a.All() {
		t.Errorf("all: %v, %v", a, err)
	}
	if err := json.Unmarshal([]byte(`[]`), &a); err != nil || a == nil || a.All() || len(a) != 0 {
		t.Errorf("an empty list allows nothing: %v, %v", a, err)
	}
	if err := json.Unmarshal([]byte(`["jls"]`), &a); err != nil || len(a) != 1 || a.All() {
		t.Errorf("list: %v, %v", a, err)
	}
	if err := json.Unmarshal([]byte(`null`), &a); err != nil || a != nil {
		t.Errorf("null: %v, %v", a, err)
	}
	for _, text := range []string{`"ALL"`, `""`, `4`, `{}`, `[4]`} {
		if err := json.Unmarshal([]byte(text), &a); err == nil {
			t.Errorf("%s was taken", text)
		}
	}
}

func TestNearest(t *testing.T) {
	words := []string{"workers", "readers", "tube", "uri", "output_max", "pool1", "pool2"}
	for name, want := range map[string]string{
		"workres": "workers", "worker": "workers", "Workers": "workers", "tub": "tube", "url": "uri", "output": "output_max",
		"cbsdenv": "", "x": "", "pol1": "pool1", "": "",
	} {
		if got := nearest(name, words); got != want {
			t.Errorf("%q: got %q, want %q", name, got, want)
		}
	}
}
