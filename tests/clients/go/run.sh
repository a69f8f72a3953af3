#!/usr/bin/env bash
# Runs the smoke test; see ../README.md for its environment.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
exec ./smoke
