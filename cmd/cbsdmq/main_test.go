package main

import (
	"os"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/cbsd/cbsdmq/cbsd/cbsdsim"
)

// TestMain makes the test binary the program under each of its names.
func TestMain(m *testing.M) {
	if cbsdsim.Called(os.Args[0], os.Environ()) {
		main()
	}
	if len(os.Args) > 1 && os.Args[1] == "tool" { // started by a runner, under the path of this binary
		main()
	}
	testscript.Main(m, map[string]func(){
		"cbsdmq":           main,
		"cbsd":             main,
		"initenv":          main,
		"bs_router":        main,
		"cbsd-mq-router":   main,
		"bs_router-client": main,
		"pkg":              pkgMain,
	})
}
