# All that is done to this checkout. `make help` lists it.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help check format lint deny pages test test-cgroups prove-cases fuzz bench bench-gateway bench-kill bench-scale bench-prove bench-state install

# Elsewhere a change of dependencies may update Cargo.lock; where changes are judged, it must come with them.
LOCKED := $(if $(CI),--locked)

DENY := .ci/cargo-deny $(LOCKED) --all-features

help: ## Lists what there is
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 24

check: format lint deny pages ## Format, lints, licences and known holes of the dependencies, tests that pages name

format:
	cargo fmt --all --check

lint:
	cargo clippy $(LOCKED) --workspace --all-targets --all-features -- -D warnings

pages:
	@.ci/programs python3:python3
	.ci/named-tests

# The list of known holes comes from GitHub; where that cannot be reached, the rest is still checked.
deny:
	$(DENY) check --hide-inclusion-graph licenses bans sources
	@if GIT_TERMINAL_PROMPT=0 timeout 120 $(DENY) --log-level off fetch db; then \
		$(DENY) check advisories; \
	else \
		echo 'advisories NOT checked: their database cannot be fetched from github.com'; \
	fi

# The shop is built first, as `lethe up examples/shop` would do in the middle of a test.
test: ## All tests; installs what they need (Chromium, Redis, Valkey, PostgreSQL, moto, Azurite, fake-gcs-server) when run as root
	.ci/programs cc:gcc python3:python3 node:nodejs npm:npm pkill:procps chromium:chromium chromedriver:chromium-driver \
		redis-server:redis-server initdb:postgresql setpriv:util-linux openssl:openssl
	.ci/moto
	.ci/azurite
	.ci/fake-gcs-server
	.ci/valkey >/dev/null
	.ci/exports
	cargo build $(LOCKED) --release -p shop
	cargo test $(LOCKED) --workspace --all-features --no-fail-fast
	LETHE_TEST_REDIS=$$(.ci/valkey) cargo test $(LOCKED) --workspace --all-features --no-fail-fast --test redis

test-cgroups: ## Workers' limits in a virtual machine, since they need cgroup v2 with all controllers; a few minutes
	.ci/cgroups

prove-cases: ## Proves all examples of violations and services with published middleware: found, missed, false; some minutes
	.ci/programs python3:python3 node:nodejs npm:npm php:php-cli redis-server:redis-server chromium:chromium
	cargo build $(LOCKED) --release -p lethe-cli -p violations
	built="$${CARGO_TARGET_DIR:-$$PWD/target}/release"; \
		python3 examples/violations/cases.py --lethe "$$built/lethe" --rust "$$built/violations"

FUZZ_SECONDS := 10

fuzz: ## Searches for bytes that break a parser, FUZZ_SECONDS long
	.ci/fuzz $(FUZZ_SECONDS)

bench: ## Memory, start, readiness and throughput of a release build, beside nginx
	cargo build $(LOCKED) --release -p lethe-cli -p shop
	python3 bench/run.py

bench-gateway: ## The gateway beside nginx, HAProxy, Envoy, Traefik and Caddy: CPU, latency, memory (half an hour)
	cargo build $(LOCKED) --profile dist -p lethe-cli
	cargo build $(LOCKED) --release -p lethe-gateway --example open_load --example fixed_roster
	PROFILE=dist python3 bench/gateway/run.py

bench-kill: ## What users lose when workers are killed, behind lethe and behind five others; ten minutes
	cargo build $(LOCKED) --release -p lethe-cli -p lethe-bench-kill
	python3 bench/kill/run.py

bench-scale: ## How soon load is followed: a step of it, and the first request to no worker; four minutes
	cargo build $(LOCKED) --release -p lethe-cli -p shop
	cargo build $(LOCKED) --release -p lethe-scaler --example speed
	python3 bench/scale/run.py

bench-prove: ## What it costs a service to be watched by a proof: CPU for each request; and how long a proof takes; some minutes, as root
	cargo build $(LOCKED) --release -p lethe-cli
	cargo build $(LOCKED) --release -p lethe-prover --example observed
	python3 bench/prove/run.py

bench-state: ## The state tier beside Redis, PostgreSQL and tower-sessions; a quarter of an hour
	cargo build $(LOCKED) --release -p lethe-cli
	python3 bench/state/run.py

install: ## Puts `lethe` into ~/.cargo/bin, compiled for speed: some minutes
	cargo install --locked --profile dist --path crates/cli
