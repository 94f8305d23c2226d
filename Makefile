# Everything runs against a private PostgreSQL, which `make setup` obtains; see scripts/setup.
# To use one of your own (and install into it), name it: make install PG_CONFIG=/path/to/pg_config

# One that is merely in the environment may serve other projects: it does not count.
ifeq ($(origin PG_CONFIG),environment)
unexport PG_CONFIG
override PG_CONFIG :=
endif

PG   ?= $(if $(PG_CONFIG),$(shell $(PG_CONFIG) --version | sed 's/^PostgreSQL \([0-9]*\).*/\1/'),16)
ROWS ?= 1000000
ARGS ?=

with_pg    = scripts/with-pg $(PG)
# With cargo-pgrx and pgspot, which nothing needs but these tests.
with_tools = scripts/with-pg --tools $(PG)

.DEFAULT_GOAL = help
.NOTPARALLEL:
.PHONY: help setup demo test bench lint lint-code lint-sql lint-sql-only install script test-script-only package clean
.PHONY: test-unit test-client test-client-only test-regress test-regress-only test-examples test-examples-only

help: ## what can be made (this list)
	@echo 'make TARGET [PG=15|16|17|18] [ROWS=number] [ARGS="arguments"]'
	@sed -n 's/^\([a-z-]*\):.*## /\1|/p' Makefile | awk -F '|' '{ printf "  %-13s %s\n", $$1, $$2 }'

setup: ## obtain a private PostgreSQL, cargo-pgrx, pgspot and system packages that are missing
	@scripts/setup --tools $(PG)

demo: install ## watch a table of ROWS rows being migrated under load
	$(with_pg) cargo run --release --package bench --bin demo -- --rows $(ROWS) $(ARGS)

test: ## all tests
	@scripts/test $(PG)

test-unit: ## tests inside the crate and inside a server; ARGS=name for some of them
	$(with_tools) scripts/test-unit $(ARGS)

test-client: install test-client-only ## tests of a client's view; ARGS=name for some of them

test-client-only:
	$(with_pg) cargo test --package client-tests -- $(ARGS)

test-regress: install test-regress-only ## psql sessions; ARGS=--accept to take what they print as expected

test-regress-only:
	$(with_pg) scripts/regress $(ARGS)

test-examples: install test-examples-only ## the Django package, the Django example and the migration tools of the guide

test-examples-only:
	$(with_pg) packages/django/run_tests
	$(with_pg) examples/django/run_tests
	$(with_pg) examples/tools/run_tests

bench: install ## compare ways to fill a column; ARGS=--help for what can be chosen
	$(with_pg) cargo run --release --package bench --bin bench -- $(ARGS)

lint: lint-code lint-sql ## format, lints, and names in the script that is installed

lint-code:
	$(with_pg) scripts/lint

lint-sql: install lint-sql-only

lint-sql-only:
	$(with_tools) scripts/lint-sql

install: ## build the release and install it
	$(with_pg) scripts/install

package: ## a Debian package and a tarball of the release build, in target/packages
	$(with_pg) scripts/package

script: install ## write the installation script of this version into sql/, after a change of what SQL can call
	$(with_tools) scripts/script

test-script-only:
	$(with_tools) scripts/script --check

clean: ## remove all that was built and obtained
	@scripts/clean
