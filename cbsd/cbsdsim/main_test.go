package cbsdsim

import (
	"os"
	"testing"
)

// The test binary is started again by itself, as a guest or as cbsd.
func TestMain(m *testing.M) {
	if Called(os.Args[0], os.Environ()) || os.Getenv("CBSDSIM_TEST_MAIN") != "" {
		os.Exit(Main(os.Args[1:], os.Environ(), os.Stdout, os.Stderr))
	}
	os.Exit(m.Run())
}
