// Command cbsdmq runs CBSD commands over a bus: as client, agent, runner and
// broker. Called by the name of an original program it is that program.
package main

import (
	"io"
	"os"
	"path/filepath"

	"github.com/cbsd/cbsdmq/cbsd/cbsdsim"
)

func main() { os.Exit(run(os.Args, os.Stdout, os.Stderr)) }

// run is the whole program; argv[0] is the name that it was called by.
func run(argv []string, stdout, stderr io.Writer) int {
	if cbsdsim.Called(argv[0], os.Environ()) {
		return cbsdsim.Main(argv[1:], os.Environ(), stdout, stderr)
	}
	if len(argv) == 3 && argv[1] == janitorArg {
		return runJanitor(argv[2], os.Stdin, stderr)
	}
	g := &globals{stdout: stdout, stderr: stderr}
	if len(argv) > 1 && argv[1] == "runner" {
		return g.execute(argv[1:]) // as an agent under any name starts it, where that is a copy and not a link
	}
	switch name := filepath.Base(argv[0]); name {
	case "bs_router", "cbsd-mq-router":
		return g.originalAgent(name, argv[1:])
	case "bs_router-client":
		return g.originalClient(name, argv[1:])
	}
	return g.execute(argv[1:])
}
