# Names for the commands in scripts/. Arguments travel in ARGS: make test ARGS="-k clock", make demo ARGS="--help".

.PHONY: help demo test lint fmt docs clean

help:  ## Show this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/' | expand -t 8

demo:  ## Install what the demo needs into .venv, once, and run it
	@scripts/setup demo
	@.venv/bin/predis demo $(ARGS)

test:  ## Install what development needs into .venv, once, and run every check and test
	@scripts/setup dev
	@scripts/test $(ARGS)

lint:  ## Style, types and import layers
	@scripts/setup dev
	@scripts/lint

fmt:  ## Mend what the style checker can mend by itself
	@scripts/setup dev
	@.venv/bin/ruff check --fix --quiet || true
	@.venv/bin/ruff format

docs:  ## Write the reference pages anew from the code
	@scripts/setup dev
	@.venv/bin/python scripts/reference.py

clean:  ## Remove caches, build outputs and .venv; never the data of an installation
	@scripts/clean
