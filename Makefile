# `make` lists the targets. Everything that Python needs lives in .venv/.
#
#   PYTHON=/path/to/python3   make .venv/ with this interpreter (3.11 or later)
#   PYTEST_ARGS='-k range'    further arguments for pytest; -n 0 runs one test at a time
#   LIBRARY=… PORT=8080       for `make demo`
#   BENCH_ARGS='--rounds 3'   further arguments for `make bench`; --help lists them
#   PREFIX=/usr/local DESTDIR=   for `make install` and `make uninstall`
#   ZIPFS_EXTRAS=postgresql   what `make install` installs besides
#   SOAK_MINUTES=60           for `make soak`; SOAK_SEED=… repeats a failed run, SOAK_HEADS=2 has two heads
#   DISTROS='debian13' DISTROS_TARGETS='test'   for `make distros`; DISTROS_ARGS='--keep' and others
#   CONTAINERS_PLACE=/var/tmp/zipfs-containers   where `make containers` keeps its machine
#   CONTAINERS_SYSTEM=debian13   the system of that machine; or ubuntu2404
#   NEWCOMER='debian13 ubuntu2404'   for `make newcomer`; NEWCOMER_ARGS='--way demo' and others
#   VM_KERNELS='6.1' VM_SOURCES='cifs'   for `make vm`; VM_ARGS='--publish' and others
#   ENDURE_MINUTES=60         for `make endure`; ENDURE_ARGS='--publish' and others, --help lists them

BIN := .venv/bin
# Tests start thousands of interpreters, each of which would compile zipfs.
unexport PYTHONDONTWRITEBYTECODE
export PYTHON LIBRARY PORT SOAK_MINUTES SOAK_SEED SOAK_HEADS ENDURE_MINUTES CONTAINERS_PLACE CONTAINERS_SYSTEM

DISTROS := debian12 debian13 ubuntu2404
DISTROS_TARGETS := test desktop
NEWCOMER := debian13 ubuntu2404

VM_KERNELS := 5.10 6.1 6.12
VM_SOURCES :=

# The variables of the GNU Coding Standards.
PREFIX := /usr/local
DESTDIR :=

.DEFAULT_GOAL := help
.PHONY: help venv system lint check core test readers desktop containers newcomer distros vm lowest audit soak endure demo \
	bench bench-scale bench-far bench-restarts bench-heads manual fmt clean deb dist install uninstall upgrade

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(firstword $(MAKEFILE_LIST)) | expand -t 16

system: ## install the system packages that are missing (apt-get; sudo if not root)
	@.ci/system-packages test

venv: ## make .venv/ with zipfs and its tools, if it isn't up to date
	@.ci/system-packages build
	@.ci/venv

lint: venv ## ruff, mypy and the import contract
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# No prerequisites, so that the steps run in this order also under `make -j`. Four processes, as
# half of the time is waiting. A process runs whole files, whose tests share fixtures.
test: ## system packages, .venv/, lint and all tests
	@.ci/system-packages test
	@$(MAKE) --no-print-directory lint
	$(BIN)/pytest -n 4 --dist loadfile --ignore tests/desktop --ignore tests/containers --ignore tests/deb $(PYTEST_ARGS)

core: ## lint, and the tests of zipfs and its mounts, without the web servers and sources around it
	@.ci/system-packages core
	@$(MAKE) --no-print-directory lint
	$(BIN)/pytest -n 4 --dist loadfile tests/unit tests/property tests/fs tests/mount tests/service \
		--ignore tests/mount/test_sources.py $(PYTEST_ARGS)

# For daily work: no mount, no server, no archive of 65,535 members.
check: lint ## lint, types, and the tests that need no mount: for daily work
	@.ci/system-packages check
	$(BIN)/pytest -n 4 --dist loadfile -q -m "not large" tests/unit tests/property tests/fs $(PYTEST_ARGS)

readers: ## every reader of ZIPs x the corpus of hard folders, as a matrix (READERS_ARGS=)
	@.ci/system-packages readers
	@.ci/venv
	@.ci/readers-tools
	@$(BIN)/python -m tests.readers $(READERS_ARGS)

desktop: ## file managers on a mount, under a virtual display; screenshots in .desktop/
	@.ci/system-packages desktop
	@.ci/venv
	@rm -rf .desktop
	ZIPFS_PICTURES=.desktop $(BIN)/pytest -n 2 tests/desktop $(PYTEST_ARGS)

containers: ## the image, the Compose files and their faults, with Docker and Podman on a Debian or Ubuntu of its own
	@.ci/system-packages containers
	@.ci/venv
	$(BIN)/pytest tests/containers $(PYTEST_ARGS)

