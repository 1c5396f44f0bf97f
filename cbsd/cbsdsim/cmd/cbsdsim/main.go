// Command cbsdsim is a simulated cbsd; see package cbsdsim.
package main

import (
	"os"

	"github.com/cbsd/cbsdmq/cbsd/cbsdsim"
)

func main() {
	os.Exit(cbsdsim.Main(os.Args[1:], os.Environ(), os.Stdout, os.Stderr))
}
