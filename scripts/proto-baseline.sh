#!/usr/bin/env bash
# Accepts the contract as it is now: `buf breaking` compares every later change with this.
# To be run with a release, or for a break that was meant, which then stands in CHANGELOG.md.

source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

buf=$tools/venv/bin/buf
[ -x "$buf" ] || fail "buf is not installed" "Run: make setup"
"$buf" lint
# Without source info: comments may change freely, and the file stays small.
"$buf" build --exclude-source-info --output proto/baseline.binpb
say "proto/baseline.binpb renewed"
