# make demo: build images and show them.   make test: run every test.   Both install what is missing.
PYTHON := .venv/bin/python
# Files are handed out in the order of their names: the long ones of tests/integration come first.
PARALLEL := -n 2 --dist loadfile --no-loadscope-reorder

.PHONY: demo test test-long bench pods lint clean

demo:
	tools/install demo
	tools/demo

test:
	tools/install test
	$(PYTHON) -m pytest $(PARALLEL)

test-long:
	tools/install test
	$(PYTHON) -m pytest $(PARALLEL) -m "long or not long" --long

bench:
	tools/install bench
	$(PYTHON) -m bench.run

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
