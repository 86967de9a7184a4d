# Two commands do everything on a fresh machine: make run, make test. `make help` lists the rest.
PYTHON ?= python3
BIN := .venv/bin
INSTALL := $(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt
# Else each of the hundreds of processes that tests start would compile everything anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup run test lint chart bench failover isolation memory soak faults end-to-end proofs simulation mutants
help:
	@echo "make run         the gateway on SQLite with a sample policy and a small sample campaign"
	@echo "make test        lint, types and all tests; installs RabbitMQ, PostgreSQL, Redis, Prometheus and Chromium where they are missing"
	@echo "make lint        lint and types alone"
	@echo "make chart       writes what the Helm chart has that is made of something: the dashboard, and the table of values in its README"
	@echo "make end-to-end  the long form of all end-to-end tests: 20 000 requests, kill -9, two gateways"
	@echo "make faults      what happens when things break: every row of the matrix of faults with its full count, as a table"
	@echo "make proofs      the long form of the proofs: other draws and ten times as many, thousands of histories, 10 000 messages for one person, 8 processes"
	@echo "make simulation  the long form of the simulation: 20 000 installations in virtual time, with whatever goes wrong"
	@echo "make mutants     how many planted faults the tests of the pure modules find, and those that they do not"
	@echo "make bench       the benchmark tables (installs Redis for what it is compared with)"
	@echo "make failover    what it costs that a provider fails for a minute, with 1 and 4 workers (6 minutes)"
	@echo "make isolation   a channel beside one that hangs; one-time codes under a campaign of 200 000 (10 minutes)"
	@echo "make memory      what a gateway holds while a million messages wait (quarter of an hour)"
	@echo "make soak        an hour of load and faults, MINUTES=… for another time: grows, leaks, loses, doubles nothing"

setup: .venv/ready
$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Decorum needs Python 3.11 or later; name one with PYTHON=…" >&2; exit 1; }
	$(PYTHON) -m venv .venv

.venv/ready: pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) --editable '.[fast]'
	@touch $@

.venv/ready-for-tests: pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) --editable '.[fast,test]'
	@touch .venv/ready $@

.venv/ready-for-mutants: .venv/ready-for-tests
	$(INSTALL) --editable '.[fast,test,mutants]'
	@touch $@

run: setup
	$(BIN)/decorum demo

lint: .venv/ready-for-tests
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

test: lint
	@sh tests/install-servers rabbitmq-server amqp-tools postgresql redis-server prometheus chromium
	$(BIN)/pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder --hypothesis-seed 1

chart: .venv/ready
	$(BIN)/python helm/dashboard.py
	$(BIN)/python helm/readme.py

end-to-end: .venv/ready-for-tests
	@sh tests/install-servers rabbitmq-server amqp-tools postgresql
	$(BIN)/pytest tests/end_to_end -m full --timeout 1800

# Takes about an hour. ROWS="F1 F3" picks; ROWS=--short is what make test runs.
faults: .venv/ready-for-tests
	@sh tests/install-servers rabbitmq-server amqp-tools postgresql
	$(BIN)/python -m tests.faults $(ROWS)

bench: .venv/ready-for-tests
	@sh tests/install-servers rabbitmq-server amqp-tools postgresql redis-server
	$(BIN)/python -m tests.benchmarks

failover isolation memory: .venv/ready-for-tests
	@sh tests/install-servers rabbitmq-server amqp-tools postgresql
	$(BIN)/python -m tests.benchmarks $@

soak: .venv/ready-for-tests
	@sh tests/install-servers rabbitmq-server amqp-tools postgresql
	$(BIN)/python -m tests.soak --minutes $(or $(MINUTES),60)

proofs: .venv/ready-for-tests
	@sh tests/install-servers postgresql
	DECORUM_EXAMPLES=10 $(BIN)/pytest tests/unit --numprocesses 2 --timeout 1800
	$(BIN)/pytest tests/proofs -m full --timeout 3600

# Takes about an hour. DECORUM_SEED=N shows one of them again.
simulation: .venv/ready-for-tests
	$(BIN)/pytest tests/simulation -m full --numprocesses 2

# Takes about an hour. MODULES="ratelimit.clocks* gateway.outcome*" picks; what was tried before is kept in mutants/.
mutants: .venv/ready-for-mutants
	DECORUM_EXAMPLES=0.1 $(BIN)/python -m mutmut run --max-children 2 $(MODULES)
	$(BIN)/python -m tests.proofs.survivors $(MODULES)
