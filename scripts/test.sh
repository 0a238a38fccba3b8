#!/usr/bin/env bash
# Runs the tests, then holds the pure floors to their coverage. Meanwhile, on another core, the tests of the SQL side run
# once more on PostgreSQL 17 with pgvector, where that can be done (scripts/debian13.sh).
#
# In:  arguments for pytest, none as a rule; with any, only what they choose runs, and only here. .venv of setup.sh.
# Out: the tests' output, the coverage per floor, how it went on PostgreSQL 17 or why it was not tried and, last,
#      pytest's own closing line: what a reader looks for first.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly cannot=77 # what scripts/debian13.sh ends with where it can do nothing
scratch=$(mktemp -d)
beside=

clean_up() {
    if [[ -n $beside ]] && kill "$beside" 2>/dev/null; then
        wait "$beside" || true
    fi
    rm -rf "$scratch"
}
trap clean_up EXIT
trap 'exit 130' INT TERM HUP

if (($# == 0)); then
    as_root=()
    if [[ $(id -u) != 0 ]] && sudo -n true 2>/dev/null; then
        as_root=(sudo -n)
    fi
    "${as_root[@]}" scripts/debian13.sh >"$scratch/beside" 2>&1 </dev/null &
    beside=$!
fi

status=0
.venv/bin/python -m pytest --cov --cov-report= "$@" | tee "$scratch/here" || status=$?
if ((status == 0)); then
    .venv/bin/python scripts/coverage_gate.py || status=$?
fi

if [[ -n $beside ]]; then
    there=0
    wait "$beside" || there=$?
    beside=
    last=$(awk 'NF { line = $0 } END { print line }' "$scratch/beside")
    if ((there == 0)); then
        echo "PostgreSQL 17 with pgvector: $last"
    elif ((there == cannot)); then
        echo "PostgreSQL 17 with pgvector: NOT TESTED. $last"
    else
        cat "$scratch/beside"
        echo "PostgreSQL 17 with pgvector: FAILED. $last"
        if ((status == 0)); then status=$there; fi
    fi
fi
tail -n 1 "$scratch/here"
exit "$status"
