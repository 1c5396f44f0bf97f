package main

import (
	"testing"

	"github.com/cbsd/cbsdmq"
)

func TestTunnel(t *testing.T) {
	for vnc, want := range map[string]string{
		"127.0.0.1:5900":  "ssh -N -L 127.0.0.1:5900:127.0.0.1:5900 host1",
		"0.0.0.0:5901":    "ssh -N -L 127.0.0.1:5901:127.0.0.1:5901 host1",
		"192.0.2.7:5902":  "ssh -N -L 127.0.0.1:5902:192.0.2.7:5902 host1",
		"[::]:5903":       "ssh -N -L 127.0.0.1:5903:[::1]:5903 host1",
		"[2001:db8::1]:5": "ssh -N -L 127.0.0.1:5:[2001:db8::1]:5 host1",
		":5904":           "ssh -N -L 127.0.0.1:5904:127.0.0.1:5904 host1",
		"127.0.0.1:0":     "",
		"127.0.0.1:70000": "",
		"":                "",
		"$(reboot):1":     "ssh -N -L 127.0.0.1:1:127.0.0.1:1 host1",
	} {
		got, err := tunnelTo(cbsdmq.Guest{Name: "vm1", Emulator: "bhyve", Status: "On", VNC: vnc}, "host1", "", 0)
		if got.SSH != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v", vnc, got.SSH, err)
		}
	}
	for _, host := range []string{"", "a b", "$(reboot)", "-oProxyCommand=reboot", "a;b", "root@-x"} {
		if got, err := tunnelTo(cbsdmq.Guest{Name: "vm1", Emulator: "bhyve", Status: "On", VNC: "127.0.0.1:1"}, host, "", 0); err == nil {
			t.Errorf("host %q: %q", host, got.SSH)
		}
	}
}
