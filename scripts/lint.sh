#!/usr/bin/env bash
# Every check that is not a test. Runs them all, even after one failed, and names those that did.
#
#   scripts/lint.sh             all
#   scripts/lint.sh CHECK..     some of the functions below, without their check_

source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

bin=$tools/venv/bin
[ -x "$bin/typos" ] || fail "the checks' tools are not installed" "Run: make setup"
export PATH=$tools/cargo/bin:$PATH

# The peers are a workspace of their own; compiling them is left to those who measure.
check_format() { cargo fmt --all --check && cargo fmt --check --manifest-path benches/peers/Cargo.toml; }
check_toml() { RUST_LOG=warn "$bin/taplo" fmt --check --diff; }
check_spelling() { "$bin/typos"; }
check_scripts() { git ls-files -z '*.sh' .ci/run | xargs -0 shellcheck --severity=warning; }
check_proto_lint() { "$bin/buf" lint; }
check_proto_format() { "$bin/buf" format --diff --exit-code; }
check_proto_breaking() { "$bin/buf" breaking --against proto/baseline.binpb; }
# Licences, sources and banned crates; then dependencies nothing uses.
check_dependencies() { cargo deny --log-level error check bans licenses sources && cargo machete; }
check_clippy() { cargo clippy --locked --quiet --workspace --all-targets -- -D warnings; }
check_docs() { RUSTDOCFLAGS='-D warnings -A rustdoc::private-intra-doc-links' cargo doc --locked --quiet --workspace --no-deps --document-private-items; }

# Quick ones first: whoever waits learns early.
checks=(format toml spelling scripts proto_lint proto_format proto_breaking dependencies clippy docs)
[ $# -eq 0 ] || checks=("$@")

failed=()
for check in "${checks[@]}"; do
  declare -F "check_$check" >/dev/null || fail "there is no check called $check" "Checks: ${checks[*]}"
  say "$check"
  "check_$check" </dev/null || failed+=("$check")
done

if [ "${#failed[@]}" -gt 0 ]; then fail "these checks failed: ${failed[*]}"; fi
say "all ${#checks[@]} checks passed"
