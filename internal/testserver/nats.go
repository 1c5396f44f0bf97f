package testserver

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// NATS starts a nats-server with JetStream. Further lines of its configuration,
// such as a tls or an authorization block, may follow. It skips the test where
// there is none.
func NATS(t testing.TB, config ...string) *Process {
	t.Helper()
	path := Require(t, "nats-server", "apt-get install nats-server (Debian), pkg install nats-server (FreeBSD)")
	dir := t.TempDir()
	addr := FreeAddr(t)
	host, port, _ := net.SplitHostPort(addr)
	var text strings.Builder
	fmt.Fprintf(&text, "host: %s\nport: %s\njetstream { store_dir: %q }\n", host, port, filepath.Join(dir, "js"))
	for _, line := range config {
		text.WriteString(line + "\n")
	}
	file := filepath.Join(dir, "nats.conf")
	if err := os.WriteFile(file, []byte(text.String()), 0o600); err != nil {
		t.Fatalf("configuring nats-server: %v", err)
	}
	return StartProcess(t, addr, path, "-c", file)
}
