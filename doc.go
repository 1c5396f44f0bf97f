// Package cbsdmq is the vocabulary of a control plane for hosts that run CBSD
// (FreeBSD jails, bhyve and QEMU guests): the job that a client puts on a
// pool's queue, the replies that come back, the requests of the control lane,
// and their JSON.
//
// The package imports the standard library only and does no I/O. The rooms
// built on it are bus (brokers), journal, runner, cbsd, agent and client; see
// docs/ARCHITECTURE.md. docs/WIRE.md describes every message.
package cbsdmq
