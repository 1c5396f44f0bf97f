//go:build !freebsd

package cbsd

const zfsCommand = "zfs"
