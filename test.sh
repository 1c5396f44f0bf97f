#!/bin/sh
# Run the tests: fetches the brokers' own servers where they are missing, into
# .cache, and installs and starts nothing on the system. Arguments go to go test.
set -eu
cd "$(dirname "$0")"

servers=$PWD/.cache/servers
PATH=$PATH:/usr/sbin:$servers/usr/bin:$servers/usr/sbin
export PATH

# unpack PACKAGE...: Debian's packages, below .cache
unpack() {
	mkdir -p "$servers"
	(
		cd "$servers"
		apt-get -qq download "$@" 2>/dev/null || {
			if [ "$(id -u)" = 0 ]; then apt-get -qq update; else sudo -n apt-get -qq update; fi
			apt-get -qq download "$@" 2>/dev/null
		}
		for deb in *.deb; do
			dpkg -x "$deb" .
			rm "$deb"
		done
	)
}

# fetch WHAT FILE FREEBSD-PACKAGE DEBIAN-PACKAGE...: unless FILE is there
fetch() {
	what=$1 file=$2 freebsd=$3
	shift 3
	[ -e "$file" ] && return
	if ! command -v apt-get >/dev/null; then
		echo "test.sh: $what is not installed: its tests are skipped (FreeBSD: pkg install $freebsd)" >&2
	elif ! unpack "$@"; then
		echo "test.sh: cannot get $what: its tests are skipped" >&2
	fi
}

# found PROGRAM: where it is, or a name of no file
found() { command -v "$1" || echo "no $1"; }

fetch beanstalkd "$(found beanstalkd)" beanstalkd beanstalkd
fetch nats-server "$(found nats-server)" nats-server nats-server

if [ -z "$(ls /usr/lib/rabbitmq/lib/*/sbin/rabbitmq-server /usr/local/lib/erlang/lib/rabbitmq_server-*/sbin/rabbitmq-server 2>/dev/null)" ]; then
	fetch rabbitmq-server "$servers/usr/lib/rabbitmq" rabbitmq rabbitmq-server erlang-base erlang-asn1 erlang-crypto erlang-eldap \
		erlang-ftp erlang-inets erlang-mnesia erlang-os-mon erlang-parsetools erlang-public-key erlang-runtime-tools erlang-snmp \
		erlang-ssl erlang-syntax-tools erlang-tftp erlang-tools erlang-xmerl
	sed -i "s|ROOTDIR=/.*|ROOTDIR=$servers/usr/lib/erlang|" "$servers"/usr/lib/erlang/bin/erl "$servers"/usr/lib/erlang/erts-*/bin/erl # not where it was built for
	RABBITMQ_SERVER=$(echo "$servers"/usr/lib/rabbitmq/lib/*/sbin/rabbitmq-server)
	export RABBITMQ_SERVER
fi

# libzmq with its Python binding, for the client in testdata
if ! /usr/bin/python3 -c 'import zmq' 2>/dev/null; then
	fetch python3-zmq "$servers/usr/lib/python3/dist-packages/zmq" py311-pyzmq libsodium23 libnorm1 libpgm-5.3-0 libzmq5 python3-zmq
fi

# maven NAME ARTIFACT...: a server that is written in Java
maven() {
	name=$1
	shift
	if ! command -v mvn >/dev/null; then
		echo "test.sh: no mvn, so no $name: its tests are skipped (Debian: apt-get install maven openjdk-17-jdk-headless, FreeBSD: pkg install maven openjdk17)" >&2
	elif ! internal/testserver/maven.sh "$servers/$name" "$@"; then
		echo "test.sh: cannot get $name: its tests are skipped" >&2
	fi
}
activemq=6.3.1 artemis=2.40.0
maven activemq org.apache.activemq:activemq-broker:$activemq org.apache.activemq:activemq-kahadb-store:$activemq \
	org.apache.activemq:activemq-amqp:$activemq org.apache.activemq:activemq-jaas:$activemq org.apache.activemq:activemq-spring:$activemq \
	org.apache.activemq:activemq-console:$activemq org.springframework:spring-context:6.2.12 org.slf4j:slf4j-simple:2.0.18
maven artemis org.apache.activemq:artemis-server:$artemis org.apache.activemq:artemis-amqp-protocol:$artemis org.slf4j:slf4j-simple:2.0.17
maven kafka org.apache.kafka:kafka_2.13:4.4.0 org.apache.logging.log4j:log4j-slf4j-impl:2.25.5

CGO_ENABLED=${CGO_ENABLED:-0} go test "$@" ./...
