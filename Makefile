# Every target sets up what it needs first; that is instant when nothing has changed.
.DEFAULT_GOAL := help
.PHONY: help demo test test-vm check bench clean

# Without byte code on disk, every start of Python would compile everything again.
unexport PYTHONDONTWRITEBYTECODE

help:
	@echo 'make demo    a room of three models working on a task, on a real engine'
	@echo 'make test    all tests'
	@echo 'make test-vm those of the machine alone, which make its image first when there is none'
	@echo 'make check   format, lint, types, import contracts'
	@echo 'make bench   what the orchestrator itself costs'
	@echo 'make clean   remove what the above made: .venv, caches, build output'
	@echo 'Each of the first five sets up what it needs. PYTHON=python3.12 picks another interpreter.'

demo:
	@scripts/setup demo
	@.venv/bin/org demo

test:
	@scripts/setup test
	@scripts/test

test-vm:
	@scripts/setup test
	@scripts/test vm

check:
	@scripts/setup check
	@scripts/check

bench:
	@scripts/setup bench
	@.venv/bin/python -m bench

clean:
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .grimp_cache
	find src tests bench -name __pycache__ -type d -prune -exec rm -rf {} +
