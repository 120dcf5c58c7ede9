# make demo | check | test | coverage | pythons | lint | lab | lab-shell | bench | deb | zipapp | sbom | clean. Everything is installed into a virtual environment in .venv.
PYTHON ?= python3
VENV ?= .venv
OUT ?= .
BIN := $(VENV)/bin

.PHONY: demo check test coverage pythons lint lab lab-shell bench deb zipapp sbom clean

# Intervals are said, for an aggregation of those that fit would be as long as a phase of this workload. Without root only
# smaps can be used, which needs longer ones for a target of this size; for a demo, it may cost.
DEMO_INTERVALS := $(shell [ "$$(id -u)" = 0 ] && echo --sample 5ms || echo --sample 40ms --aggr 400ms)

# A workload with a known pattern (ten 10 MB ranges, each hot in turn) is monitored and shown.
demo: $(VENV)/.plot
	$(BIN)/pydamon doctor
	@echo "Fixed, short intervals: a phase of the workload lasts 1.5 s; left to itself, an aggregation would come to that."
	$(BIN)/pydamon record -o $(OUT)/demo.damon --duration 15s $(DEMO_INTERVALS) -- \
		$(BIN)/pydamon workload stairs --time-scale 0.29 >/dev/null
	$(BIN)/pydamon report heatmap -i $(OUT)/demo.damon
	$(BIN)/pydamon report wss -i $(OUT)/demo.damon
	$(BIN)/pydamon report heatmap -i $(OUT)/demo.damon -o $(OUT)/heatmap.png

# While one works: what needs no process of its own and takes no seconds, on all CPUs.
check: lint
	$(BIN)/pytest -q -m "not processes and not truth and not slow" -n auto

# Everything that this machine can. One test after the other: those that start processes measure what this machine does
# with them, and all but a few seconds are theirs. What fails is run once more, alone.
test: lint
	.ci/tests $(BIN)/pytest

# How much of the code the tests reach; those of the guest lab are not counted, nor what runs in other processes.
coverage: $(VENV)/.dev
	$(BIN)/pytest -q --cov --cov-report=term:skip-covered --cov-report=html:build/coverage

# What check tests, under each Python that this machine has (CONTRIBUTING.md has a table).
pythons:
	.ci/pythons

lint: $(VENV)/.dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

# The tests that need a kernel with everything, in a virtual machine: see lab/README.md. KERNEL=7.3 for the newest one.
LAB_OPTIONS := --python $(BIN)/python $(if $(KERNEL),--kernel $(KERNEL))

lab: $(VENV)/.dev
	lab/run $(LAB_OPTIONS) --junit build/guest-junit.xml
	lab/run $(LAB_OPTIONS) --nodes 3 --hmat --balloon --disk 256M --append printk.time=1 -- \
		$(BIN)/python -m pytest -v lab/test_guest_options.py

lab-shell: $(VENV)/.dev
	lab/shell $(LAB_OPTIONS)

bench: $(VENV)/.dev
	$(BIN)/python -m benchmarks

# A Debian package with an environment of its own, for the Python of the machine that it is built on.
deb:
	packaging/debian/build

# One file that unpacks itself; it needs the Python that it was made with.
zipapp: $(VENV)/.dev
	@mkdir -p build
	$(BIN)/shiv --quiet -c pydamon -p '/usr/bin/env python3' --compressed -o build/pydamon.pyz .

# What a package of it holds, as CycloneDX: of an environment with nothing else in it.
sbom: $(VENV)/.dev
	rm -rf build/bare && $(PYTHON) -m venv build/bare
	build/bare/bin/pip install --quiet --disable-pip-version-check .
	build/bare/bin/pip uninstall --quiet --yes pip setuptools
	$(BIN)/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible -o build/sbom.json build/bare/bin/python
	rm -rf build/bare

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "pydamon needs Python 3.11 or newer; set PYTHON=python3.x" >&2; exit 3; }
	@$(PYTHON) -m venv $(VENV) || \
		{ rm -rf $(VENV); echo "on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 3; }

$(VENV)/.plot: pyproject.toml | $(VENV)/bin/python
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[plot]'
	@touch $@

$(VENV)/.dev: pyproject.toml | $(VENV)/bin/python
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@ $(VENV)/.plot

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .grimp_cache .coverage $(OUT)/demo.damon $(OUT)/heatmap.png
