# Everything the course needs, from a fresh clone. Each target sets up what it needs and skips what is already done.

PORT ?= 8000
# an interpreter to use instead of the first suitable one on the PATH
PYTHON ?=
# more options for pytest, such as ARGS="-k site"
ARGS ?=

PY := .venv/bin/python
PYTHAE := _build/pythae
SITE := _build/html/index.html
SITE_SOURCES := settings.ini tools/build_site.py tools/fetch_assets.py book/assets/package-lock.json \
	$(wildcard nbs/*.ipynb nbs/*.md nbs/*.bib nbs/images/* book/*.yml book/_ext/*.py book/static/*.* \
	book/static/widgets/*.js nbs/widgets/*.json vae_tutorial/*.py)

.DEFAULT_GOAL := help
.PHONY: help course site test test-all reproduce pretrained results bench faults mutate versions clean distclean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' Makefile

course: $(SITE)  ## build the course and serve it on http://127.0.0.1:8000 (PORT=8001 for another port)
	@$(PY) tools/serve_site.py --port $(PORT)

site: $(SITE)  ## build the course into _build/html
	@echo "The site is in _build/html"

test: .venv/.ready  ## check a change: package, notebooks, repository, the site in a browser (some minutes)
	@$(PY) -m pytest -m "not deep" $(ARGS)

test-all: .venv/.ready  ## run every check, those of `make test` and the deep ones (a quarter of an hour or more)
	@$(PY) -m pytest $(ARGS)

reproduce: .venv/.ready  ## run every page on the full data and store its outputs (goes on where it was stopped)
	@VAE_TUTORIAL_SOURCE=full $(PY) tools/execute_notebooks.py --resume
	@$(PY) tools/make_results.py

pretrained: .venv/.ready  ## train the models that the package ships, or take them from the chapters' finished runs
	@$(PY) tools/make_pretrained.py

results: .venv/.ready  ## write the results page, the reliability page and chapter 10's tables anew from the stored records
	@$(PY) tools/make_results.py
	@$(PY) tools/make_speed.py
	@$(PY) tools/make_reliability.py

bench: $(PYTHAE)/.ready  ## measure speed against common loops, pythae and the bare arithmetic (an hour and a half)
	@$(PY) benchmarks/training.py --pythae $(PYTHAE)/bin/python --compile --out benchmarks/results/training.json
	@$(PY) benchmarks/nll.py --pythae $(PYTHAE)/bin/python --out benchmarks/results/nll.json
	@$(PY) benchmarks/busy_core.py --out benchmarks/results/busy_core.json
	@$(PY) benchmarks/time_to_target.py --tune --epochs --seconds --out benchmarks/results/time_to_target.json
	@$(PY) tools/make_speed.py

faults: .venv/.ready  ## bring about every fault of the reliability page, as often as it says (an hour), and write the page
	@mkdir -p _build && rm -f _build/faults.jsonl
	@VAE_TUTORIAL_TRIALS=$(CURDIR)/_build/faults.jsonl $(PY) -m pytest --timeout=7200 $(wildcard tests/test_faults_*.py)
	@$(PY) tools/make_reliability.py _build/faults.jsonl

mutate: .venv/.ready  ## take out the guards of the reliability page, one at a time: its tests must fail
	@$(PY) tools/mutate.py
	@$(PY) tools/make_reliability.py

versions: .venv/.ready  ## try the lowest and the highest torch that the package allows (gigabytes of downloads)
	@$(PY) tools/try_versions.py lowest --out benchmarks/results/versions.json
	@$(PY) tools/try_versions.py highest --out benchmarks/results/versions.json

clean:  ## remove what was built, keep the installed packages
	rm -rf _build _proc _docs build dist book/static/mathjax book/static/widgets/manager .pytest_cache .hypothesis
	find tests tools book/_ext vae_tutorial -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean  ## remove the installed packages too
	rm -rf .venv *.egg-info book/assets/node_modules

$(SITE): .venv/.ready $(SITE_SOURCES)
	@$(PY) tools/build_site.py

.venv/.ready: settings.ini setup.py pyproject.toml constraints.txt tools/make_venv.sh
	@sh tools/make_venv.sh $(PYTHON)

# apart from .venv, for it brings packages that the course does without; torch is the same
$(PYTHAE)/.ready: .venv/.ready
	@echo "Installing pythae into $(PYTHAE)"
	@$(PY) -m venv --clear $(PYTHAE)
	@$(PYTHAE)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt pythae==0.1.2
	@touch $@
