#!/usr/bin/env bash
# A small disk of one's own, for a program that shall find it full. It is a tmpfs in a mount namespace: nobody else sees it,
# and it is gone with the last process in the namespace. Needs root, or user namespaces.
#
#   disk.sh available             whether this machine allows it; says why not
#   disk.sh hold FOLDER SIZE      mounts a disk of SIZE bytes over FOLDER, says so, and holds it until its stdin is closed
#   disk.sh exec PID CMD..        runs a program where the holder PID is
#   disk.sh fill PID FOLDER       fills the disk up, with a file called ballast
#   disk.sh relieve PID FOLDER    removes that file

set -euo pipefail

root=$([ "$(id -u)" -eq 0 ] && echo yes || echo no)

apart() {
  if [ "$root" = yes ]; then exec unshare --mount "$@"; else exec unshare --user --map-root-user --mount "$@"; fi
}

hold() {
  # shellcheck disable=SC2016 # for the inner shell
  apart bash -c 'mount -t tmpfs -o "size=$2" disk "$1" && echo ready && exec cat >/dev/null' bash "$1" "$2"
}

# Called exec on the command line. It replaces this process, so that signals reach the program.
enter() {
  local holder=$1
  shift
  if [ "$root" = yes ]; then
    exec nsenter --target "$holder" --mount -- "$@"
  else
    exec nsenter --target "$holder" --user --preserve-credentials --mount -- "$@"
  fi
}

fill() {
  # It ends with an error: that the disk is full is what is wanted.
  (enter "$1" dd if=/dev/zero of="$2/ballast" bs=4k oflag=append conv=notrunc 2>/dev/null) || true
}

relieve() { enter "$1" rm "$2/ballast"; }

available() {
  local tool folder
  for tool in unshare nsenter mount; do
    command -v "$tool" >/dev/null || { echo "$tool is missing (Debian: util-linux, mount)" >&2; exit 1; }
  done
  folder=$(mktemp -d)
  # shellcheck disable=SC2064 # the folder of now
  trap "rmdir '$folder'" EXIT
  (hold "$folder" 1048576) </dev/null >/dev/null
}

case ${1:-} in
  available | hold | fill | relieve) "$@" ;;
  exec) shift && enter "$@" ;;
  *) sed -n '2,9s/^# \{0,1\}//p' "$0" >&2 && exit 1 ;;
esac
