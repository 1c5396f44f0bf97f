// Package journal is the memory of a pool's agent: what was accepted, begun
// and finished, and which replies are owed. It lies in the pool and moves with
// it.
//
// There is one writer. It puts many changes into one Batch and one Commit,
// which returns when they are on stable storage; readers use connections of
// their own and never wait for it. The file is SQLite, so that a person can
// look into it with sqlite3.
//
// In the pool's directory, all readable by the agent's user only:
//
//	journal.sqlite          everything; with -wal and -shm beside it while it is open
//	journal.sqlite.lock     locked by the agent that serves the pool; says who that is
//	journal.sqlite.reserve  room for the ends of running commands on a full disk
//	journal.sqlite.v1       what it was before Open changed its schema; for who goes back to the older cbsdmq
//	output/17.out           stdout of the job with Seq 17, where it is longer than InlineOutput
//
// In the state directory of the host, outside every pool:
//
//	hostid                  a random name for this host
//	pool-ID.json            how far this host has seen the journal of a pool go
//
// What survives what:
//
//	the agent is killed     every Commit that returned; of one that did not, all or nothing
//	power is lost           the same, where the disk does not lie about a sync
//	the disk is full        ends of running commands are still written, see Commit
//	the pool is rolled back what it had; this host notices and holds queued jobs, see Past
//	the pool is moved       everything; what was queued is held
//	the file is damaged     Open says so; nothing is mended without a person
//
// In the file, see schema.go:
//
//	meta       whose journal it is, and its counters
//	job        one row for each job, from acceptance to end
//	address    where its replies go, and whether they were sent
//	alias      further ids of a job that was submitted again under its key
//	tombstone  ids of jobs that were cancelled before they came
//	broker     which incarnation of each broker the addresses of today are of
//	pause      what a person paused: the pool or a guest; why, who, since when
//	verdict    what a person found out about a job that ended unknown; the job keeps its own end beside it
//	act        what people did beside submitting jobs
//
// A newer cbsdmq changes the schema of an older one when it opens the journal,
// after making a copy; an older one refuses a newer schema.
//
// A job leaves its output and its arguments behind when Limits say so, and is
// forgotten when its id can no longer come again.
package journal
