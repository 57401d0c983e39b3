# make demo: build images and show them.   make test: run the tests.   make check: what to run while working.
# Each installs what is missing.
PYTHON := .venv/bin/python
# Files are handed out in the order of their names: the long ones of tests/integration come first. Three processes keep
# two cores busy, as a third of the time is waiting: for packages, for programs that sleep.
PARALLEL := -n 3 --dist loadfile --no-loadscope-reorder

.PHONY: demo test test-long check fuzz path-calls coverage bench pods lint clean

demo:
	tools/install demo
	tools/demo

test:
	tools/install test
	tools/in-memory $(PYTHON) -m pytest $(PARALLEL)

test-long:
	tools/install test
	$(PYTHON) -m pytest $(PARALLEL) -m "long or not long" --long

# Format, lint, types and the tests that need neither root nor much time; PYTHON=python3.12 for another interpreter.
check:
	tools/check "$(PYTHON)"

# Input by chance for every parser, for SECONDS in all.
SECONDS := 60
fuzz:
	tools/install test
	$(PYTHON) -m pytest tests/fuzz --fuzz-seconds=$(SECONDS) --timeout=0

# Random calls with paths in a MODE for commands without rights, compared with those in a chroot(2); needs root.
CALLS := 100000
MODE := traced
path-calls:
	tools/install test
	tools/in-memory $(PYTHON) -m tests.fuzz.many_path_calls --calls $(CALLS) --mode $(MODE)

# The share of lines that the tests of `make check` reach.
coverage:
	tools/coverage

bench:
	tools/install bench
	$(PYTHON) -m bench.run
	$(PYTHON) -m bench.transfers

pods:
	tools/install test
	$(PYTHON) -m bench.pods

lint:
	tools/install lint
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

clean:
	rm -rf .venv .work build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
