#!/usr/bin/env bash
# Runs the tests of the SQL side on PostgreSQL 17 with pgvector, in a Debian 13 tree on whatever Linux this is.
#
#     sudo scripts/debian13.sh [ARGUMENTS FOR PYTEST]     # none: tests/extension and tests/postgres
#
# In:  root's rights, debootstrap, and a Debian mirror: the one of this machine's apt, or DEBIAN_MIRROR.
# Out: pytest's output and exit status. The tree stays in TINYDANCER_DEBIAN13 (default /var/tmp/tiny_dancer_debian13,
#      about 1 GB) for the next run; what it is made of is in its stamps. Remove the directory to start from nothing.
#
# Everything runs in mount and process namespaces of its own: whatever happens, the kernel takes the mounts and the
# servers away with the script. The repository is mounted read-only.
set -euo pipefail
repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

readonly suite=trixie
readonly packages=(postgresql-17 postgresql-plpython3-17 postgresql-17-pgvector python3 python3-venv util-linux)
readonly tree=${TINYDANCER_DEBIAN13:-/var/tmp/tiny_dancer_debian13}
readonly inside=/tiny-dancer

fail() {
    echo "scripts/debian13.sh: $*" >&2
    exit 2
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
    env --unset=PYTHONPATH HOME=/root LC_ALL=C.UTF-8 PATH=/usr/sbin:/usr/bin:/sbin:/bin chroot "$tree" "$@"
}

# Names and certificates of the outer world, which may be the machine's own.
connect_tree() {
    cp --dereference /etc/resolv.conf /etc/hosts "$tree/etc/"
    local bundle=/etc/ssl/certs/ca-certificates.crt
    if [[ -f $bundle ]]; then
        install -D -m 644 "$bundle" "$tree$bundle"
    fi
}

make_tree() {
    local stamp=$tree/packages.stamp wanted from
    wanted="$suite ${packages[*]}"
    if [[ -f $stamp && $(<"$stamp") == "$wanted" ]]; then
        return
    fi
    from=$(mirror)
    [[ -n $from ]] || fail "apt names no Debian mirror here; name one with DEBIAN_MIRROR=..., after apt-get update."
    echo "Making a Debian 13 tree in $tree (once; some minutes)" >&2
    # A tree that was left half made is no basis.
    rm -rf "$tree"
    mkdir -p "$tree"
    debootstrap --variant=minbase "$suite" "$tree" "$from" >"$tree.log" 2>&1 || fail "debootstrap failed, see $tree.log"
    connect_tree
    # No cluster and no service: the tests make their own.
    mkdir -p "$tree/etc/postgresql-common"
    echo 'create_main_cluster = false' >"$tree/etc/postgresql-common/createcluster.conf"
    printf '#!/bin/sh\nexit 101\n' >"$tree/usr/sbin/policy-rc.d"
    chmod +x "$tree/usr/sbin/policy-rc.d"
    {
        in_tree apt-get update
        in_tree env DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends \
            -o Dpkg::Options::=--force-confold "${packages[@]}"
        in_tree apt-get clean
    } >>"$tree.log" 2>&1 || fail "apt-get failed in the tree, see $tree.log"
    echo "$wanted" >"$stamp"
}

make_environment() {
    local stamp=$tree/environment.stamp wanted
    wanted=$(cd "$repository" && cksum requirements/dev.txt pyproject.toml src/tinydancer/_version.py)
    if [[ -f $stamp && $(<"$stamp") == "$wanted" ]]; then
        return
    fi
    echo "Installing the pinned packages for the tree's Python" >&2
    rm -rf "$tree/venv"
    in_tree python3 -m venv /venv
    local pip=(in_tree /venv/bin/python -m pip --disable-pip-version-check --no-input -qq)
    "${pip[@]}" install --require-hashes --only-binary :all: -r "$inside/requirements/dev.txt"
    "${pip[@]}" install --no-deps --no-build-isolation --editable "$inside"
    echo "$wanted" >"$stamp"
}

main() {
    [[ $(id -u) == 0 ]] || fail "chroot and mounts need root; run it with sudo."
    local needed
    for needed in debootstrap unshare chroot; do
        command -v "$needed" >/dev/null || fail "$needed is missing; on Debian: apt-get install debootstrap util-linux"
    done
    if [[ ${1:-} != --in-namespace ]]; then
        # Two runs would use one tree.
        exec 9>"$tree.lock"
        flock 9
        unshare --mount --propagation private --pid --fork --kill-child "$BASH" "${BASH_SOURCE[0]}" --in-namespace "$@"
        return
    fi
    shift

    mkdir -p "$tree"
    make_tree
    connect_tree
    mkdir -p "$tree$inside" "$tree/dev/shm"
    mount --rbind /dev "$tree/dev"
    mount -t proc proc "$tree/proc"
    mount --bind "$repository" "$tree$inside"
    mount -o remount,bind,ro "$tree$inside"
    make_environment

    local chosen=("$@")
    if ((${#chosen[@]} == 0)); then
        chosen=(tests/extension tests/postgres)
    fi
    in_tree env PG_CONFIG=/usr/lib/postgresql/17/bin/pg_config PYTHONDONTWRITEBYTECODE=1 \
        HYPOTHESIS_STORAGE_DIRECTORY=/var/tmp/hypothesis \
        bash -c 'cd "$1" && shift && exec /venv/bin/python -m pytest -o cache_dir=/var/tmp/pytest "$@"' \
        - "$inside" "${chosen[@]}"
}

main "$@"
