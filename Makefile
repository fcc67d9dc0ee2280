# SPDX-License-Identifier: BSD-2-Clause
#
# The commands people use. Meson and Ninja do the work; builds go under build/. Each command
# installs the Debian packages that it needs when it runs as root, and names them otherwise.

PREFIX ?= /usr/local
LIBDIR ?= lib
DESTDIR ?=
FUZZ_SECONDS ?= 60
GUEST_ARGS ?= --full
BENCH_ARGS ?=
BENCH_GUEST_ARGS ?= --count 3
TEST_ARGS ?=

deps := scripts/install-deps.sh

help:
	@echo 'make demo        build, show the main job: a story in-process, then a Linux guest'
	@echo 'make test        build, and run all tests (TEST_ARGS: see scripts/test.py --help)'
	@echo 'make test-guest  the long tests with Linux guests (GUEST_ARGS: tests/guest/run.py --help)'
	@echo 'make build       build into build/plain'
	@echo 'make bench       run the benchmarks, print figures and their goals'
	@echo 'make bench-guest what a Linux guest with a disk reaches, with the unit and without'
	@echo 'make fuzz        fuzz each target for FUZZ_SECONDS (60)'
	@echo 'make coverage    line and branch coverage of the tests, into build/coverage/report'
	@echo 'make docs        check the documents; HTML of the public headers into build/docs'
	@echo 'make install     install under PREFIX (/usr/local), libraries in its LIBDIR (lib); DESTDIR too'
	@echo 'make clean       remove build/'

build:
	@$(deps) build
	@scripts/build.sh plain
	@echo 'built: build/plain (the command is build/plain/tools/viommu)'

demo:
	@$(deps) build guest
	@scripts/demo.sh

test:
	@$(deps) build test guest
	@python3 -B scripts/test.py $(TEST_ARGS)

test-guest:
	@$(deps) build guest guest-kernel
	@scripts/build.sh plain
	@python3 -B tests/guest/run.py --viommu build/plain/tools/viommu $(GUEST_ARGS)

bench:
	@$(deps) build bench
	@scripts/bench.sh $(BENCH_ARGS)

bench-guest:
	@$(deps) build bench guest
	@scripts/bench-guest.sh $(BENCH_GUEST_ARGS)

fuzz:
	@$(deps) build fuzz
	@FUZZ_SECONDS=$(FUZZ_SECONDS) scripts/fuzz.sh

coverage:
	@$(deps) build coverage
	@scripts/coverage.sh

docs:
	@$(deps) docs
	@scripts/docs.sh

install:
	@$(deps) build
	@scripts/build.sh install --prefix='$(PREFIX)' --libdir='$(LIBDIR)' --buildtype=release \
		-Dtests=disabled -Dbench=disabled
	@DESTDIR='$(DESTDIR)' meson install -C build/install --no-rebuild
	@[ -n '$(DESTDIR)' ] || [ "$$(id -u)" != 0 ] || ldconfig

clean:
	rm -rf build

.PHONY: help build demo test test-guest bench bench-guest fuzz coverage docs install clean
