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

# done_before FILE..: whether the last setup ended well with exactly these files and the same contract.
done_before() { [ "$(cat "$stamp" 2>/dev/null)" = "$(digest "$@")" ]; }

# done_now FILE..: notes that this setup ended well.
done_now() { digest "$@" >"$stamp"; }

digest() {
  find "$root/proto" ./*.sh -type f -print0 | sort -z | xargs -0 cat - "$@" </dev/null | cksum
}
