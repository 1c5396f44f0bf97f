#!/bin/sh
# Put the names of the original programs where the originals are installed, as
# links to cbsdmq:
#   install-links.sh [prefix, default /usr/local]
# The agents go to PREFIX/sbin, where their rc scripts start them, the client
# goes to PREFIX/bin. A file that is already there is kept, and the exit status
# is 1; move it away first.
set -eu
prefix=${1:-/usr/local}
[ -x "$prefix/bin/cbsdmq" ] || { echo "install-links.sh: $prefix/bin/cbsdmq is not there" >&2; exit 1; }
mkdir -p "$prefix/sbin"
kept=0
for name in sbin/bs_router sbin/cbsd-mq-router bin/bs_router-client; do
	link=$prefix/$name
	if [ -e "$link" ] && [ ! -L "$link" ]; then
		echo "install-links.sh: $link is there and is not a link: left alone" >&2
		kept=1
		continue
	fi
	ln -sf ../bin/cbsdmq "$link"
	echo "$link -> ../bin/cbsdmq"
done
exit $kept
