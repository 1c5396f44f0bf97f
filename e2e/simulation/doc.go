// Package simulation runs agent, journal, client and bus together in virtual
// time, breaks what they stand on as a seed says, and has e2e/judge look at
// what came of it.
//
// Real are agent.Server, the journal with its SQLite file, client.Client, bus.Bus
// and its driver for a broker in memory. Simulated are the runner with the
// commands that it starts, CBSD, and the death of processes: see life, machine
// and disk. One schedule takes about a fiftieth of a second and covers minutes.
//
//	go test ./e2e/simulation                        # a few hundred seeds, always the same
//	go test ./e2e/simulation -run Random -for 60s   # new ones, as long as that
//	go test ./e2e/simulation -run Seed -seed 4711 -v # one, with all that happens in it
//
// What a seed decides is decided by it alone: what is to be done, when, and what
// goes wrong. In which order goroutines of one moment run is for Go to decide, and
// where two runs of a seed part. Command replay runs a seed so that they do not.
package simulation
