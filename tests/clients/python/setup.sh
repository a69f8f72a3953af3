#!/usr/bin/env bash
# Installs the pinned packages into .venv and generates the client into gen/.

source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

stamp=gen/.stamp
inputs=(requirements.txt)
if done_before "$stamp" "${inputs[@]}" && [ -x .venv/bin/python ]; then exit 0; fi

rm -rf .venv gen
mkdir gen
python3 -m venv .venv
.venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps \
  --requirement requirements.txt
.venv/bin/python -m grpc_tools.protoc --proto_path="$root/proto" --python_out=gen --pyi_out=gen --grpc_python_out=gen \
  "$root"/proto/roomcast/v1/*.proto "$root"/proto/roomcast/backend/v1/*.proto "$root"/proto/roomcast/client/v1/*.proto
done_now "$stamp" "${inputs[@]}"
