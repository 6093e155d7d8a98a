# Everything a contributor runs. `make help` lists it; the first target that needs them sets up the venv and all distributions.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help install demo dashboard-demo test test-all chaos soak fuzz test-libraries test-ray-clients test-openapi test-browser lint type proto proto-check docs docs-check site check bench images-local up down demo-compose certs ci clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(STAMP) ## set up .venv with all distributions (editable) and the development tools

$(STAMP): requirements.txt requirements-dev.txt constraints.txt $(wildcard common/pyproject.toml sdk/pyproject.toml services/*/pyproject.toml)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Shoal needs Python 3.11 or newer, and $(PYTHON) is " + sys.version.split()[0] + ": run make PYTHON=/path/to/python3.11 ...")'
	@echo "Setting up $(VENV): a minute or two the first time."
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -r requirements-dev.txt
	@touch $@

demo: $(STAMP) ## run the AutoML service on a cluster of this machine
	$(BIN)/python examples/automl/main.py

dashboard-demo: $(STAMP) ## the same with the dashboard, whose URL is printed
	$(BIN)/python examples/automl/main.py --dashboard

# Most tests wait for processes: three at a time keep two cores busy. The files go out in the order of their names, and
# those of tests/unit, which are short, fill the gaps at the end. TESTS=tests/unit runs a part.
WORKERS ?= 3
TESTS ?=
test: $(STAMP) ## run all tests, several files side by side
	$(BIN)/pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder --durations 25 $(TESTS)

test-all: ## run unit, contract and a part of integration on each installed Python, 3.11 to 3.14
	tests/every-python

chaos: $(STAMP) ## run the whole crash matrix of docs/failure-model.md, an hour; as root
	SHOAL_CHAOS=all $(BIN)/pytest tests/chaos/matrix $(TESTS)

MINUTES ?= 10
fuzz: $(STAMP) ## run the tests with random histories again and again, MINUTES=10; a failure prints how to repeat it
	@files=$$(grep -rlE --include='test_*.py' 'hypothesis|@walks' tests/unit); end=$$(($$(date +%s) + 60 * $(MINUTES))); \
	  while [ $$(date +%s) -lt $$end ]; do SHOAL_SEEDS=random $(BIN)/pytest -q -m 'hypothesis or walk' $$files || exit 1; done

# WHERE=embedded, cluster or compose: only there; compose takes a Docker engine and root, and has to be asked for.
WHERE ?=
soak: $(STAMP) ## work of every kind for MINUTES=10 while something dies every few seconds
	$(BIN)/python tests/chaos/soak/soak.py --minutes $(MINUTES) $(WHERE)

# LIBRARIES="modin daft" runs those. Each has some hundred megabytes of its own in .cache/libraries, kept between runs.
LIBRARIES ?=
test-libraries: $(STAMP) ## run libraries that stand on Ray, as they come from the package index, on Shoal
	$(BIN)/python tests/libraries/run.py $(LIBRARIES)

# Debian's chromium, and Playwright and axe-core from their package indexes, in .cache/browser.
test-browser: $(STAMP) ## open the dashboard's pages in a real browser, and take screenshots of them
	@test -x /usr/bin/chromium || { echo "It wants a browser: apt-get install chromium"; exit 1; }
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt 'playwright>=1.50,<2'
	mkdir -p .cache/browser && cd .cache/browser && npm pack axe-core@4.14.1 --silent >/dev/null && tar xzf axe-core-4.14.1.tgz package/axe.min.js
	$(BIN)/pytest tests/browser/pages.py

test-ray-clients: $(STAMP) ## run Ray's own commands (ray list, ray job, ...), in a venv of their own, on Shoal's dashboard
	$(BIN)/python tests/libraries/ray_clients.py

test-openapi: $(STAMP) ## run schemathesis, in a venv of its own, on what the dashboard says of its interface
	$(BIN)/python tests/libraries/openapi.py

lint: $(STAMP) ## style, formatting and import rules
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports

type: $(STAMP) ## mypy --strict
	$(BIN)/mypy

proto: $(STAMP) ## generate the stubs from proto/
	$(BIN)/python proto/generate.py

proto-check: $(STAMP) ## fail when the committed stubs are not what proto/ says
	$(BIN)/python proto/generate.py --check

docs: $(STAMP) ## write the pages that come out of the code
	$(BIN)/python docs/generate.py

docs-check: $(STAMP) ## fail when those pages are not what the code says
	$(BIN)/python docs/generate.py --check

# Without the note of its makers that there will be another MkDocs.
site: $(STAMP) ## build the documentation as a site in .cache/site; a warning is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

bench: $(STAMP) ## compare Shoal with Ray, multiprocessing and the machine's limits
	$(BIN)/python benchmarks/compare.py; compared=$$?; $(BIN)/python benchmarks/sweep.py; swept=$$?; \
	  $(BIN)/python benchmarks/scaling.py && exit $$((compared + swept))

images-local: $(STAMP) ## build all images of compose.yaml without an image registry
	$(MAKE) --no-print-directory --jobs --file docker/local/Makefile
	@echo "Built. Use them with: cp docker/local-images.env .env; make up"

# IMAGES is an env file that replaces images of compose.yaml; without it Compose reads .env, where there is one.
COMPOSE = docker compose $(if $(IMAGES),--env-file $(IMAGES))

# The driver's image, too, which is not started here: it must not stay behind the others.
# One after the other, as a builder without BuildKit makes what they share again for each that is built at the same time.
up: ## start the deployment of compose.yaml (IMAGES=docker/local-images.env: with local images)
	COMPOSE_PARALLEL_LIMIT=1 $(COMPOSE) --profile driver build
	$(COMPOSE) up --detach --wait

down: ## stop it, and delete its volumes
	$(COMPOSE) --profile driver down --volumes --remove-orphans

demo-compose: $(STAMP) ## run the AutoML service on the deployment that `make up` has started, from outside
	SHOAL_AUTH_TOKEN=$$($(COMPOSE) exec -T gateway cat /run/shoal/token) \
	  SHOAL_ADDRESS=shoal://$$($(COMPOSE) port gateway 10001) $(BIN)/python examples/automl/main.py

certs: ## make a trial authority and certificates for compose.tls.yaml in docker/certs
	docker/make-certs

check: lint type proto-check docs-check site ## what CI checks besides the tests

ci: check test ## all that CI checks

clean: ## remove the venv and all caches
	rm -rf $(VENV) .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
