#!/usr/bin/env bash
# Generates the client into gen/ with the plugins go.mod pins, and compiles the smoke test.

source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

stamp=gen/.stamp
inputs=(go.mod go.sum buf.gen.yaml main.go)
if done_before "$stamp" "${inputs[@]}" && [ -x smoke ]; then exit 0; fi

buf=$(find_buf)
rm -rf gen
"$buf" generate --template buf.gen.yaml "$root"
# -mod=readonly: whatever is not in go.mod and go.sum is an error, not a download.
go vet -mod=readonly ./...
go build -mod=readonly -buildvcs=false -o smoke .
done_now "$stamp" "${inputs[@]}"
