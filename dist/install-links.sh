#!/bin/sh
# Put the names of the original programs beside cbsdmq, as links to it:
#   install-links.sh [directory of cbsdmq, default /usr/local/bin]
# A file that is already there is kept; move it away first.
set -eu
dir=${1:-/usr/local/bin}
[ -x "$dir/cbsdmq" ] || { echo "install-links.sh: $dir/cbsdmq is not there" >&2; exit 1; }
for name in bs_router cbsd-mq-router bs_router-client; do
	if [ -e "$dir/$name" ] && [ ! -L "$dir/$name" ]; then
		echo "install-links.sh: $dir/$name is there and is not a link: left alone" >&2
		continue
	fi
	ln -sf cbsdmq "$dir/$name"
	echo "$dir/$name -> cbsdmq"
done
