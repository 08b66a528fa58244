# GPU Health Monitor. `make help` lists what there is.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
ARGS ?=
EMBEDDED := services/embedded/timescaledb

.PHONY: help
help: ## This list
	@grep -hE '^[a-z-]+:.*?## ' $(MAKEFILE_LIST) | sort | awk -F ':.*?## ' '{printf "  make %-12s %s\n", $$1, $$2}'

# --- set-up: a virtual environment of its own, locked dependencies -------------------------------------------------
.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	  { echo "Python 3.11 or newer is needed; '$(PYTHON)' is $$($(PYTHON) --version 2>&1). Try: make PYTHON=python3.12 ..."; exit 1; }
	@$(PYTHON) -m venv .venv || { echo "python3 -m venv failed: on Debian and Ubuntu install python3-venv"; exit 1; }

.venv/.runtime: requirements.lock pyproject.toml | .venv/bin/python
	@echo "setting up: runtime dependencies"
	@$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

.venv/.dev: requirements-dev.lock .venv/.runtime
	@echo "setting up: development dependencies"
	@$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements-dev.lock
	@touch $@

$(EMBEDDED)/node_modules/.installed: $(EMBEDDED)/package-lock.json
	@command -v node >/dev/null || { echo "Node.js 20 or newer is needed for the embedded TimescaleDB (not for docker-compose: see 'make up')"; exit 1; }
	@node -e 'process.exit(parseInt(process.versions.node) < 20 ? 1 : 0)' || { echo "Node.js 20 or newer is needed; this is $$(node --version)"; exit 1; }
	@echo "setting up: embedded TimescaleDB"
	@npm ci --silent --no-audit --no-fund --prefix $(EMBEDDED)
	@touch $@

.PHONY: install
install: .venv/.runtime ## Only what runs on a host: no Node.js, no test tools

.PHONY: setup
setup: .venv/.dev $(EMBEDDED)/node_modules/.installed ## Virtual environment, locked dependencies, embedded TimescaleDB

# --- run --------------------------------------------------------------------------------------------------------------
.PHONY: demo
demo: .venv/.runtime $(EMBEDDED)/node_modules/.installed ## The whole pipeline without Docker; ARGS="--seconds 60 --gpus 64 --json"
	@$(BIN)/gpumon demo $(ARGS)

.PHONY: up down logs psql kafka-tail
up: ## docker-compose: build and start everything (needs Docker; writes docker/.env the first time)
	@docker/compose.sh up
down: ## docker-compose: stop; ARGS=-v deletes the data as well
	@docker/compose.sh down $(ARGS)
logs: ## docker-compose: follow the logs; ARGS=collector for one service
	@docker/compose.sh logs $(ARGS)
psql: ## docker-compose: psql in the database
	@docker/compose.sh psql $(ARGS)
kafka-tail: ## docker-compose: one event from Kafka, as a person reads it
	@docker/compose.sh kafka-tail $(ARGS)

# --- check --------------------------------------------------------------------------------------------------------------
.PHONY: test test-long check lint types format golden bench docs dashboards
# Four at once even on two cores: most tests wait for other processes half of the time. Files in their order, in which the
# long ones (e2e, faults, integration) come before the short: xdist's own, most tests first, leaves them to the end, where
# a worker waits for the other. Byte code is written: some hundred processes need not compile our modules each.
test: setup ## All tests but the long ones, side by side; ARGS="-k spool" narrows, ARGS="-n 0" one after the other
	@env -u PYTHONDONTWRITEBYTECODE $(BIN)/pytest -m "not long" -n 4 --dist loadfile --no-loadscope-reorder $(ARGS)
test-long: setup ## The long ones: outages of a minute, random kills
	@$(BIN)/pytest -m long $(ARGS)
lint: .venv/.dev ## Formatting and lint
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
types: .venv/.dev ## mypy --strict, tests included
	@$(BIN)/mypy
check: lint types test ## What CI runs
format: .venv/.dev ## Format the code
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .
golden: setup ## Write the golden files anew; the diff is the review
	@GPUMON_UPDATE_GOLDEN=1 $(BIN)/pytest -q tests -k "golden or catalogue"
docs: .venv/.runtime ## Write docs/metrics.md, docs/xids.md and schema/*.schema.json from the catalogues
	@$(BIN)/gpumon catalogue --format markdown > docs/metrics.md
	@$(BIN)/gpumon catalogue --format xids > docs/xids.md
	@$(BIN)/gpumon catalogue --format json-schema > schema/event.schema.json
	@$(BIN)/gpumon catalogue --format json-schema-events > schema/gpu-event.schema.json
dashboards: .venv/.dev ## Write grafana/*.json from the package grafana (docs/dashboards.md)
	@$(BIN)/python -m grafana.build
bench: setup ## Measure: a table and bench-results/*.json; ARGS="--quick" or names
	@$(BIN)/python -m tests.bench $(ARGS)

.PHONY: lock
lock: .venv/.dev ## Resolve the locked dependencies anew (needs uv)
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --group build pyproject.toml -o requirements.lock
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --group build --group dev pyproject.toml -o requirements-dev.lock
