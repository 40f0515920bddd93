# Everything runs on a fresh Debian 12 with a Rust toolchain: what is missing is installed. `make` lists the targets.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.NOTPARALLEL:
.DEFAULT_GOAL := help

TARGET := $(or $(CARGO_TARGET_DIR),target)
BINARY := $(TARGET)/release/kitepush
REPORTS := $(TARGET)/reports
TOOLS := $(TARGET)/tools
# One profile for everything: the C libraries compile once, and what is tested is what ships.
CARGO_FLAGS := --release --locked

CARGO_DENY_VERSION := 0.20.2
CARGO_FUZZ_VERSION := 0.13.2
CARGO_FUZZ := $(or $(shell command -v cargo-fuzz),$(abspath $(TOOLS))/bin/cargo-fuzz)
CARGO_DENY := $(or $(shell command -v cargo-deny),$(abspath $(TOOLS))/bin/cargo-deny)

.PHONY: help demo test build fmt clippy docs deny audit tests deploy-checks bench soak fuzz release clean-reports \
	setup-build setup-demo setup-test setup-bench

help: ## This list.
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' Makefile | column -t -s '|' 2>/dev/null \
		|| sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1  \2/p' Makefile

demo: setup-demo build ## A simulated CI day through real servers, in this terminal (DEMO_SECONDS=20: ends by itself).
	@exec $(BINARY) demo

test: clean-reports setup-test fmt deny build clippy docs tests deploy-checks ## Everything that has to hold before a change lands.
	@awk -f .ci/total.awk $(REPORTS)/*.txt

build: setup-build ## The release binary.
	@cargo build $(CARGO_FLAGS)

fmt: setup-build ## Formatting, checked.
	@echo "== formatting"
	@cargo fmt --check

clippy: setup-build ## Lints, warnings denied.
	@echo "== clippy"
	@cargo clippy $(CARGO_FLAGS) --all-targets -- -D warnings

docs: setup-build ## Documentation, warnings denied.
	@echo "== docs"
	@RUSTDOCFLAGS="-D warnings" cargo doc $(CARGO_FLAGS) --no-deps

deny: $(CARGO_DENY) ## Banned crates, licences and sources.
	@echo "== dependencies"
	@$(CARGO_DENY) --locked --log-level error check bans licenses sources

audit: $(CARGO_DENY) ## Known vulnerabilities; needs the network.
	@$(CARGO_DENY) --locked check advisories

# Without optimization: it compiles in half the time and has little to do.
$(abspath $(TOOLS))/bin/cargo-deny: | setup-build
	@echo "== installing cargo-deny $(CARGO_DENY_VERSION)"
	@CARGO_PROFILE_DEV_DEBUG=0 cargo install cargo-deny@$(CARGO_DENY_VERSION) --locked --debug --quiet \
		--root $(TOOLS) --target-dir $(TOOLS)/build
	@rm -rf $(TOOLS)/build

tests: setup-test ## All Rust tests, those against real servers included.
	@echo "== tests"
	@mkdir -p $(REPORTS)
	@if cargo nextest --version >/dev/null 2>&1; then \
		cargo nextest run $(CARGO_FLAGS) 2>&1 | tee $(REPORTS)/tests.txt; \
	else \
		cargo test $(CARGO_FLAGS) --all-targets 2>&1 | tee $(REPORTS)/tests.txt; \
	fi
	@cargo test $(CARGO_FLAGS) --doc 2>&1 | tee $(REPORTS)/doc-tests.txt

deploy-checks: build ## Chart, image, rules, dashboards.
	@echo "== deployment"
	@mkdir -p $(REPORTS)
	@if [ -f tests/deploy/run.sh ]; then \
		KITEPUSH_BIN=$(BINARY) bash tests/deploy/run.sh 2>&1 | tee $(REPORTS)/deploy.txt; \
	else \
		echo "there are none"; \
	fi

bench: setup-bench build ## Speed and memory: the hot path, and the server beside its floor.
	@cargo bench --locked --bench hot_path --bench timing
	@python3 benches/run.py

soak: setup-bench build ## A million names of every kind: what they cost.
	@python3 benches/soak.py
	@cargo test $(CARGO_FLAGS) --test it attack -- --ignored --nocapture --test-threads=1

fuzz: setup-build $(CARGO_FUZZ) ## Hostile bytes for each parser (FUZZ_SECONDS=300 each).
	@.ci/need g++:g++
	@PATH="$(dir $(CARGO_FUZZ)):$$PATH" fuzz/run.sh

$(abspath $(TOOLS))/bin/cargo-fuzz: | setup-build
	@echo "== installing cargo-fuzz $(CARGO_FUZZ_VERSION)"
	@CARGO_PROFILE_DEV_DEBUG=0 cargo install cargo-fuzz@$(CARGO_FUZZ_VERSION) --locked --debug --quiet \
		--root $(TOOLS) --target-dir $(TOOLS)/build
	@rm -rf $(TOOLS)/build

release: setup-build ## Image, chart, SBOM and checksums, into target/dist.
	@deploy/release/release.sh

clean-reports:
	@rm -rf $(REPORTS)

setup-build:
	@.ci/need cc:gcc cc:libc6-dev
	@cargo fmt --version >/dev/null 2>&1 || rustup component add rustfmt
	@cargo clippy --version >/dev/null 2>&1 || rustup component add clippy

setup-demo:
	@.ci/need prometheus:prometheus prometheus-pushgateway:prometheus-pushgateway

setup-test: setup-build setup-demo
	@.ci/need promtool:prometheus amtool:prometheus-alertmanager openssl:openssl python3:python3 sqlite3:sqlite3 \
		curl:curl git:git /usr/sbin/nginx:nginx-light

setup-bench: setup-test
	@.ci/need wrk:wrk
