#!/usr/bin/env bash
# Pins what pyproject.toml asks for, for every supported Python and platform, with the hash of each file.
#
# In:  pyproject.toml; uv, installed into a scratch environment, so that nothing else needs it.
# Out: requirements/dev.txt, which names packages, versions and hashes, and no address they come from.
#
# Versions already pinned are kept where they still fit; `scripts/lock.sh --upgrade` moves them to the newest.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
.venv/bin/python -m venv "$scratch"
"$scratch/bin/python" -m pip install -qq uv
"$scratch/bin/uv" pip compile pyproject.toml --group dev --extra eval --extra http --extra index --extra postgres \
    --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-header --no-annotate --quiet \
    --output-file requirements/dev.txt "$@"
if grep -nE '://|^-|#|file:|/' requirements/dev.txt; then
    echo "requirements/dev.txt names an address or a path; see the lines above." >&2
    exit 1
fi
# The few of them that go beside a PostgreSQL server.
.venv/bin/python scripts/server_requirements.py
