//go:build !linux

package calm

// Monitor does nothing: only Linux lets a thread's timers be less exact.
func Monitor() {}

// Exact runs f.
func Exact(f func()) { f() }
