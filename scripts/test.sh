#!/usr/bin/env bash
# Runs the tests, then holds the pure floors to their coverage.
#
# In:  arguments for pytest, none as a rule; .venv made by scripts/setup.sh.
# Out: the tests' output, the coverage per floor and, last, pytest's own closing line: what a reader looks for first.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

log=$(mktemp)
trap 'rm -f "$log"' EXIT
.venv/bin/python -m pytest --cov --cov-report= "$@" | tee "$log"
.venv/bin/python scripts/coverage_gate.py
tail -n 1 "$log"
