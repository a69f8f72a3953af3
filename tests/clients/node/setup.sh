#!/usr/bin/env bash
# Installs the locked packages, generates the client into gen/, type-checks and compiles into dist/.

source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

stamp=gen/.stamp
inputs=(package.json package-lock.json tsconfig.json buf.gen.yaml smoke.ts)
if done_before "$stamp" "${inputs[@]}" && [ -d node_modules ] && [ -f dist/smoke.js ]; then exit 0; fi

buf=$(find_buf)
rm -rf gen dist
npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
"$buf" generate --template buf.gen.yaml "$root"
node_modules/.bin/tsc
done_now "$stamp" "${inputs[@]}"
