# Shared by the scripts here: sourced, never run. Sets $root and $tools, and moves to the root.
# shellcheck shell=bash

set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
tools=$root/.tools
cd "$root"

say() { printf '\033[1m==>\033[0m %s\n' "$*"; }

# Ends the script. The first line says what is wrong, the others what to do about it.
fail() {
  printf 'error: %s\n' "$1" >&2
  shift
  [ $# -eq 0 ] || printf '       %s\n' "$@" >&2
  exit 1
}

have() { command -v "$1" >/dev/null 2>&1; }

# stamp_is NAME FILE..: whether stage NAME was last finished with exactly these files.
stamp_is() {
  local name=$1
  shift
  [ "$(cat "$tools/$name.stamp" 2>/dev/null)" = "$(digest "$@")" ]
}

# stamp NAME FILE..: notes that stage NAME finished with these files.
stamp() {
  local name=$1
  shift
  mkdir -p "$tools"
  digest "$@" >"$tools/$name.stamp"
}

digest() { cat "$@" | cksum; }
