package all

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"

	"github.com/cbsd/cbsdmq"
	"github.com/cbsd/cbsdmq/bus"
)

// The password is read at each connection: one that was changed is used by the
// next.
func TestPasswordFile(t *testing.T) {
	server := func(opts natsserver.Options) string {
		opts.Host, opts.Port, opts.JetStream, opts.StoreDir, opts.NoSigs = "127.0.0.1", -1, true, t.TempDir(), true
		s, err := natsserver.NewServer(&opts)
		if err != nil {
			t.Fatal(err)
		}
		s.Start()
		t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
		if !s.ReadyForConnections(20 * time.Second) {
			t.Fatal("the server does not start")
		}
		return s.Addr().String()
	}
	const secret = "gr8-secret"
	for name, tt := range map[string]struct {
		opts natsserver.Options
		user string
	}{
		"password": {natsserver.Options{Username: "cbsd", Password: secret}, "cbsd"},
		"token":    {natsserver.Options{Authorization: secret}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "password")
			write := func(text string) {
				if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			cfg := bus.Config{URI: server(tt.opts), User: tt.user, PasswordFile: file}
			try := func() error {
				d, err := openWithFile("nats", cfg)
				if err != nil {
					return err
				}
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
				defer cancel()
				c, err := d.Dial(ctx)
				if err == nil {
					c.Close()
				}
				return err
			}
			write("wrong\n")
			if err := try(); err == nil || strings.Contains(err.Error(), "wrong\n") {
				t.Errorf("with another password: %v", err)
			}
			d, err := openWithFile("nats", cfg)
			if err != nil {
				t.Fatal(err)
			}
			write(secret + "\n")
			c, err := d.Dial(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			c.Close()
		})
	}
}

func TestPasswordFileRefuses(t *testing.T) {
	dir := t.TempDir()
	for name, tt := range map[string]struct {
		text string
		mode os.FileMode
		want string
	}{
		"read by everybody":    {"gr8-secret\n", 0o604, "everybody can read or write it (mode 0604)"},
		"written by everybody": {"gr8-secret\n", 0o602, "everybody can read or write it (mode 0602)"},
		"empty":                {"\n", 0o600, "is empty"},
		"two lines":            {"user\ngr8-secret\n", 0o600, "more than one line"},
		"long":                 {strings.Repeat("gr8-secret", 500), 0o600, "longer than 4096 bytes"},
		"missing":              {"", 0, "no such file"},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(dir, strings.ReplaceAll(name, " ", "-"))
			if tt.mode != 0 {
				if err := os.WriteFile(file, []byte(tt.text), tt.mode); err != nil {
					t.Fatal(err)
				}
				if err := os.Chmod(file, tt.mode); err != nil {
					t.Fatal(err)
				}
			}
			_, err := readPassword(file)
			if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "gr8") || cbsdmq.CodeOf(err) != cbsdmq.CodeBadConfig {
				t.Errorf("%v", err)
			}
		})
	}
	file := filepath.Join(dir, "good")
	for _, text := range []string{" p w ", " p w \n", " p w \r\n"} {
		if err := os.WriteFile(file, []byte(text), 0o640); err != nil {
			t.Fatal(err)
		}
		if p, err := readPassword(file); err != nil || p != " p w " {
			t.Errorf("%q: %q, %v", text, p, err)
		}
	}
}
