// Package mutations breaks cbsdmq on purpose, one promise at a time, and looks
// whether the simulated bench notices: a mutation that survives is a hole in the
// bench.
//
//	go test ./e2e/mutations -v -all -timeout 1h  # the whole table
//	go test ./e2e/mutations -v -only lanes       # those with that in their name
//
// Without -all a few of them are tried, and of all the others only that their
// patches still fit.
package mutations
