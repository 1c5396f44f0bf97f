package beanstalk

import (
	"net"
	"strings"
	"testing"

	"github.com/cbsd/cbsdmq"
)

// FuzzStats: whatever a server says of itself, no number or time of it is one
// that was not there.
func FuzzStats(f *testing.F) {
	f.Add("---\nmax-job-size: 65535\nbinlog-current-index: 0\n")
	f.Add("---\nversion: \"1.12\"\nage: -5\nage: 99999999999999999999\n: \nmax-job-size: x\n")
	f.Fuzz(func(t *testing.T, yaml string) {
		st := parseStats([]byte(yaml))
		if len(st) > strings.Count(yaml, ": ") {
			t.Fatalf("%d entries", len(st))
		}
		for key, value := range st {
			if !strings.Contains(yaml, key) || !strings.Contains(yaml, value) {
				t.Fatalf("%q: %q is not in it", key, value)
			}
			if st.seconds(key) < 0 {
				t.Fatalf("%q: a time before", key)
			}
		}
		if n, err := st.maxJob(); err == nil && n < -2 {
			t.Fatalf("jobs of %d bytes", n)
		}
	})
}

// FuzzAddr: an address is one of a host and a port, and stays as it is, or is
// refused with the key and the way out.
func FuzzAddr(f *testing.F) {
	for _, s := range []string{"", "a", "a:1", "::1", "[::1]", "[::1]:5", "1.2.3.4:0", "a:99999", "http://x", "[a]:1", "a:b:c", "embedded", "fe80::1%lo"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, uri string) {
		addr, err := parseAddr(uri)
		if err != nil {
			if cbsdmq.CodeOf(err) != cbsdmq.CodeBadConfig || cbsdmq.HintOf(err) == "" || !strings.Contains(err.Error(), "beanstalkd.uri") {
				t.Fatalf("no key or no way out: %v", err)
			}
			return
		}
		if host, port, err := net.SplitHostPort(addr); err != nil || host == "" || port == "" {
			t.Fatalf("%q: %q", uri, addr)
		}
		if again, err := parseAddr(addr); err != nil || again != addr {
			t.Fatalf("%q: %q is read as %q, %v", uri, addr, again, err)
		}
	})
}