newcomer: ## from nothing to a resumed download as README tells it, on fresh systems, and how long it takes (NEWCOMER=)
	@.ci/system-packages containers
	@.ci/venv
	@$(BIN)/python -m tests.newcomer $(NEWCOMER_ARGS) $(NEWCOMER)

distros: ## what CI runs, in fresh roots of Debian and Ubuntu (DISTROS=debian13 DISTROS_TARGETS=test)
	@.ci/system-packages distros
	@.ci/venv
	@for system in $(DISTROS); do $(BIN)/python -m tests.distros $(DISTROS_ARGS) $$system $(DISTROS_TARGETS) || exit; done

vm: ## libraries on NFS, SMB, sticks and others, in virtual machines; hours (VM_KERNELS= VM_SOURCES= VM_ARGS=)
	@.ci/system-packages vm
	@.ci/venv
	@$(BIN)/python -m tests.vm $(VM_KERNELS:%=--kernel %) $(VM_SOURCES:%=--source %) $(VM_ARGS)

lowest: ## tests with the oldest versions that pyproject.toml allows (needs Python 3.11)
	@.ci/system-packages test
	@.ci/lowest $(PYTEST_ARGS)

audit: ## check the packages that zipfs runs with for advisories and withdrawn versions
	@.ci/system-packages build
	@.ci/venv audit
	@$(BIN)/python -m tests.audit

soak: ## random changes and reads through a mount for an hour, or SOAK_MINUTES=
	@.ci/system-packages test
	@.ci/venv
	@$(BIN)/python -m tests.model.soak

endure: ## a day's work in an hour, or ENDURE_MINUTES=: memory, threads, open files flat? (plot)
	@.ci/system-packages bench
	@.ci/venv bench
	@$(BIN)/python -m bench.endure $(ENDURE_ARGS)

demo: ## mount and serve free games, or LIBRARY=/path, on 127.0.0.1:8080 (or PORT=)
	@.ci/system-packages demo
	@.ci/venv
	@$(BIN)/python -m bench.demo

bench: ## measure zipfs beside a stored file and its peers: tables, JSON, plots (BENCH_ARGS=)
	@.ci/system-packages bench
	@.ci/venv bench
	@.ci/hfs
	@$(BIN)/python -m bench $(BENCH_ARGS)

bench-scale: ## very many games, members and clients, and how cost grows (BENCH_ARGS=--quick)
	@.ci/system-packages bench
	@.ci/venv bench
	@$(BIN)/python -m bench.scale $(BENCH_ARGS)

deb: ## a package for this Debian or Ubuntu, in dist/; checked by lintian, installed, upgraded, removed, purged
	@.ci/system-packages deb
	@.ci/venv
	@systemd/deb
	@lintian --fail-on error --allow-root dist/*.deb
	$(BIN)/pytest -q tests/deb $(PYTEST_ARGS)

dist: ## the sdist and the wheel, in dist/; checked by twine and check-wheel-contents
	@.ci/system-packages build
	@.ci/venv dist
	@rm -f dist/zipfs-*
	$(BIN)/python -m build --no-isolation .
	$(BIN)/twine check --strict dist/zipfs-*
	$(BIN)/check-wheel-contents dist/zipfs-*.whl

bench-far: ## sources that wait in each call: many small files, few large ones, many games (BENCH_ARGS=)
	@.ci/system-packages bench
	@.ci/venv bench
	@$(BIN)/python -m bench.far $(BENCH_ARGS)

bench-restarts: ## for how long nobody serves after a hand-over, a crash, a restart (BENCH_ARGS='--rounds 5')
	@.ci/system-packages test
	@.ci/venv
	@$(BIN)/python -m bench.restarts $(BENCH_ARGS)

bench-heads: ## many heads, one PostgreSQL: time to seal with 1, 2, 4 of them; a million files (BENCH_ARGS=)
	@.ci/system-packages test
	@.ci/venv bench
	@$(BIN)/python -m bench.heads $(BENCH_ARGS)

install: ## install zipfs, its man pages, systemd units and mount.zipfs below PREFIX=/usr/local (DESTDIR=)
	@PREFIX='$(PREFIX)' DESTDIR='$(DESTDIR)' systemd/install

uninstall: ## remove what `make install` installed; configs and indexes stay
	@PREFIX='$(PREFIX)' DESTDIR='$(DESTDIR)' systemd/uninstall

manual: venv ## write the generated tables of the manual, and the man pages
	@$(BIN)/python -m tests.manual

fmt: venv ## format, and fix what ruff can fix
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

upgrade: ## renew the locks of all packages from PyPI and npm, and run all tests
	@.ci/system-packages upgrade
	@.ci/upgrade
	@$(MAKE) --no-print-directory test

clean: ## remove .venv/ and all caches
	rm -rf .venv .lowest .readers .desktop .bench build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -path ./.git -prune -o -name __pycache__ -type d -exec rm -rf {} +
