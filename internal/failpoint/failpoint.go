// Package failpoint kills the process at chosen points, so that tests can find
// out what a crash does there. It does so only in a binary built with the tag
// failpoint; in any other, Hit is nothing.
//
// The environment variable CBSDMQ_FAILPOINT holds NAME or NAME:N: the process
// is killed, as by kill -9, when the point NAME is reached for the Nth time.
// With NAME! it crashes there by itself, as from a mistake of ours.
package failpoint

// Variable is the environment variable that names the point.
const Variable = "CBSDMQ_FAILPOINT"

// The points, each at an arrow of the way of a job. Those of the runner begin
// with Runner.
const (
	Received  = "received"  // jobs were taken from the broker
	Accepted  = "accepted"  // they are in the journal, not acknowledged, not started
	Acked     = "acked"     // they are acknowledged
	Starting  = "starting"  // their begin is in the journal, the runner does not know of it
	Started   = "started"   // the runner has the start
	Looking   = "looking"   // the guest is looked at before a change
	Exited    = "exited"    // the agent knows that the command ended
	Judging   = "judging"   // the result is being made
	Finishing = "finishing" // the result was made, not written
	Finished  = "finished"  // the result is in the journal, not acknowledged to the runner, not replied
	Replied   = "replied"   // the reply is on the broker, not noted

	RunnerAccepted = "runner-accepted" // the start is on record, not forked
	RunnerForked   = "runner-forked"   // the command runs, that is not on record
	RunnerStarted  = "runner-started"  // that is on record, not told
	RunnerReaped   = "runner-reaped"   // the command was waited for, its end is not on record
	RunnerExited   = "runner-exited"   // its end is on record, not told
)

// Agent and Runner are the points of each process, in the order of a job's way.
var (
	Agent  = []string{Received, Accepted, Acked, Starting, Started, Exited, Finishing, Finished, Replied}
	Runner = []string{RunnerAccepted, RunnerForked, RunnerStarted, RunnerReaped, RunnerExited}
)
