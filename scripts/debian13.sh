#!/usr/bin/env bash
# Runs the tests of the SQL side on PostgreSQL 17 with pgvector, in a Debian 13 tree on whatever Linux this is.
#
#     sudo scripts/debian13.sh [ARGUMENTS FOR PYTEST]     # none: the whole SQL side
#     sudo scripts/debian13.sh --run COMMAND [ARGUMENT]   # another command, in the repository's folder of the tree
#                                                         # (Python is /venv/bin/python there)
#
# In:  root's rights, debootstrap (installed where apt can), and a Debian mirror: the one of this machine's apt, or
#      DEBIAN_MIRROR.
# Out: the command's output and exit status; 77, with one sentence that says why, if it could not be started here.
#      The tree stays in TINYDANCER_DEBIAN13 (default /var/cache/tiny_dancer/debian13, about 1 GB) for the next run.
#
# Everything runs in mount and process namespaces of its own, which end with this script, however it ends: the kernel
# takes the mounts, the servers and the temporary files away. The repository is mounted read-only. Runs at the same
# time share the tree; whoever has to make it waits until nobody uses it.
set -euo pipefail
repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

readonly suite=trixie
readonly packages=(postgresql-17 postgresql-plpython3-17 postgresql-17-pgvector make python3 python3-venv util-linux)
readonly tree=${TINYDANCER_DEBIAN13:-/var/cache/tiny_dancer/debian13}
readonly inside=/tiny-dancer
readonly sql_side=(tests/extension tests/postgres tests/conformance)
# What no test of the SQL side imports, and would be most of the download.
readonly left_out='^(contourpy|fonttools|kiwisolver|mapie|matplotlib|mypy|pillow|ruff|scikit-learn|scipy|sentence-transformers|torch)=='
readonly cannot=77

fail() {
    echo "$*" >&2
    exit $cannot
}

# The first mirror of Debian itself, not of its security updates or of somebody else, that apt uses here.
mirror() {
    if [[ -n ${DEBIAN_MIRROR:-} ]]; then
        echo "$DEBIAN_MIRROR"
        return
    fi
    apt-get indextargets --format '$(LABEL)|$(COMPONENT)|$(REPO_URI)' 'Created-By: Packages' 2>/dev/null |
        awk -F '|' '$1 == "Debian" && $2 == "main" && !found { print $3; found = 1 }'
}

in_tree() {
    env --unset=PYTHONPATH --unset=VIRTUAL_ENV HOME=/root LC_ALL=C.UTF-8 PATH=/usr/sbin:/usr/bin:/sbin:/bin \
        TMPDIR=/tmp PIP_CACHE_DIR=/var/cache/pip chroot "$tree" "$@"
}

# debootstrap and pip ask neither apt's settings nor those of a pip outside of the tree.
take_over_settings() {
    local key value
    if command -v apt-config >/dev/null; then
        eval "$(apt-config shell proxy Acquire::http::Proxy secure_proxy Acquire::https::Proxy)"
        if [[ -n ${proxy:-} && $proxy != DIRECT ]]; then export http_proxy=$proxy; fi
        if [[ -n ${secure_proxy:-} && $secure_proxy != DIRECT ]]; then export https_proxy=$secure_proxy; fi
    fi
    for key in index-url extra-index-url trusted-host cert proxy; do
        if value=$(cd "$repository" && .venv/bin/python -m pip config get "global.$key" 2>/dev/null); then
            local name=${key^^}
            export "PIP_${name//-/_}=${value//$'\n'/ }"
        fi
    done
}

# Names and certificates of the outer world, which may be the machine's own.
connect_tree() {
    cp --dereference /etc/resolv.conf /etc/hosts "$tree/etc/"
    local bundle=/etc/ssl/certs/ca-certificates.crt
    if [[ -f $bundle ]]; then
        install -D -m 644 "$bundle" "$tree$bundle"
    fi
}

wanted_packages() {
    echo "$suite ${packages[*]}"
}

wanted_environment() {
    (cd "$repository" && cksum requirements/dev.txt pyproject.toml src/tinydancer/_version.py)
    echo "$left_out"
}

is_made() {
    [[ -f $tree/packages.stamp && $(<"$tree/packages.stamp") == "$(wanted_packages)" &&
        -f $tree/environment.stamp && $(<"$tree/environment.stamp") == "$(wanted_environment)" ]]
}

