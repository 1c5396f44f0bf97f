package main

import (
	"bytes"
	"testing"
)

// TestPlain has texts of others that would move the cursor, forge a line or turn
// a line around.
func TestPlain(t *testing.T) {
	for text, want := range map[string]string{
		"root@vm":                       "root@vm",
		"größe 日本":                      "größe 日本",
		"\x1b[2J\x07evil":               "?[2J?evil",
		"a\r\nroot@vm  done":            "a? root@vm  done",
		"a\tb":                          "a b",
		"\u202etxt.exe\u2066\u0085\x7f": "?txt.exe???",
		"\xff":                          "?",
	} {
		if got := plain(text); got != want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
	var out bytes.Buffer
	if err := table(&out, []string{"ID", "SENDER"}, [][]string{{"1", "\x1b[2J\tx"}, {"2", ""}}); err != nil {
		t.Fatal(err)
	}
	warn(&out, "the job waits: %s", "\x1b[2J")
	if got, want := out.String(), "ID  SENDER\n1   ?[2J x\n2   -\ncbsdmq: the job waits: ?[2J\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
