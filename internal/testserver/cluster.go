package testserver

import (
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// clusterSize is how many servers a cluster of NATS has here.
const clusterSize = 3

// NATSCluster starts three nats-servers that form a cluster. Further lines of
// their configuration may follow.
func NATSCluster(t testing.TB, config ...string) []*Process {
	t.Helper()
	path := Require(t, "nats-server", "apt-get install nats-server (Debian), pkg install nats-server (FreeBSD)")
	return cluster(t, func(dir, name, addr, routeAt string, routes []string) (string, []string) {
		host, port, _ := net.SplitHostPort(addr)
		var text strings.Builder
		fmt.Fprintf(&text, "server_name: %s\nhost: %s\nport: %s\njetstream { store_dir: %q }\n", name, host, port, dir)
		fmt.Fprintf(&text, "cluster { name: test, listen: %q, routes: [ %s ] }\n", routeAt, "nats://"+strings.Join(routes, ", nats://"))
		for _, line := range config {
			text.WriteString(line + "\n")
		}
		return path, []string{"-c", writeConfig(t, dir+".conf", []byte(text.String()))}
	})
}

// CbsdmqCluster starts three servers `cbsdmq broker --config` that form a
// cluster. Further keys of their configuration may be given, also in "cluster".
func CbsdmqCluster(t testing.TB, cbsdmq string, keys map[string]any) []*Process {
	t.Helper()
	return cluster(t, func(dir, name, addr, routeAt string, routes []string) (string, []string) {
		file, between := maps.Clone(keys), map[string]any{"listen": routeAt, "routes": routes}
		if file == nil {
			file = map[string]any{}
		}
		if more, ok := file["cluster"].(map[string]any); ok {
			maps.Copy(between, more)
		}
		file["name"], file["listen"], file["dir"], file["cluster"] = name, addr, dir, between
		text, err := json.Marshal(file)
		if err != nil {
			t.Fatal(err)
		}
		return cbsdmq, []string{"broker", "--config", writeConfig(t, dir+".json", text)}
	})
}

func writeConfig(t testing.TB, file string, text []byte) string {
	t.Helper()
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatalf("configuring a server: %v", err)
	}
	return file
}

// cluster starts three servers with the program and arguments that each is given
// by command.
func cluster(t testing.TB, command func(dir, name, addr, routeAt string, routes []string) (string, []string)) []*Process {
	t.Helper()
	root := t.TempDir()
	routes := make([]string, clusterSize)
	for i := range routes {
		routes[i] = FreeAddr(t)
	}
	servers := make([]*Process, clusterSize)
	for i := range servers {
		name := fmt.Sprintf("server%d", i+1)
		addr := FreeAddr(t)
		dir := filepath.Join(root, name)
		path, args := command(dir, name, addr, routes[i], routes)
		servers[i] = StartProcess(t, addr, path, args...)
		servers[i].Dir = dir
	}
	return servers
}
