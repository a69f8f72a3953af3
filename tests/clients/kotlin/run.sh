#!/usr/bin/env bash
# Runs the smoke test; see ../README.md for its environment.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
exec java -cp 'target/classes:target/lib/*' dev.roomcast.smoke.SmokeKt
