// Package calm makes the Go runtime's monitor cost less.
//
// The monitor (sysmon in runtime/proc.go) is a thread that sleeps for 20 µs at a
// time, on Linux 70 with the kernel's slack, as long as there is work: it looks
// for goroutines that stay in a system call. On a virtual machine each time that a
// thread wakes up may take 10 µs of a processor, and in a process that forks, or
// syncs, all day, the monitor takes a fifth of all that the process takes.
package calm
