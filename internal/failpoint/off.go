//go:build !failpoint

package failpoint

// Hit marks the point name.
func Hit(name string) {}