make_tree() {
    local from
    if [[ -f $tree/packages.stamp && $(<"$tree/packages.stamp") == "$(wanted_packages)" ]]; then
        return
    fi
    from=$(mirror)
    [[ -n $from ]] || fail "apt names no Debian mirror here; name one with DEBIAN_MIRROR=..., after apt-get update."
    echo "Making a Debian 13 tree in $tree (once; two minutes)" >&2
    # A tree that was left half made is no basis.
    rm -rf "$tree"
    mkdir -p "$tree/etc/dpkg/dpkg.cfg.d" "$tree/etc/postgresql-common" "$tree/usr/sbin"
    # Whether a power failure would leave it whole is of no interest.
    echo force-unsafe-io >"$tree/etc/dpkg/dpkg.cfg.d/fast"
    debootstrap --variant=minbase "$suite" "$tree" "$from" >"$tree.log" 2>&1 ||
        fail "debootstrap failed, see $tree.log: $(tail -n 1 "$tree.log")"
    connect_tree
    # No cluster and no service: the tests make their own.
    echo 'create_main_cluster = false' >"$tree/etc/postgresql-common/createcluster.conf"
    printf '#!/bin/sh\nexit 101\n' >"$tree/usr/sbin/policy-rc.d"
    chmod +x "$tree/usr/sbin/policy-rc.d"
    {
        in_tree apt-get update
        in_tree env DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends \
            -o Dpkg::Options::=--force-confold "${packages[@]}"
        in_tree apt-get clean
    } >>"$tree.log" 2>&1 || fail "apt-get failed in the tree, see $tree.log: $(tail -n 1 "$tree.log")"
    wanted_packages >"$tree/packages.stamp"
}

make_environment() {
    echo "Installing the pinned packages for the tree's Python" >&2
    rm -rf "$tree/venv"
    in_tree python3 -m venv /venv
    local pip=(in_tree /venv/bin/python -m pip --disable-pip-version-check --no-input -qq)
    # A package's lines in the lock file go on, indented, with its hashes.
    awk -v left_out="$left_out" '/^[a-z0-9]/ { out = $0 ~ left_out } !out' "$repository/requirements/dev.txt" \
        >"$tree/var/tmp/requirements.txt"
    "${pip[@]}" install --require-hashes --no-deps --only-binary :all: -r /var/tmp/requirements.txt &&
        "${pip[@]}" install --no-deps --no-build-isolation --editable "$inside" ||
        fail "pip failed in the tree $tree."
    wanted_environment >"$tree/environment.stamp"
}

mount_all() {
    mkdir -p "$tree$inside" "$tree/dev/shm"
    mount --rbind /dev "$tree/dev"
    mount -t proc proc "$tree/proc"
    mount -t tmpfs tmpfs "$tree/tmp"
    mount --bind "$repository" "$tree$inside"
    mount -o remount,bind,ro "$tree$inside"
}

# Inside the namespaces. The lock is held from outside: exclusively while the tree is made, else shared.
inside_namespaces() {
    local mode=$1
    shift
    if [[ $mode == make ]]; then
        take_over_settings
        make_tree
        connect_tree
        mount_all
        make_environment
        return
    fi
    connect_tree
    mount_all
    in_tree env PG_CONFIG=/usr/lib/postgresql/17/bin/pg_config PYTHONDONTWRITEBYTECODE=1 \
        HYPOTHESIS_STORAGE_DIRECTORY=/var/tmp/hypothesis \
        bash -c 'cd "$1" && shift && exec "$@"' - "$inside" "$@"
}

# Ends with the script, whatever ends it: its own namespaces' first process is killed, and with it all others.
in_namespaces() {
    local status=0
    setpriv --pdeathsig KILL unshare --mount --propagation private --pid --fork --kill-child \
        "$BASH" "${BASH_SOURCE[0]}" --in-namespaces "$@" &
    first=$!
    trap 'kill -KILL "$first" 2>/dev/null; exit 130' INT TERM HUP
    wait "$first" || status=$?
    trap - INT TERM HUP
    return $status
}

main() {
    if [[ ${1:-} == --in-namespaces ]]; then
        shift
        inside_namespaces "$@"
        return
    fi
    local command=("${@:2}")
    if [[ ${1:-} != --run ]]; then
        command=(/venv/bin/python -m pytest -o cache_dir=/var/tmp/pytest "$@")
        if (($# == 0)); then command+=("${sql_side[@]}"); fi
    fi

    [[ $(id -u) == 0 ]] || fail "Mounting and changing the root directory need root: sudo scripts/debian13.sh"
    local needed
    if ! command -v debootstrap >/dev/null && command -v apt-get >/dev/null; then
        { apt-get update -qq && apt-get install -y -qq --no-install-recommends debootstrap; } >/dev/null 2>&1 || true
    fi
    for needed in debootstrap unshare setpriv flock chroot; do
        command -v "$needed" >/dev/null || fail "$needed is missing; on Debian: apt-get install debootstrap util-linux"
    done
    unshare --mount --pid --fork true 2>/dev/null || fail "This system does not let root mount anything."

    mkdir -p "$(dirname "$tree")"
    exec 9>"$tree.lock"
    flock --shared 9
    while ! is_made; do
        flock --unlock 9
        flock --exclusive 9
        is_made || in_namespaces make
        flock --shared 9
    done
    in_namespaces run "${command[@]}"
}

main "$@"
