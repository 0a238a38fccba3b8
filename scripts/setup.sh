#!/usr/bin/env bash
# Makes the virtual environment that every target of the Makefile uses.
#
# In:  pyproject.toml and requirements/dev.txt; PYTHON may name the interpreter to use.
# Out: .venv with the pinned packages and this project, editable. Silent, and free, when it is there already.
#
# A stamp, written last, says for which inputs .venv was made. It equals today's: nothing to do. It differs: update in
# place. It is missing, so a run was interrupted, or the interpreter behind .venv is gone: start again from nothing.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly requirements=requirements/dev.txt
readonly stamp=.venv/setup.stamp

# The interpreter's start is the only process worth avoiding here: a repeated `make` should cost nothing.
venv_version() {
    .venv/bin/python -I -S -c 'import sys; print(sys.version_info[:2])' 2>/dev/null
}

inputs() {
    printf '%s\n%s\n' "$PWD" "$1"
    cksum pyproject.toml "$requirements" src/tinydancer/_version.py scripts/setup.sh
}

up_to_date() {
    local version
    [[ -f $stamp ]] && version=$(venv_version) && [[ $(<"$stamp") == "$(inputs "$version")" ]]
}

# Succeeds when the interpreter runs, is recent enough and, where asked, can make a virtual environment with pip in it.
usable() {
    local imports=${2:-sys}
    "$1" -I -c "import sys, $imports; sys.exit(sys.version_info < (3, 11))" >/dev/null 2>&1
}

find_python() {
    local python
    for python in ${PYTHON:+"$PYTHON"} python3.11 python3.12 python3.13 python3 /usr/bin/python3; do
        if usable "$python" "${1:-sys}"; then
            echo "$python"
            return
        fi
    done
    return 1
}

# Runs apt-get as root, directly or through a sudo that asks no password; fails where neither is possible.
apt_install() {
    local root=()
    command -v apt-get >/dev/null || return 1
    if [[ $(id -u) != 0 ]]; then
        sudo -n true 2>/dev/null || return 1
        root=(sudo -n)
    fi
    echo "Installing Debian packages: $*" >&2
    "${root[@]}" apt-get update -qq >&2
    "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq -o Dpkg::Use-Pty=0 \
        --no-install-recommends "$@" >/dev/null
}

python_with_venv() {
    local python packages=(python3 python3-venv)
    if find_python venv,ensurepip; then
        return
    fi
    if python=$(find_python); then
        packages=("python$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')-venv")
    fi
    if apt_install "${packages[@]}" && find_python venv,ensurepip; then
        return
    fi
    echo "Tiny Dancer needs Python 3.11 or newer with its venv module; install it (on Debian, as root:" \
        "apt-get install ${packages[*]}) or name another interpreter with PYTHON=/path/to/python, then repeat." >&2
    return 1
}

main() {
    if up_to_date; then
        return
    fi
    # Two terminals may both find .venv out of date: the second waits, and then has nothing left to do.
    exec 9<"$requirements"
    if command -v flock >/dev/null; then
        flock 9
        if up_to_date; then
            return
        fi
    fi

    local python
    if [[ ! -f $stamp ]] || ! venv_version >/dev/null || ! [[ $(sed -n 1p "$stamp") == "$PWD" ]]; then
        python=$(python_with_venv)
        echo "Setting up .venv with $("$python" --version) (once; about half a minute)" >&2
        rm -rf .venv
        "$python" -m venv .venv
    else
        echo "Updating .venv" >&2
    fi
    rm -f "$stamp"
    local pip=(.venv/bin/python -m pip --disable-pip-version-check --no-input -qq)
    "${pip[@]}" install --require-hashes --only-binary :all: -r "$requirements"
    "${pip[@]}" install --no-deps --no-build-isolation --editable .
    inputs "$(venv_version)" >"$stamp"
}

main
