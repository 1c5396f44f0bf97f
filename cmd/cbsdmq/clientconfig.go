package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/cbsd/cbsdmq"
	"github.com/cbsd/cbsdmq/bus/zeromq"
	"github.com/cbsd/cbsdmq/config"
)

func newClientConfigCommand(g *globals) *cobra.Command {
	var t target
	var file, uri, password string
	cmd := &cobra.Command{
		Use:   "client-config POOL",
		Short: "Write a configuration for clients of a pool on other hosts",
		Long: `Write a configuration file for clients of a pool: what they need to reach it, and
none of the secrets and paths of the pool's host. Where the broker asks for a
password the file names one that holds it (password_file); put it there, readable by
the client's user or group only.

An address that only this host reaches is written with a warning: --uri names the
one that clients use. Clients need neither root nor the agent's file.`,
		Example: `  cbsdmq client-config pool1
  cbsdmq client-config --uri 192.0.2.1:11300 -O pool1-client.json pool1
  cbsdmq client-config pool1 | ssh web1 'cat > pool1.json'`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: g.completePool,
		RunE: func(cmd *cobra.Command, args []string) error {
			pool, rest, err := t.pool(g, args)
			if err != nil {
				return err
			}
			if len(rest) > 0 {
				return usage("more than one POOL")
			}
			text, err := g.clientConfig(pool, uri, password)
			if err != nil {
				return err
			}
			if file == "" {
				_, err = g.stdout.Write(text)
				return err
			}
			return writeNew(file, text, 0o640)
		},
	}
	cmd.Flags().StringVarP(&t.file, "config", "c", "", "configuration `file`, in place of the argument POOL")
	cmd.Flags().StringVarP(&file, "out", "O", "", "`file` to write, 0640, which must not be there; default stdout")
	cmd.Flags().StringVar(&uri, "uri", "", "`address` at which clients reach the broker")
	cmd.Flags().StringVar(&password, "password-file", "", "`path` on the client of the file with the broker's password")
	return cmd
}

// clientFile is what a client needs, in the order in which it is written.
type clientFile struct {
	Comment string `json:"#"`
	Pool    string `json:"pool"`
	SignKey string `json:"sign_key,omitempty"`
	Broker  string `json:"broker"`
}

type clientSection struct {
	URI             string `json:"uri"`
	Tube            string `json:"tube"`
	ReplyTubePrefix string `json:"reply_tube_prefix"`
	User            string `json:"user,omitempty"`
	PasswordFile    string `json:"password_file,omitempty"`
	Creds           string `json:"creds,omitempty"`
	SASL            string `json:"sasl,omitempty"`
	TLS             bool   `json:"tls,omitempty"`
	CA              string `json:"ca,omitempty"`
	Cert            string `json:"cert,omitempty"`
	Key             string `json:"key,omitempty"`
	Replicas        int    `json:"replicas,omitempty"`
	CurveKey        string `json:"curve_key,omitempty"`
	CurveServer     string `json:"curve_server,omitempty"`
}

