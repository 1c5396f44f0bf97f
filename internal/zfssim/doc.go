// Package zfssim is a stand-in for zfs(8) for machines without ZFS: the
// subcommands that we use, with their options, output and errors as the manual
// has them.
//
// A dataset is a directory, a volume a file; mounting a file system moves its
// directory to its mountpoint, so what is not mounted is not there to be seen. A
// stream holds a snapshot whole, also where it is an increment. Quotas,
// encryption, holds and bookmarks are not simulated.
package zfssim
