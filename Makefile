# Aliases for dev.py, which needs no make and runs on every system.
PYTHON ?= python3

.PHONY: setup demo test check train-smoke bench
setup demo test check train-smoke bench:
	$(PYTHON) dev.py $@