// clientConfig makes the file for the first broker of a pool. What the client's
// host has to have beside it is said on stderr.
func (g *globals) clientConfig(pool config.Found, uri, password string) ([]byte, error) {
	s := pool.Config.Buses()[0]
	name := pool.Name
	if name == "" {
		return nil, cbsdmq.Errorf(cbsdmq.CodeBadConfig, "pool", "%s does not say how the pool is called", pool.File).WithHint(`add "pool": "name"`)
	}
	beside := func(suffix string) string { return filepath.Join(config.DefaultPools, name+suffix) }
	host, _ := os.Hostname()
	out := clientSection{
		Tube: s.Tube, ReplyTubePrefix: s.ReplyTubePrefix, User: s.User, SASL: s.SASL,
		TLS: s.TLS, CA: s.CA, Replicas: s.Replicas,
	}
	address, user, secret := withoutLogin(s.URI)
	out.User = cmp.Or(user, s.User)
	if s.URI == config.Embedded {
		address, secret = s.EmbeddedListen, true
	}
	out.URI = cmp.Or(uri, outside(address, host))
	if where := local(out.URI); where != "" {
		warn(g.stderr, "clients on other hosts do not reach %s: --uri names the address that they use", where)
	}
	if secret || s.Password != "" || s.Token != "" || s.PasswordFile != "" || password != "" {
		out.PasswordFile = cmp.Or(password, beside(".password"))
		what := "the broker's password"
		if out.User == "" && s.Kind == "nats" {
			what = "the broker's token"
		}
		if s.URI == config.Embedded {
			what += ", which is in " + filepath.Join(s.EmbeddedDir, "token")
		}
		warn(g.stderr, "on the client, %s is for %s, readable by those only who are to send jobs", out.PasswordFile, what)
	}
	files := []struct {
		is   bool
		to   *string
		name string
		what string
	}{
		{s.Creds != "", &out.Creds, ".creds", "the client's credentials for NATS"},
		{s.Cert != "", &out.Cert, ".crt", "a certificate of the client's own"},
		{s.Key != "", &out.Key, ".key.pem", "the key of that"},
		{s.CurveKey != "", &out.CurveKey, ".curve", "a key of the client's own: `cbsdmq curve-key` makes it, and its public half belongs into the agent's curve_clients"},
	}
	for _, f := range files {
		if f.is {
			*f.to = beside(f.name)
			warn(g.stderr, "on the client, %s is for %s", *f.to, f.what)
		}
	}
	if s.CA != "" {
		warn(g.stderr, "on the client, %s is for the authorities that sign the broker's certificate: copy it", s.CA)
	}
	if s.CurveKey != "" {
		var err error
		if out.CurveServer, err = zeromq.PublicKey(s.CurveKey); err != nil {
			return nil, fmt.Errorf("the agent's public key: %w", err)
		}
	}
	file := clientFile{
		Comment: "For clients of pool " + name + " on " + host + "; made by cbsdmq client-config",
		Pool:    name, Broker: s.Name,
	}
	if pool.Config.RequireSigned {
		file.SignKey = beside(".sign")
		warn(g.stderr, "on the client, `cbsdmq keygen %s` makes the key that signs jobs, and the line for %s here", file.SignKey, pool.Config.Senders)
	}
	return joinObjects(file, map[string]clientSection{s.Name: out})
}

// joinObjects writes two JSON objects as one.
func joinObjects(a, b any) ([]byte, error) {
	x, err := json.MarshalIndent(a, "", "  ")
	if err != nil {
		return nil, err
	}
	y, err := json.MarshalIndent(b, "", "  ")
	if err != nil {
		return nil, err
	}
	return []byte(strings.TrimSuffix(string(x), "\n}") + ",\n" + strings.TrimPrefix(string(y), "{\n") + "\n"), nil
}

// withoutLogin takes user and password out of a broker's addresses.
func withoutLogin(uri string) (bare, user string, secret bool) {
	parts := strings.Split(uri, ",")
	for i, part := range parts {
		u, err := url.Parse(strings.TrimSpace(part))
		if err != nil || u.User == nil {
			continue
		}
		user, secret = cmp.Or(user, u.User.Username()), true
		if _, both := u.User.Password(); !both { // NATS takes it for a token
			user = ""
		}
		u.User = nil
		parts[i] = u.String()
	}
	return strings.Join(parts, ","), user, secret
}

// outside puts the host's name in the place of "every address".
func outside(uri, host string) string {
	parts := strings.Split(uri, ",")
	for i, part := range parts {
		scheme, rest, ok := strings.Cut(part, "://")
		if !ok {
			scheme, rest = "", part
		}
		h, port, err := net.SplitHostPort(rest)
		if err != nil || h != "*" && h != "" && !net.ParseIP(h).IsUnspecified() {
			continue
		}
		parts[i] = net.JoinHostPort(host, port)
		if ok {
			parts[i] = scheme + "://" + parts[i]
		}
	}
	return strings.Join(parts, ",")
}

// local is the first of the addresses that is of this host alone, "" where there
// is none.
func local(uri string) string {
	for part := range strings.SplitSeq(uri, ",") {
		_, rest, ok := strings.Cut(part, "://")
		if !ok {
			rest = part
		}
		rest, _, _ = strings.Cut(rest, "/")
		h, _, err := net.SplitHostPort(rest)
		if err != nil {
			h = strings.Trim(rest, "[]")
		}
		if ip := net.ParseIP(h); h == "localhost" || ip != nil && ip.IsLoopback() {
			return part
		}
	}
	return ""
}

// writeNew writes a file that is not there yet.
func writeNew(file string, text []byte, mode fs.FileMode) error {
	f, err := os.OpenFile(file, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if errors.Is(err, fs.ErrExist) {
		return cbsdmq.Errorf(cbsdmq.CodeRefused, "-O", "%s is there already", file).
			WithHint("it might be the agent's: choose another name, or remove it yourself")
	}
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err = errors.Join(err, f.Chmod(mode), f.Close()); err != nil { // whatever the umask is
		os.Remove(file)
	}
	return err
}
