package testserver

import (
	"os"
	"path/filepath"
	"testing"
)

// javaServer returns the root of the repository, and the class path of a server
// whose jars test.sh has fetched into .cache/servers/name.
func javaServer(t testing.TB, name, jar string) (root, classpath string) {
	t.Helper()
	root, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for root != filepath.Dir(root) {
		if _, err := os.Stat(filepath.Join(root, "go.mod")); err == nil {
			break
		}
		root = filepath.Dir(root)
	}
	dir := filepath.Join(root, ".cache", "servers", name)
	if found, _ := filepath.Glob(filepath.Join(dir, jar)); len(found) == 0 {
		Require(t, jar+" of "+name+" in .cache/servers", "./test.sh, which needs Maven")
	}
	return root, filepath.Join(dir, "*")
}

// java returns the path of Java, and its arguments for a small machine and a
// server that works in dir.
func java(t testing.TB, dir, classpath string, args ...string) (string, []string) {
	t.Helper()
	path := Require(t, "java", "apt-get install openjdk-17-jdk-headless (Debian), pkg install openjdk17 (FreeBSD)")
	small := []string{"-Xms64m", "-Xmx256m", "-XX:+UseSerialGC", "-Djava.io.tmpdir=" + dir, "-cp", classpath}
	if s, ok := t.(*Stage); !ok || !s.Long {
		small = append(small, "-XX:TieredStopAtLevel=1") // compiled soon, not well
	}
	return path, append(small, args...)
}
