#!/bin/sh
# Run the tests: fetches the brokers' own servers where they are missing, into
# .cache, and installs and starts nothing on the system. Arguments go to go test.
set -eu
cd "$(dirname "$0")"

servers=$PWD/.cache/servers
PATH=$PATH:/usr/sbin:$servers/usr/bin:$servers/usr/sbin
export PATH

fetch() {
	command -v "$1" >/dev/null && return
	if ! command -v apt-get >/dev/null; then
		echo "test.sh: $1 is not installed: its tests are skipped (FreeBSD: pkg install $2)" >&2
		return
	fi
	mkdir -p "$servers"
	(
		cd "$servers"
		apt-get -qq download "$1" 2>/dev/null || {
			if [ "$(id -u)" = 0 ]; then apt-get -qq update; else sudo -n apt-get -qq update; fi
			apt-get -qq download "$1"
		}
		dpkg -x "$1"_*.deb .
		rm "$1"_*.deb
	) || echo "test.sh: cannot get $1: its tests are skipped" >&2
}
fetch beanstalkd beanstalkd
fetch nats-server nats-server

CGO_ENABLED=${CGO_ENABLED:-0} go test "$@" ./...
