package cbsd

const zfsCommand = "/sbin/zfs"
