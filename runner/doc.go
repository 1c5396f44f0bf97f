// Package runner starts commands, keeps their output and exit status, and
// outlives the agent that asked for them.
//
// The runner is a process of its own (Serve) that knows no broker, no journal
// and no CBSD. Agents talk to it over a unix socket (Dial, Ensure): they send a
// Start for each command and get Events back. When the agent is killed or
// replaced the commands go on; the next agent asks for the runs of its pool
// (Client.List) and takes them over.
//
// # What holds
//
// A Start runs at most once. It carries the pool and a number, (epoch, n), that
// must be higher than every number accepted for that pool before; the highest
// is on record before the fork and stays there when the runner restarts. So a
// Start that is sent twice, or again after the pool's journal went back in
// time, is refused.
//
// Every event is in the runner's log before it is sent. When a runner is
// killed, the next one on the same directory reads the log: a command that
// still lives is an Orphan (nobody can wait for it, so its exit status is lost;
// its output is not), one that does not is Lost.
//
// The log is not synced: it has to survive processes, not power. After a reboot
// every run that had not ended is Lost.
//
// # What a command gets
//
// A session of its own, /dev/null as standard input, two append-only files as
// output and error, no other descriptor, the environment of its Start and the
// variable CBSDMQ_JOB, umask 022, default signal dispositions, and the limits
// with which the runner itself was started.
package runner
