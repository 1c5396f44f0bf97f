package testserver

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// rabbitHomes are where Debian's package and FreeBSD's have the server. What is
// in /usr/sbin is a wrapper that serves the system's own node.
var rabbitHomes = []string{"/usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin/rabbitmq-server", "/usr/local/lib/erlang/lib/rabbitmq_server-*/sbin/rabbitmq-server"}

// RabbitMQ starts a node of its own, with an epmd of its own. Further lines of
// rabbitmq.conf may follow. It skips the test where there is none.
func RabbitMQ(t testing.TB, config ...string) *Process {
	t.Helper()
	return rabbitNodes(t, 1, config)[0]
}

// RabbitMQCluster starts three nodes that are a cluster. It skips the test where
// there is none.
func RabbitMQCluster(t testing.TB) []*Process {
	t.Helper()
	return rabbitNodes(t, 3, nil)
}

// rabbitNodes starts n nodes that share an epmd. Where one is down the others
// wait for it: with two of three there is a majority.
func rabbitNodes(t testing.TB, n int, config []string) []*Process {
	t.Helper()
	path := rabbitServer(t)
	dir, epmd := t.TempDir(), FreeAddr(t)
	port := func(addr string) string { _, p, _ := net.SplitHostPort(addr); return p }
	addrs := make([]string, n)
	config = append(config, "vm_memory_high_watermark.relative = 0.1", "disk_free_limit.absolute = 50MB", "log.console.level = error")
	name := func(addr string) string { return "cbsdmq" + port(addr) + "@localhost" }
	for i := range addrs {
		addrs[i] = FreeAddr(t)
		config = append(config, fmt.Sprintf("cluster_formation.classic_config.nodes.%d = %s", i+1, name(addrs[i])))
	}
	if n > 1 {
		config = append(config, "cluster_formation.peer_discovery_backend = classic_config", "cluster_formation.randomized_startup_delay_range.max = 0", "cluster_partition_handling = pause_minority")
	}
	// The first node ends last, and epmd after it.
	t.Cleanup(func() { killListener(t, epmd) })
	nodes := make([]*Process, n)
	for i, addr := range addrs {
		own := filepath.Join(dir, strconv.Itoa(i))
		conf := filepath.Join(own, "rabbitmq.conf")
		if err := os.MkdirAll(own, 0o700); err != nil {
			t.Fatalf("configuring rabbitmq-server: %v", err)
		}
		for file, text := range map[string]string{
			conf:                                  strings.Join(append([]string{"listeners.tcp.default = " + addr}, config...), "\n") + "\n",
			filepath.Join(own, "enabled_plugins"): "[].\n",
		} {
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatalf("configuring rabbitmq-server: %v", err)
			}
		}
		nodes[i] = &Process{Addr: addr, path: path, patience: slowStart, env: append(os.Environ(),
			"HOME="+dir, "ERL_CRASH_DUMP="+filepath.Join(own, "erl_crash.dump"), "ERL_EPMD_ADDRESS=127.0.0.1", "ERL_EPMD_PORT="+port(epmd),
			"RABBITMQ_NODENAME="+name(addr), "RABBITMQ_DIST_PORT="+port(FreeAddr(t)),
			"RABBITMQ_MNESIA_BASE="+filepath.Join(own, "mnesia"), "RABBITMQ_LOG_BASE="+filepath.Join(own, "log"), "RABBITMQ_LOGS=-",
			"RABBITMQ_CONFIG_FILE="+conf, "RABBITMQ_ENABLED_PLUGINS_FILE="+filepath.Join(own, "enabled_plugins"),
			"RABBITMQ_PID_FILE="+filepath.Join(own, "pid"),
			`RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS=-kernel inet_dist_use_interface {127,0,0,1} +sbwt none +S 2:2`,
		)}
		nodes[i].startWith(t)
	}
	return nodes
}

func rabbitServer(t testing.TB) string {
	t.Helper()
	for _, pattern := range append([]string{os.Getenv("RABBITMQ_SERVER")}, rabbitHomes...) {
		if found, _ := filepath.Glob(pattern); len(found) > 0 {
			return found[len(found)-1]
		}
	}
	Require(t, "rabbitmq-server of a rabbitmq_server-*/sbin", "apt-get install rabbitmq-server (Debian), pkg install rabbitmq (FreeBSD)")
	return ""
}

// killListener ends the process that listens on addr: the epmd that a node
// started and left behind.
func killListener(t testing.TB, addr string) {
	t.Helper()
	pid, err := listener(addr)
	if err != nil {
		t.Logf("ending epmd: %v", err)
		return
	}
	if p, err := os.FindProcess(pid); err == nil {
		_ = p.Kill()
	}
}

// listener finds the process that listens on a TCP port of 127.0.0.1, by
// Linux's /proc.
func listener(addr string) (pid int, err error) {
	_, port, _ := net.SplitHostPort(addr)
	n, _ := strconv.Atoi(port)
	table, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		return 0, err
	}
	socket := ""
	for line := range strings.Lines(string(table)) {
		f := strings.Fields(line)
		if len(f) > 9 && f[3] == "0A" && strings.HasSuffix(f[1], fmt.Sprintf(":%04X", n)) {
			socket = "socket:[" + f[9] + "]"
		}
	}
	if socket == "" {
		return 0, fmt.Errorf("nothing listens on %s", addr)
	}
	links, _ := filepath.Glob("/proc/[0-9]*/fd/*")
	for _, l := range links {
		if to, err := os.Readlink(l); err == nil && to == socket {
			return strconv.Atoi(strings.Split(l, "/")[2])
		}
	}
	return 0, fmt.Errorf("the process that listens on %s is not ours to see", addr)
}

// RabbitMQQueues is how many queues a node of RabbitMQ has.
func RabbitMQQueues(t testing.TB, p *Process) (n int) {
	t.Helper()
	out := RabbitMQCtl(t, p, "eval", "length(rabbit_amqqueue:list()).")
	if _, err := fmt.Sscan(out, &n); err != nil {
		t.Fatalf("counting queues: %v: %s", err, out)
	}
	return n
}

// RabbitMQCtl is what rabbitmqctl says to a node's administrator.
func RabbitMQCtl(t testing.TB, p *Process, args ...string) string {
	t.Helper()
	cmd := exec.Command(filepath.Join(filepath.Dir(p.path), "rabbitmqctl"), append([]string{"--silent"}, args...)...)
	cmd.Env = p.env
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("rabbitmqctl %s: %v: %s", args[0], err, out)
	}
	return string(out)
}
