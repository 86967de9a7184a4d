# Two commands do everything on a fresh machine: make run, make test. `make help` lists the rest.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: help setup run test lint bench faults end-to-end
help:
	@echo "make run         the gateway on SQLite with a sample policy and a small sample campaign"
	@echo "make test        lint, types and all tests; installs RabbitMQ and PostgreSQL where they are missing"
	@echo "make lint        lint and types alone"
	@echo "make end-to-end  the long form of all end-to-end tests: 20 000 requests, kill -9, two gateways"
	@echo "make faults      the long form of the crash test: kill -9 in the middle of 20 000 requests"
	@echo "make bench       the benchmark table (installs Redis for what it is compared with)"

setup: .venv/ready
.venv/ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Decorum needs Python 3.11 or later; name one with PYTHON=…" >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[fast]'
	@touch $@

.venv/ready-for-tests: .venv/ready
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[fast,test]'
	@touch $@

.venv/ready-for-bench: .venv/ready-for-tests
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[fast,test,bench]'
	@touch $@

run: setup
	$(BIN)/decorum demo

lint: .venv/ready-for-tests
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

test: lint
	@sh tests/install-servers rabbitmq-server amqp-tools postgresql
	$(BIN)/pytest --numprocesses 2 --dist loadfile

end-to-end: .venv/ready-for-tests
	@sh tests/install-servers rabbitmq-server amqp-tools postgresql
	$(BIN)/pytest tests/end_to_end -m full --timeout 1800

faults: .venv/ready-for-tests
	@sh tests/install-servers rabbitmq-server amqp-tools postgresql
	$(BIN)/pytest tests/end_to_end/test_crash.py -m full --timeout 1800

bench: .venv/ready-for-bench
	@sh tests/install-servers rabbitmq-server amqp-tools postgresql redis-server
	$(BIN)/python -m tests.benchmarks
