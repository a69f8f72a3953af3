# Shared by the setup.sh of each client: sourced, never run. Moves to the client's folder and sets $root.
# shellcheck shell=bash

set -euo pipefail

cd "$(dirname "${BASH_SOURCE[1]}")"
root=$(cd ../../.. && pwd)

fail() {
  printf 'error: %s\n' "$1" >&2
  shift
  printf '       %s\n' "$@" >&2
  exit 1
}

# Prints the buf to use: $BUF, the one scripts/setup.sh installed, or one on the PATH.
find_buf() {
  local candidate
  for candidate in "${BUF:-}" "$root/.tools/venv/bin/buf" buf; do
    if [ -n "$candidate" ] && command -v "$candidate"; then return; fi
  done
  fail "buf was not found" "scripts/setup.sh python installs it, or BUF=/path/to/buf names one."
}

# done_before STAMP FILE..: whether the setup that left this stamp ended well with exactly these files and contract.
done_before() {
  local stamp=$1
  shift
  [ "$(cat "$stamp" 2>/dev/null)" = "$(digest "$@")" ]
}

# done_now STAMP FILE..: notes that this setup ended well.
done_now() {
  local stamp=$1
  shift
  digest "$@" >"$stamp"
}

digest() {
  local contract
  mapfile -d '' -t contract < <(find "$root/proto/roomcast" -type f -print0 | sort -z)
  cat "${contract[@]}" setup.sh "$@" | cksum
}
