#!/bin/sh
# Make the jail of a pool's broker, or complete it, start it, and see it answer:
#
#   broker-jail.sh NAME IP [beanstalkd|cbsdmq]
#
# beanstalkd is installed as a package, with a binlog; cbsdmq is this host's own
# program as the embedded broker (NATS). It listens at IP only, which may be an
# IPv6 address, so a jail needs no 127.0.0.1; it is started at boot. What is there
# already is left as it is: run it as often as you like.
#
# From the environment: workdir, the CBSD environment of the jail (cbsd_workdir of
# rc.conf); VNET=1 for a network stack of its own; PORT (11300, or 4222).
set -eu

fail() {
	echo "broker-jail.sh: $*" >&2
	exit 1
}

if [ $# -lt 2 ] || [ $# -gt 3 ]; then
	sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2
	exit 2
fi
name=$1 ip=$2 kind=${3:-beanstalkd}
case $name in
[a-z]*) ;;
*) fail "$name: the name of a jail begins with a letter" ;;
esac
case $kind in
beanstalkd) port=${PORT:-11300} ;;
cbsdmq) port=${PORT:-4222} ;;
*) fail "$kind is neither beanstalkd nor cbsdmq" ;;
esac
addr=${ip%%/*}
case $addr in
*:*) at="[$addr]:$port" ;;
*) at=$addr:$port ;;
esac
workdir=${workdir:-$(sysrc -n cbsd_workdir 2>/dev/null || true)}
[ -r "$workdir/nc.inventory" ] || fail "no CBSD in '$workdir': set workdir"
export workdir NOINTER=1 NOCOLOR=1

exists() { cbsd jls header=0 display=jname | awk '{print $1}' | grep -qx "$name"; }
running() { jls -j "$name" jid > /dev/null 2>&1; }
setting() { cbsd jget jname="$name" mode=quiet "$1" | head -n 1; }

# The jail. What cbsd says with its exit status is not believed.
if ! exists; then
	cbsd jcreate jname="$name" host_hostname="$name.my.domain" ip4_addr="$ip" vnet="${VNET:-0}" ver=native astart=1 runasap=0
	exists || fail "cbsd has not made jail $name"
fi
has=$(setting ip4_addr)
[ "$has" = "$ip" ] || fail "jail $name has the address $has, not $ip: cbsd jset jname=$name ip4_addr=$ip"
[ "$(setting astart)" = 1 ] || cbsd jset jname="$name" astart=1
running || cbsd jstart jname="$name"
running || fail "jail $name does not run: cbsd jstart jname=$name"
root=$(jls -j "$name" path)
case $root in
/?*) ;;
*) fail "jail $name has the root '$root': that is this host" ;;
esac

# The broker in it. What is written is written by commands in the jail: from here, a
# link in it would lead to a file of this host. changed: it has to be started anew.
changed=''
rc() {
	[ "$(sysrc -R "$root" -n "$1" 2>/dev/null || true)" = "$2" ] && return
	sysrc -R "$root" "$1=$2"
	changed=yes
}
copy() { # FILE MODE: from this host, where it differs
	cmp -s "$1" "$root$1" && return
	# shellcheck disable=SC2016,SC2094 # $1 is that of the jail
	jexec "$name" sh -c 'mkdir -p "${1%/*}" && cat > "$1.new" && chmod "$2" "$1.new" && mv "$1.new" "$1"' sh "$1" "$2" < "$1"
	changed=yes
}
if [ "$kind" = beanstalkd ]; then
	service=beanstalkd
	# -c and not -j: with the network of this host, which the jail may not have.
	pkg -c "$root" info -e beanstalkd || pkg -c "$root" install -y beanstalkd
	jexec "$name" mkdir -p /var/db/beanstalkd
	jexec "$name" chown 65534:65534 /var/db/beanstalkd
	rc beanstalkd_user nobody
	rc beanstalkd_flags "-l $addr -p $port -b /var/db/beanstalkd -f 50"
else
	service=cbsdmq_broker
	copy /usr/local/bin/cbsdmq 755
	copy /usr/local/etc/rc.d/cbsdmq_broker 555
	rc cbsdmq_broker_listen "$at"
fi
rc "${service}_enable" YES
if [ -n "$changed" ]; then
	jexec "$name" service "$service" restart
else
	jexec "$name" service "$service" status > /dev/null 2>&1 || jexec "$name" service "$service" start
fi

# Does it answer?
answers() {
	if [ "$kind" = beanstalkd ]; then
		printf 'stats\r\nquit\r\n' | nc -w 2 "$addr" "$port" | grep -q '^OK'
	else
		nc -w 2 "$addr" "$port" < /dev/null | grep -q '^INFO'
	fi
}
tries=${TRIES:-30}
until answers 2>/dev/null; do
	tries=$((tries - 1))
	[ $tries -gt 0 ] || fail "nothing answers at $at: jexec $name service $service status; a route to $addr, a firewall?"
	sleep 1
done
echo "$kind answers at $at. In the files of the pools:"
if [ "$kind" = beanstalkd ]; then
	printf '  "broker": "beanstalkd", "beanstalkd": { "uri": "%s" }\n' "$at"
else
	printf '  "broker": "nats", "nats": { "uri": "embedded", "embedded_dir": "%s", "embedded_listen": "%s" }\n' \
		"$workdir/jails-data/$name-data/var/db/cbsdmq/nats" "$at"
fi
