// Package agent serves pools: it takes jobs from a pool's tube, writes them
// into the pool's journal, runs them through the runner, one at a time per
// guest, and answers.
//
// A Server is one pool. All decisions are taken by one goroutine, its loop,
// which owns everything that is known of the jobs in memory and is the only
// writer of the journal: it takes all that has happened since it last looked,
// writes it with one commit, and then lets the effects of it out (begin
// commands, acknowledge, reply). What may take time (reading CBSD's state,
// talking to brokers, copying output) is done by other goroutines, which post
// what they found to the loop.
//
// Where to find what:
//
//	server.go    what a Server is made of, its start and end
//	loop.go      the loop and the commit
//	lanes.go     which job waits for which
//	intake.go    tube -> journal
//	proof.go     who signed a job or a request
//	begin.go     journal -> runner
//	runs.go      the connection to the runner; what it says after a restart
//	live.go      the output of what runs; whether a lost command still does
//	finish.go    exit status and output -> result
//	outbox.go    result -> mailbox
//	idspace.go   brokers that give their numbers again
//	stream.go    output while it comes
//	progress.go  how far commands are
//	control.go   the control lane
//	rights.go    which requests a key may make
//	jobs.go      what is told of jobs
//	guests.go    the inventory and what goes on with it
//	people.go    pauses, verdicts, and what people did
//	why.go       what jobs wait for
//	keep.go      time limits, retention, unread replies
//	boot.go      what is started after a boot of the host
//	carrier.go   the guest that carries the broker
//	handback.go  jobs back to the tube, for an original agent
//	poison.go    jobs that crash the agent
//	secrets.go   what is neither kept nor shown
package agent
