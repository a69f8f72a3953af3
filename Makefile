# The commands people type. What they do is in scripts/, which also works without make.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

.PHONY: help
help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

.PHONY: setup
setup: ## Install what the tests and checks need (pinned; a second time it does nothing)
	@scripts/setup.sh

.PHONY: test
test: ## Run all tests, installing what they need first
	@scripts/setup.sh tests
	@cargo test --locked

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
