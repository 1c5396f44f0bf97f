package testserver

import (
	"net"
	"testing"
)

// Beanstalkd starts a beanstalkd with a binlog that is synced before each
// answer, and further arguments. It skips the test where there is none.
func Beanstalkd(t testing.TB, args ...string) *Process {
	t.Helper()
	return startBeanstalkd(t, append([]string{"-b", t.TempDir(), "-f", "0"}, args...)...)
}

// BeanstalkdWithoutBinlog starts one that forgets all when it ends.
func BeanstalkdWithoutBinlog(t testing.TB, args ...string) *Process {
	t.Helper()
	return startBeanstalkd(t, args...)
}

// RequireBeanstalkd is Require of beanstalkd.
func RequireBeanstalkd(t testing.TB) (path string) {
	t.Helper()
	return Require(t, "beanstalkd", "apt-get install beanstalkd (Debian), pkg install beanstalkd (FreeBSD)")
}

func startBeanstalkd(t testing.TB, args ...string) *Process {
	t.Helper()
	path := RequireBeanstalkd(t)
	addr := FreeAddr(t)
	host, port, _ := net.SplitHostPort(addr)
	return StartProcess(t, addr, path, append([]string{"-l", host, "-p", port}, args...)...)
}
