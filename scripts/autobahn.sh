#!/usr/bin/env bash
# Runs the Autobahn fuzzing client against a WebSocket echo server and fails on any failed case.
#
#   scripts/autobahn.sh URL [OUTDIR] [CASE..]
#
# URL answers every message with the same message. The report goes to OUTDIR (target/autobahn): index.json for
# programs, index.html for people. CASE.. ('6.*', '7.9.1') runs those only, whatever is left out otherwise.

source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

[ $# -ge 1 ] || fail "usage: scripts/autobahn.sh URL [OUTDIR] [CASE..]"
url=$1
out=${2:-target/autobahn}
shift $(($# > 1 ? 2 : 1))

wstest=$tools/autobahn/bin/wstest
[ -x "$wstest" ] || fail "the Autobahn test suite is not installed" "Run: make setup"

# Left out: permessage-deflate, which we do not speak (12, 13).
rm -rf "$out"
mkdir -p "$out"
python3 - "$url" "$out" "$@" >"$out/spec.json" <<'PY'
import json, sys

url, out, *only = sys.argv[1:]
json.dump({
    "outdir": out,
    "servers": [{"agent": "roomcast", "url": url}],
    "cases": only or ["*"],
    "exclude-cases": [] if only else ["12.*", "13.*"],
    "exclude-agent-cases": {},
}, sys.stdout)
PY

# The client has a deadline for each case; this one is for a client that hangs itself.
timeout 900 "$wstest" --mode fuzzingclient --spec "$out/spec.json" >"$out/wstest.log" 2>&1 ||
  { tail -n 20 "$out/wstest.log" >&2; fail "the fuzzing client ended early" "Its log: $out/wstest.log"; }

python3 - "$out" <<'PY'
import json, re, sys

out = sys.argv[1]
planned = re.search(r"Ok, will run (\d+) test cases", open(f"{out}/wstest.log").read())
try:
    cases = json.load(open(f"{out}/index.json"))["roomcast"]
except (OSError, KeyError):
    cases = {}

# NON-STRICT: allowed by RFC 6455, though a server could have told sooner. INFORMATIONAL: the RFC leaves it open.
accepted = {"OK", "NON-STRICT", "INFORMATIONAL"}
failed = {
    name: case for name, case in cases.items()
    if case["behavior"] not in accepted or case["behaviorClose"] not in {"OK", "INFORMATIONAL"}
}

def order(name):
    return [int(part) for part in name.split(".")]

lenient = sorted((name for name, case in cases.items() if case["behavior"] == "NON-STRICT"), key=order)
if lenient:
    print("non-strict:", " ".join(lenient))
for name in sorted(failed, key=order):
    case = failed[name]
    print(f"case {name}: {case['behavior']}, close {case['behaviorClose']} ({out}/{case['reportfile']})")
missing = (int(planned.group(1)) if planned else 1) - len(cases)
if missing > 0:
    print(f"{missing} cases did not run (is the server there?); log: {out}/wstest.log")
print(f"autobahn: {len(cases) - len(failed)} passed, {len(failed) + max(missing, 0)} failed, {len(lenient)} non-strict")
sys.exit(bool(failed) or missing > 0)
PY
