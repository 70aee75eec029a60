# SPDX-License-Identifier: GPL-2.0-or-later
#
# Two commands for a reader in a hurry: `make demo` and `make check`.
# `make help` lists the others; docs/developing.md explains them.

# System's python: another one in PATH may lack modules that QEMU needs.
export PYTHONDONTWRITEBYTECODE := 1
PYTHON := /usr/bin/python3
SERIES := $(PYTHON) scripts/series.py
CHECK := $(PYTHON) scripts/check.py $(if $(V),--verbose)

# What a user may set; see `make help`.
SERIES_CACHE ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/qemu-failsafe
export QEMU_SRC TREE CONFIGURE_ARGS SERIES_CACHE

TOOLS := qemu-system-x86_64 qemu-img qemu-io qemu-nbd qemu-storage-daemon

.PHONY: all upstream asan demo check check-full check-series check-unit \
	check-qtest check-tools check-e2e check-faults check-soak check-fuzz \
	check-libvirt failure-table bench-quiesce bench-hw-error \
	bench-convergence lint bisect-check tree fold series rebase range-diff \
	clean help packages
.NOTPARALLEL:

# Compile build/$(1)src into build/$(1)qemu; link the tools to build/$(1)bin.
define compile
	@scripts/build-qemu.sh build/$(1)src build/$(1)qemu
	@mkdir -p build/$(1)bin
	@for tool in $(TOOLS); do \
		case $$tool in \
		qemu-storage-daemon) dir=storage-daemon/ ;; \
		*) dir= ;; \
		esac; \
		ln -sfn ../qemu/$$dir$$tool build/$(1)bin/$$tool; \
	done
endef

all: packages
	@$(SERIES) source
	$(call compile,)

upstream: packages
	@$(SERIES) upstream-source
	$(call compile,upstream/)

# With AddressSanitizer and UndefinedBehaviorSanitizer; the tools are without.
asan: all
	@CONFIGURE_ARGS='$(CONFIGURE_ARGS) --enable-asan --enable-ubsan \
		--disable-werror' scripts/build-qemu.sh build/src build/asan/qemu \
		qemu-system-x86_64 $$($(SERIES) tests)
	@mkdir -p build/asan/bin
	@ln -sfn ../qemu/qemu-system-x86_64 build/asan/bin/qemu-system-x86_64
	@for tool in $(filter-out qemu-system-x86_64,$(TOOLS)); do \
		ln -sfn ../../bin/$$tool build/asan/bin/$$tool; \
	done

packages:
	@scripts/packages.sh

demo: all
	@tests/demo/run

check: all
	@$(CHECK)

check-full: all asan
	@$(CHECK) --full

check-series: packages
	@$(CHECK) series

check-unit check-qtest check-tools check-e2e check-faults check-soak \
check-fuzz check-libvirt: check-%: all
	@$(CHECK) $*

# What an operator reads: from the tests that find it out.
failure-table: all upstream
	@scripts/build-qemu.sh build/src build/qemu tests/vhost-user-bridge
	@tests/e2e/run --rows
	@tests/e2e/faults --table docs/failures.md

bench-quiesce: all upstream
	@tests/bench/quiesce

bench-hw-error: all upstream
	@tests/bench/hw-error
	@tests/bench/hw-error-block
	@tests/bench/hw-error-flood

# BENCH_ARGS: see tests/bench/convergence --help
bench-convergence: all
	@tests/bench/convergence $(BENCH_ARGS)

lint: packages
	@$(SERIES) lint

bisect-check: packages
	@$(SERIES) bisect-check

tree: packages
	@$(SERIES) tree

fold: packages
	@$(SERIES) fold

series: packages
	@$(SERIES) mails

rebase: packages
	@$(if $(CONTINUE),$(SERIES) rebase-continue,\
	  $(if $(ABORT),$(SERIES) rebase-abort,\
	  $(if $(TO),$(SERIES) rebase '$(TO)',\
	  echo 'error: say onto what: make rebase TO=<source or tag>' >&2; \
	  exit 1)))

range-diff: packages
	@$(SERIES) range-diff '$(REV)'

clean:
	@if [ -e build/series.git ]; then $(SERIES) check-clean; fi
	rm -rf build

help:
	@echo 'make [all]         patched QEMU: build/bin/'
	@echo 'make upstream      unpatched QEMU: build/upstream/bin/'
	@echo 'make asan          QEMU with sanitizers: build/asan/bin/'
	@echo 'make demo          what it is for, told to a person'
	@echo 'make check         all tests: series unit qtest tools e2e'
	@echo '                   faults soak fuzz libvirt'
	@echo 'make check-TIER    one tier of them'
	@echo 'make check-full    nightly: sanitizers, long soak and fuzz, bad memory'
	@echo 'make failure-table docs/failures.md, from the tests'
	@echo 'make bench-quiesce time to quiesce against stop by hand'
	@echo 'make bench-hw-error  errors: time to the event, in a flood; cost'
	@echo 'make bench-convergence  migration of guests that write (BENCH_ARGS=)'
	@echo 'make lint          checks that need no compiler'
	@echo 'make bisect-check  every commit builds and passes its tests'
	@echo 'make tree          a git worktree to edit in: build/tree'
	@echo 'make fold          its commits back into patches and files'
	@echo 'make series        numbered mails: build/mails; sends nothing'
	@echo 'make rebase TO=    onto another source, or tag of QEMU_SRC'
	@echo '                   (then CONTINUE=1 or ABORT=1)'
	@echo 'make range-diff REV=  the series at REV against now'
	@echo 'make clean         removes build/, unless work would be lost'
	@echo
	@echo 'QEMU_SRC=          upstream: git checkout, directory or tarball'
	@echo 'TREE=              where the worktree is, instead of build/tree'
	@echo 'CONFIGURE_ARGS=    more arguments for QEMU'"'"'s configure'
	@echo 'SERIES_CACHE=      downloads and proofs, instead of ~/.cache'
	@echo 'V=1                also print each test case that passes'
