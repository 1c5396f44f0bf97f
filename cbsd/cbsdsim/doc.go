// Package cbsdsim is a simulated cbsd for machines without one.
//
// It keeps the files of a CBSD workdir (nc.inventory, the SQLite databases by
// the column names of the real ones, jails-data, jails-system, jails-rcconf),
// takes the commands of the real program, and answers with its output and exit
// status as recorded from CBSD 14.1.3a, quirks included: errors on standard
// output, status 0 for the removal of what does not exist, settings that are
// changed to nonsense, unknown arguments ignored in silence. The recordings are
// replayed against it by a test.
//
// Simulated are creating, starting, stopping, restarting, pausing, removing,
// listing, reading, changing, copying, renaming and moving jails, bhyve and QEMU
// guests, disks, snapshots (with zfs set), export and import, the task queue,
// media, migration to nodes that [Config] names, and the lists of the node;
// [Commands] names them. Any other command is not found. Events
// (cbsd_queue_backend), cbsdd (queued tasks stay pending), dialogs, consoles,
// colours and RACCT columns are not simulated.
//
// A running QEMU or bhyve guest is a real process, named like the real one, that
// listens on its VNC port on 127.0.0.1, answers with the RFB banner, stops on
// SIGTERM, and ends when its workdir disappears. Where the real system has
// /dev/vmm/GUEST and a jail in the kernel, the simulator has files: see
// [VMMDir] and [JailDir].
//
// [Config] tells a workdir's simulator to be slow, to fail, to lie, to print a
// lot, to evaluate its arguments as the real program does, and to keep a ground
// truth of what ran and when.
package cbsdsim
