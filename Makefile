# SPDX-License-Identifier: Apache-2.0
# `make help` lists the targets.  Start with `make demo` and `make test`.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
KERNEL ?= 6.1
ARCH ?= amd64
CGROUP ?= 2
ENGINE ?= core
CPUS ?= 1
SECONDS ?= 600
MINUTES ?= 60
STAGES := lint test-unit test-kernel test-reliability test-runtimes test-collectors test-report test-packaging test-vm
VERIFIER_KERNELS ?= 5.10 6.1 6.12 7.x 6.12-arm64
STAGE ?= test-kernel
TIMES ?= 10
# Fails if a process or mount of the stage is left behind.
ALONE = $(BIN)/python -m tests.stage

BPF_SOURCES := $(wildcard bpf/*.h bpf/hooks/*.h bpf/*.bpf.c)
OBJECTS := tracer/objects/oomtrace.x86_64.bpf.o tracer/objects/oomtrace.arm64.bpf.o
C_FILES := $(wildcard bpf/*.h bpf/hooks/*.h bpf/*.c tests/harness/*.c)
SHELL_FILES := $(wildcard vagrant/*.sh vagrant/scenarios/*.sh)

# Packages that a fresh Debian or Ubuntu lacks.
DEMO_PACKAGES := python3-venv libbpf1 libbpf-dev linux-libc-dev clang llvm
TEST_PACKAGES := $(DEMO_PACKAGES) gcc libc6-dev gcc-aarch64-linux-gnu libc6-dev-arm64-cross clang-format shellcheck python3-bpfcc \
	qemu-system-x86 qemu-system-arm mmdebstrap e2fsprogs kmod debian-archive-keyring logrotate zstd rsyslog systemd-journal-remote procps zsh fish groff mandoc
RUNTIME_PACKAGES := docker.io containerd runc crun podman conmon lxc systemd-container containernetworking-plugins \
	apparmor busybox-static iproute2 procps
# npm downloads axe-core; an npm that is installed otherwise is used.
REPORT_PACKAGES := chromium chromium-driver fonts-dejavu-core openssh-client openssh-server tmux zstd $(if $(shell command -v npm),,npm)
COLLECTOR_PACKAGES := openssl systemd debian-archive-keyring mosquitto mosquitto-clients socat postgresql $(if $(shell command -v npm),,nodejs npm)
BENCH_PACKAGES := $(TEST_PACKAGES) bpftool bpftrace
BOX_PACKAGES := mmdebstrap e2fsprogs fdisk qemu-utils debian-archive-keyring
VAGRANT_PACKAGES := vagrant vagrant-libvirt libvirt-daemon-system libvirt-clients qemu-system-x86 qemu-utils dnsmasq-base \
	iptables rsync openssh-client
DEB_PACKAGES := clang llvm libbpf-dev linux-libc-dev debhelper dh-python dpkg-dev fakeroot python3
PACKAGING_PACKAGES := $(DEB_PACKAGES) $(RUNTIME_PACKAGES) lintian pipx libbpf1 python3-bpfcc mmdebstrap debian-archive-keyring

VERSION := $(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' tracer/__init__.py)
# Reproducible builds.  An archive has no history, but its files have the commit's time.
GIT = git -c safe.directory='*' --git-dir=.git
SOURCE_DATE_EPOCH ?= $(shell $(GIT) log -1 --format=%ct 2>/dev/null || stat --format=%Y CHANGELOG.md)
# Maintainer of the Debian package: whoever builds it, by the variables of debchange(1).
DEBFULLNAME ?= $(shell $(GIT) log -1 --format=%cn 2>/dev/null || id --user --name)
DEBEMAIL ?= $(shell $(GIT) log -1 --format=%ce 2>/dev/null || echo "$$(id --user --name)@$$(hostname --fqdn)")
DEB := dist/oomtrace_$(VERSION)_all.deb
DEB_PARTS := Makefile LICENSE README.md CHANGELOG.md bpf docs tracer
DEB_SOURCES := $(BPF_SOURCES) $(wildcard tracer/*.py tracer/*/*.py tracer/*/*/*.py tracer/*/page_parts/* deploy/debian/* deploy/debian/source/* deploy/debian/stand-in/* docs/*.md docs/man/*/* docs/images/* *.md) \
	deploy/oomtrace.service deploy/config.toml $(wildcard deploy/collectors/*/* deploy/completion/*)

.DEFAULT_GOAL := build

.PHONY: help
help:  ## List the targets
	@awk -F ':.*## ' '/^[a-z][a-z-]*:.*## /{printf "%-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: bpf $(VENV)/ready  ## Compile the BPF programs and install into .venv (default)

.PHONY: bpf
bpf: $(OBJECTS)  ## Compile the BPF programs for x86-64 and arm64

tracer/objects/oomtrace.x86_64.bpf.o: TARGET_ARCH := x86
tracer/objects/oomtrace.arm64.bpf.o: TARGET_ARCH := arm64
$(OBJECTS): $(BPF_SOURCES)
	@mkdir -p $(@D)
	clang -target bpf -mcpu=v3 -O2 -g -Wall -Wextra -Werror -Wno-unused-parameter -D__TARGET_ARCH_$(TARGET_ARCH) \
		-fdebug-compilation-dir=. -Ibpf -I/usr/include/$(shell uname -m)-linux-gnu -c bpf/oomtrace.bpf.c -o $@
	llvm-strip -g $@

$(BIN)/pip:
	$(PYTHON) -m venv $(VENV)

$(VENV)/ready: $(BIN)/pip pyproject.toml
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[test]'
	@touch $@

.PHONY: demo
demo:  ## Trace a real OOM kill on this machine, and explain its record
	@$(MAKE) --no-print-directory packages PACKAGES="$(DEMO_PACKAGES)"
	@$(MAKE) --no-print-directory build
	@$(AS_ROOT) $(BIN)/python -m tests.demo

.PHONY: test
test:  ## All stages: lint, unit tests, real OOM kills natively, in containers, through collectors and packages, on other kernels
	@$(MAKE) --no-print-directory packages PACKAGES="$(TEST_PACKAGES) $(RUNTIME_PACKAGES) $(PACKAGING_PACKAGES) $(COLLECTOR_PACKAGES) $(REPORT_PACKAGES)"
	@$(MAKE) --no-print-directory build
	@mkdir -p build; setsid $(AS_ROOT) nice -n 19 $(MAKE) --no-print-directory ahead >build/ahead.log 2>&1 & ahead=$$!; \
	OOMTRACE_REQUIRE=all $(MAKE) --no-print-directory $(STAGES) & stages=$$!; \
	trap '$(AS_ROOT) kill -- -'$$ahead' 2>/dev/null; wait '$$ahead EXIT; \
	trap 'kill '$$stages'; wait '$$stages'; exit 130' INT TERM; \
	wait $$stages
	@$(AS_ROOT) $(BIN)/python -m tests.stage --check

.PHONY: repeat
repeat: build  ## Run a stage repeatedly, one line per run: make repeat STAGE=test-kernel TIMES=10
	@$(BIN)/python -m tests.repeat $(STAGE) $(TIMES)

.PHONY: ahead
ahead: build  ## Build what test-collectors and test-vm need; `make test` does so during its first stages
	$(ALONE) $(BIN)/python -m tests.collectors.go_programs
	$(ALONE) $(BIN)/python -m tests.vm.run --few --prepare

.PHONY: lint
lint: build  ## ruff, mypy --strict, clang-format, shellcheck
	$(BIN)/ruff check tracer tests deploy vagrant docs
	$(BIN)/ruff format --check tracer tests deploy vagrant docs
	$(BIN)/mypy
	clang-format --dry-run -Werror $(C_FILES)
	shellcheck --external-sources --source-path=SCRIPTDIR --severity=warning $(SHELL_FILES)

.PHONY: format
format: build  ## Format Python and C
	$(BIN)/ruff check --fix --unsafe-fixes tracer tests deploy vagrant docs
	$(BIN)/ruff format tracer tests deploy vagrant docs
	clang-format -i $(C_FILES)

.PHONY: test-unit
test-unit: build  ## Unit tests; need no root
	$(ALONE) $(BIN)/pytest tests/unit -q -n auto

.PHONY: coverage
coverage: build  ## Line coverage of the unit tests, child processes included; writes docs/testing.md and build/coverage/html
	$(BIN)/python -m tests.coverage

.PHONY: test-pythons
test-pythons:  ## Unit tests on every supported Python: make test-pythons PYTHONS='3.10 3.13'
	@$(MAKE) --no-print-directory packages PACKAGES="$(TEST_PACKAGES)"
	@$(MAKE) --no-print-directory build
	@$(BIN)/python -m tests.pythons $(PYTHONS)

.PHONY: fuzz
fuzz: build  ## Coverage-guided fuzzing of readers and commands: make fuzz SECONDS=600 TARGETS='redact bolt'
	@$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[fuzz]' 2>/dev/null || \
		echo "no atheris for this Python: without coverage"
	$(BIN)/python -m tests.fuzz --seconds $(SECONDS) $(TARGETS)
	OOMTRACE_INPUTS=new $(ALONE) $(BIN)/pytest tests/unit -q -m hypothesis

.PHONY: test-kernel
test-kernel: build  ## Real OOM kills on this kernel, with both engines; needs root
	$(AS_ROOT) $(ALONE) env OOMTRACE_REQUIRE=all OOMTRACE_ENGINE=core $(BIN)/pytest tests/kernel -q
	$(AS_ROOT) $(ALONE) env OOMTRACE_REQUIRE=all OOMTRACE_ENGINE=bcc $(BIN)/pytest tests/kernel -q

.PHONY: test-reliability
test-reliability: build  ## Faults during OOM kills, with an account of every kill; needs root
	$(AS_ROOT) $(ALONE) env OOMTRACE_REQUIRE=all $(BIN)/pytest tests/reliability -q
	$(AS_ROOT) $(BIN)/python -m tests.reliability.table

.PHONY: soak
soak: build  ## Continuous kills; memory, descriptors and threads must stay flat: make soak MINUTES=60; needs root
	$(AS_ROOT) $(ALONE) env OOMTRACE_REQUIRE=all OOMTRACE_SOAK_MINUTES=$(MINUTES) $(BIN)/pytest tests/reliability/test_soak.py -q -s

.PHONY: test-runtimes
test-runtimes: build  ## Real OOM kills in containers of Docker, podman, containerd, CRI pods, LXC and nspawn; needs root
	$(AS_ROOT) $(ALONE) env OOMTRACE_REQUIRE=all $(BIN)/pytest tests/runtimes -q

.PHONY: test-report
test-report: build  ## Report pages in Chromium and watch in tmux, with real OOM kills; needs root
	@$(MAKE) --no-print-directory packages PACKAGES="$(REPORT_PACKAGES)"
	$(AS_ROOT) $(ALONE) env OOMTRACE_REQUIRE=all $(BIN)/pytest tests/report -q

.PHONY: test-collectors
test-collectors: build  ## Real OOM kills, delivered to real collectors and brokers; needs root
	@$(MAKE) --no-print-directory packages PACKAGES="$(COLLECTOR_PACKAGES)"
	$(AS_ROOT) $(ALONE) env OOMTRACE_REQUIRE=all $(BIN)/pytest tests/collectors -q

.PHONY: test-packaging
test-packaging: build deb  ## Build, install and run wheel, Debian package and container image; needs root
	$(AS_ROOT) $(ALONE) env OOMTRACE_REQUIRE=all $(BIN)/pytest tests/packaging -q

.PHONY: test-vm
test-vm: build deb  ## Real OOM kills on Debian's kernels 5.10 to 7.x, and with systemd (test-systemd), in QEMU
	$(AS_ROOT) $(ALONE) $(BIN)/python -m tests.vm.run --few

.PHONY: test-vm-all
test-vm-all: build deb  ## test-vm on the whole matrix of kernels; writes the table in docs/kernels.md
	$(AS_ROOT) $(ALONE) $(BIN)/python -m tests.vm.run --all
	$(AS_ROOT) $(BIN)/python -m tests.vm.table

.PHONY: verifier
verifier: build  ## Record verifier statistics of each program on several kernels in tests/data/verifier.json
	$(AS_ROOT) $(BIN)/python -m tests.harness.verifier $(VERIFIER_KERNELS)

.PHONY: test-systemd
test-systemd: build deb  ## Debian package, systemd units and containers on Debian 13 with cgroup v2, in QEMU
	$(AS_ROOT) $(ALONE) $(BIN)/python -m tests.vm.systemd $(ARGS)

.PHONY: vm-test
vm-test: build  ## One kernel: make vm-test KERNEL=6.1 ARCH=arm64 CGROUP=2 ENGINE=core CPUS=32 ARGS='-k storm'
	$(AS_ROOT) $(ALONE) $(BIN)/python -m tests.vm.run --kernel $(KERNEL)$(filter-out -amd64,-$(ARCH)) --cgroup $(CGROUP) --engine $(ENGINE) --cpus $(CPUS) $(ARGS)

.PHONY: bench
bench:  ## Measure start, memory, latency and losses beside other tools
	@$(MAKE) --no-print-directory packages PACKAGES="$(BENCH_PACKAGES)"
	@$(MAKE) --no-print-directory build
	$(AS_ROOT) $(BIN)/python -m tests.bench

.PHONY: layout
layout: build  ## Generate the Python layouts of bpf/event.h in tracer/capture
	$(BIN)/python -m tests.event_layout

.PHONY: docs
docs: build  ## Generate the parts of docs/ and README.md that come from the code
	$(BIN)/python -m tests.docs

.PHONY: site
site: build  ## Build the documentation as HTML into build/site; a warning is an error
	@$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[site]'
	$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going --fresh-env -c docs -d build/site-cache . build/site
	@echo build/site/index.html

.PHONY: picture
picture: build  ## Make docs/images/report.png from real kernel logs, in Chromium
	@$(MAKE) --no-print-directory packages PACKAGES="chromium chromium-driver fonts-dejavu-core"
	@$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[site]'
	$(BIN)/python -m tests.report.picture

.PHONY: wheel
wheel: bpf $(BIN)/pip  ## Build the wheel, with the BPF objects, into dist/
	SOURCE_DATE_EPOCH=$(SOURCE_DATE_EPOCH) $(BIN)/pip wheel --quiet --no-deps --wheel-dir dist .

.PHONY: deb
deb:  ## Build the Debian package, for amd64 and arm64, into dist/
	@$(MAKE) --no-print-directory packages PACKAGES="$(DEB_PACKAGES)"
	@$(MAKE) --no-print-directory $(DEB)

# debhelper requires debian/ at the top of the source.
$(DEB): export SOURCE_DATE_EPOCH := $(SOURCE_DATE_EPOCH)
$(DEB): export DEBFULLNAME := $(DEBFULLNAME)
$(DEB): export DEBEMAIL := $(DEBEMAIL)
$(DEB): $(OBJECTS) $(DEB_SOURCES)
	@if [ -z "$$DEBFULLNAME" ] || [ -z "$$DEBEMAIL" ]; then \
		echo "deb: the maintainer of the package is unknown: set DEBFULLNAME and DEBEMAIL" >&2; exit 1; fi
	@rm -rf build/deb
	@mkdir -p build/deb/oomtrace dist
	@cp -Rp $(DEB_PARTS) build/deb/oomtrace
	@cp -Rp deploy/debian build/deb/oomtrace/debian
	@cp -Rp deploy/oomtrace.service deploy/config.toml deploy/collectors deploy/completion build/deb/oomtrace/debian
	@DATE="$$(LC_ALL=C date --utc --rfc-email --date=@$$SOURCE_DATE_EPOCH)" perl -pi -e 's/\@VERSION\@/$(VERSION)/; \
		s/\@MAINTAINER\@/$$ENV{DEBFULLNAME} <$$ENV{DEBEMAIL}>/; s/\@DATE\@/$$ENV{DATE}/' \
		build/deb/oomtrace/debian/control build/deb/oomtrace/debian/changelog
	@cd build/deb/oomtrace && dpkg-buildpackage --build=all --unsigned-changes --no-pre-clean >../log 2>&1 || \
		{ cat ../log; exit 1; }
	@cp build/deb/$(@F) $@
	@echo $@

.PHONY: dist
dist: bpf $(BIN)/pip  ## Build sdist, wheel and Debian package with SBOMs into dist/, reproducibly
	@$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[release]'
	rm -rf dist
	SOURCE_DATE_EPOCH=$(SOURCE_DATE_EPOCH) $(BIN)/python -m build --outdir dist .
	@$(MAKE) --no-print-directory deb
	$(BIN)/twine check --strict dist/*.tar.gz dist/*.whl
	SOURCE_DATE_EPOCH=$(SOURCE_DATE_EPOCH) $(BIN)/python -m deploy.release.sbom dist/*.whl dist/*.deb
	cd dist && sha256sum -- * >SHA256SUMS

.PHONY: release
release:  ## make dist, after the checks of docs/release.md
	$(PYTHON) -m deploy.release.check
	@$(MAKE) --no-print-directory dist

.PHONY: clean
clean:  ## Remove build results; keeps downloads in build/vm
	rm -rf $(VENV) dist tracer/objects build/eat build/deb build/container

MACHINES ?= bookworm bookworm-5.10 trixie bookworm-cgroup1

.PHONY: vagrant-box
vagrant-box:  ## Build libvirt boxes from Debian packages: make vagrant-box MACHINES='bookworm trixie'
	@$(MAKE) --no-print-directory packages PACKAGES="$(BOX_PACKAGES)"
	for machine in $(MACHINES); do $(AS_ROOT) sh vagrant/box.sh $$machine build/vagrant/$$machine.box || exit; done

.PHONY: vagrant-test
vagrant-test:  ## Run every OOM scenario on every machine of vagrant/Vagrantfile; writes the table in docs/vagrant.md
	@$(MAKE) --no-print-directory packages PACKAGES="$(VAGRANT_PACKAGES)"
	$(AS_ROOT) env OOMTRACE_VM_TCG=$(OOMTRACE_VM_TCG) sh vagrant/libvirt.sh start
	$(PYTHON) -m vagrant.machines $(MACHINES); status=$$?; $(AS_ROOT) sh vagrant/libvirt.sh stop; exit $$status

# sudo only where root is needed.
AS_ROOT := $(if $(filter 0,$(shell id -u)),,sudo)

# policy-rc.d: installing a package for a test must not start its service (invoke-rc.d(8)).
.PHONY: packages
packages:
	@missing=""; for package in $(PACKAGES); do \
		dpkg-query -W -f '$${Status}' $$package 2>/dev/null | grep -q 'ok installed' || missing="$$missing $$package"; \
	done; \
	if [ -n "$$missing" ]; then \
		echo "installing:$$missing"; \
		policy=/usr/sbin/policy-rc.d; \
		if [ ! -e $$policy ]; then \
			trap '$(AS_ROOT) rm -f /usr/sbin/policy-rc.d' EXIT INT TERM; \
			printf '#!/bin/sh\nexit 101\n' | $(AS_ROOT) tee $$policy >/dev/null; \
			$(AS_ROOT) chmod 755 $$policy; \
		fi; \
		$(AS_ROOT) apt-get update -qq && \
		$(AS_ROOT) env DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends -y $$missing >/dev/null; \
	fi
