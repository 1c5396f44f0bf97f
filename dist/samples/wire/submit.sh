#!/bin/sh
# submit.sh HOST PORT TUBE JOB: put a job on a pool's tube, print its last reply, end with its status
set -eu
cr=$(printf '\r') pipes=$(mktemp -d)
trap 'rm -r "$pipes"' EXIT
mkfifo "$pipes/to" "$pipes/from"
nc "$1" "$2" < "$pipes/to" > "$pipes/from" &
exec 3> "$pipes/to" 4< "$pipes/from"
printf 'use %s\r\nput 1 0 60 %d\r\n%s\r\n' "$3" "$(printf %s "$4" | wc -c)" "$4" >&3
read -r _ <&4 && read -r _ id <&4 # USING, INSERTED
printf 'watch %s_result_id%s\r\nreserve\r\n' "$3" "${id%"$cr"}" >&3
read -r _ <&4 && read -r _ job _ <&4 && read -r reply <&4 # WATCHING, RESERVED, the reply
printf 'delete %s\r\nquit\r\n' "$job" >&3
printf '%s\n' "${reply%"$cr"}"
exit "$(printf %s "$reply" | sed 's/.*"ErrCode":\([0-9]*\).*/\1/')"
