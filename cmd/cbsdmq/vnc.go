package main

import (
	"cmp"
	"fmt"
	"net"
	"regexp"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/cbsd/cbsdmq"
)

func newVNCCommand(g *globals) *cobra.Command {
	var t target
	var user, host string
	var port int
	cmd := &cobra.Command{
		Use:   "vnc GUEST | POOL GUEST",
		Short: "Print the ssh line that brings a guest's VNC here",
		Long: `Print the ssh command that makes the VNC server of a guest reachable on this
machine: run it, and point a VNC viewer at the address that is told on stderr.

The host is the one that serves the pool, as it calls itself; --host names it as
ssh knows it. Address and port are from the guest's state.`,
		Example: `  cbsdmq vnc web7
  cbsdmq vnc --user root --port 5999 pool1 web7
  sh -c "$(cbsdmq vnc web7)"`,
		Args:              cobra.RangeArgs(1, 2),
		ValidArgsFunction: g.completeSubject,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, cancel := t.within(cmd.Context())
			defer cancel()
			what, err := t.subject(ctx, g, "vnc", args, nil)
			if err != nil {
				return err
			}
			if what.guest == "" {
				return usage("%s is a pool: name a GUEST", what.pool.Name)
			}
			s, err := g.open(ctx, what.pool, &t)
			if err != nil {
				return err
			}
			defer s.Close()
			guest, found, err := s.Guest(ctx, what.guest)
			if err == nil && !found {
				err = cbsdmq.Errorf(cbsdmq.CodeNotFound, "", "pool %s has no guest %s", what.pool.Name, what.guest)
			}
			if err != nil {
				return err
			}
			if host == "" {
				info, err := s.Status(ctx)
				if err != nil {
					return err
				}
				host = info.Host
			}
			tunnel, err := tunnelTo(guest, host, user, port)
			if err != nil {
				return err
			}
			if g.json() {
				return g.print(tunnel)
			}
			warn(g.stderr, "then point a VNC viewer at 127.0.0.1:%d", tunnel.Port)
			_, err = fmt.Fprintln(g.stdout, tunnel.SSH)
			return err
		},
	}
	t.flags(cmd)
	cmd.Flags().StringVar(&user, "user", "", "`name` to log in with")
	cmd.Flags().StringVar(&host, "host", "", "the host's `address`, where its own name for itself is not known here")
	cmd.Flags().IntVar(&port, "port", 0, "port on this machine; 0 = the same as there")
	return cmd
}

// sshHost is what may stand in a line for a shell.
var sshHost = regexp.MustCompile(`^([A-Za-z0-9_][A-Za-z0-9._-]*@)?[A-Za-z0-9_:][A-Za-z0-9._:%-]*$`)

// A tunnel is how to reach a guest's VNC server.
type tunnel struct {
	Pool  string `json:"pool"`
	Guest string `json:"guest"`
	Host  string `json:"host"`
	VNC   string `json:"vnc"`  // there
	Port  int    `json:"port"` // here
	SSH   string `json:"ssh"`
}

func tunnelTo(g cbsdmq.Guest, host, user string, port int) (tunnel, error) {
	t := tunnel{Pool: g.Pool, Guest: g.Name, Host: host, Port: port}
	refuse := func(hint, format string, args ...any) (tunnel, error) {
		return t, cbsdmq.Errorf(cbsdmq.CodeNotFound, "", format, args...).WithHint("%s", hint)
	}
	start := map[string]string{"qemu": "qstart", "xen": "xstart", "virtualbox": "vstart"}
	switch {
	case g.Emulator == "jail":
		return refuse(fmt.Sprintf("`cbsd jlogin %s` on its host gives a shell in it", g.Name), "%s is a jail: it has no VNC", g.Name)
	case g.Status != "On":
		return refuse(fmt.Sprintf("start it: `cbsdmq run %s %s jname=%s`", g.Pool, cmp.Or(start[g.Emulator], "bstart"), g.Name), "%s is %s: its VNC server runs while it is on", g.Name, g.Status)
	}
	bind, text, err := net.SplitHostPort(g.VNC)
	there, numeric := strconv.Atoi(text)
	if err != nil || numeric != nil || there <= 0 || there > 65535 {
		return refuse(fmt.Sprintf("`cbsdmq run %s bget jname=%s vnc_port` shows its setting", g.Pool, g.Name), "%s has no VNC server", g.Name)
	}
	if ip := net.ParseIP(bind); ip == nil || ip.IsUnspecified() {
		bind = "127.0.0.1"
		if ip != nil && ip.To4() == nil {
			bind = "::1"
		}
	}
	t.VNC = net.JoinHostPort(bind, text)
	t.Port = cmp.Or(port, there)
	if t.Port < 1 || t.Port > 65535 {
		return t, usage("--port: %d is not a port", t.Port)
	}
	if user != "" {
		host = user + "@" + host
	}
	if !sshHost.MatchString(host) {
		return refuse("name it with --host", "%q is not the name of a host", host)
	}
	t.SSH = fmt.Sprintf("ssh -N -L 127.0.0.1:%d:%s %s", t.Port, t.VNC, host)
	return t, nil
}
