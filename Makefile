# The commands people type. What they do is in scripts/, which also works without make.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

.PHONY: help
help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 20

.PHONY: setup
setup: ## Install what the tests and checks need (pinned; a second time it does nothing)
	@scripts/setup.sh

.PHONY: test
test: ## Run all tests, installing what they need first
	@scripts/setup.sh tests
	@cargo test --locked --workspace --no-fail-fast

.PHONY: lint
lint: ## Run every check that is not a test, installing what they need first
	@scripts/setup.sh checks
	@scripts/lint.sh

.PHONY: fmt
fmt: ## Format Rust, TOML and proto files
	@scripts/setup.sh python
	@cargo fmt
	@.tools/venv/bin/taplo fmt
	@.tools/venv/bin/buf format -w

.PHONY: ci
ci: ## Run what CI runs
	@.ci/run

.PHONY: proto-baseline
proto-baseline: ## Accept the contract as it is now as the one not to break
	@scripts/setup.sh python
	@scripts/proto-baseline.sh

# Faults on three gateways and a real NATS, for half an hour. ROUNDS and SEED choose how many and which. Thousands of clients
# come at once: as many files may be open as this machine allows.
.PHONY: chaos
chaos: ## Break gateways, NATS and the network again and again, and print what came of it (ROUNDS=50 SEED=1000)
	@scripts/setup.sh nats
	@ulimit -n "$$(ulimit -Hn)" && ROUNDS=$(or $(ROUNDS),50) SEED=$(or $(SEED),1000) cargo test --locked --release --test it -- \
		--ignored --nocapture --test-threads 1 chaos::

# Not incremental: how code is cut into units would count.
.PHONY: bench-instructions
bench-instructions: ## Compare the instructions of the hot path with benches/instructions.txt (SAVE=1: write it)
	@CARGO_INCREMENTAL=0 cargo bench --locked --quiet --bench hotpath -- $(if $(SAVE),--save)

# Unoptimized: the bytes are the same, and no function is hidden in another.
.PHONY: bench-memory
bench-memory: ## Count the heap bytes of an idle session, by the place that allocated them
	@cargo bench --locked --quiet --profile dev --bench memory
