#!/bin/sh
# Runs a server for a test, which holds the other end of stdin and writes the signals that the server shall get.
# When that end closes, because the test is done or because its program died, the server is killed.
#
#   guard.sh FOLDER PROGRAM ARGUMENT..
#
# Prints the server's process id, and each signal after it was sent. What the server prints is added to FOLDER/output. FOLDER
# is removed if the test could not see to it.

folder=$1
shift
# A job in the background has no stdin: kept under another number.
exec 3<&0
# Some shells say it of each child that was killed.
exec 2>/dev/null

"$@" </dev/null >>"$folder/output" 2>&1 3<&- &
server=$!
echo "$server"

(
  while read -r signal <&3; do
    kill -s "$signal" "$server"
    echo "$signal"
  done
  trap '' TERM
  kill -s KILL "$server"
  exit 0
) &
watcher=$!
exec 3<&- </dev/null

wait "$server"
status=$?
# It ends on its own only after stdin was closed without a word.
kill -s TERM "$watcher"
wait "$watcher" && rm -rf "$folder"
exit "$status"
