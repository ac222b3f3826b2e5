# Two commands: `make train` teaches the CNN handwritten digits, `make test` checks everything. Each prepares what it needs.
# Without make:  python .ci/setup.py train   and then   .venv/bin/python examples/mnist/train.py   (Windows: .venv\Scripts\python)
#                python .ci/setup.py test    and then   .venv/bin/python -m pytest

# The interpreter that makes .venv; .ci/setup.py looks for a newer one if this is older than 3.11.
PYTHON := $(shell for p in python3 python python3.14 python3.13 python3.12 python3.11; do command -v $$p && break; done)
VENV_PYTHON := .venv/bin/python
# More words for the job: make train ARGS="--epochs 3", make test ARGS="-k matmul"
ARGS :=

# Mesa's EGL calls an unset XDG_RUNTIME_DIR an error, and goes on unharmed; pyright would look for newer versions of itself.
export XDG_RUNTIME_DIR := $(or $(XDG_RUNTIME_DIR),$(CURDIR)/.venv)
export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1

.PHONY: help train test check venv format clean

help:
	@echo "make train   train the example CNN on handwritten digits      (ARGS=... goes to examples/mnist/train.py)"
	@echo "make test    format, lint, types and tests                    (ARGS=... goes to pytest)"
	@echo "make check   format, lint and types only"
	@echo "make format  rewrite the files as the formatter wants them"
	@echo "make venv    prepare .venv for all of these"
	@echo "make clean   remove .venv, caches and builds"

train:
	@$(PYTHON) .ci/setup.py train
	@$(VENV_PYTHON) examples/mnist/train.py $(ARGS)

test: check
	@$(VENV_PYTHON) -m pytest $(ARGS)

check: venv
	@$(VENV_PYTHON) -m ruff format --check
	@$(VENV_PYTHON) -m ruff check
	@$(VENV_PYTHON) -m pyright --pythonpath $(VENV_PYTHON)

format: venv
	@$(VENV_PYTHON) -m ruff format
	@$(VENV_PYTHON) -m ruff check --fix

venv:
	@$(PYTHON) .ci/setup.py test

clean:
	rm -rf .venv build dist .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
