#!/usr/bin/env bash
# Power cuts at the block layer, with the real agent: one table (see crash-lab/lab.py for what must hold).
#
#   packaging/crash-lab.sh [--quick] [--seed N] [--disks N] [--only NAME] [--keep]
#
# Every block write of a first install, an update, a refused release, a rollback and one more update is recorded on a
# fresh ext4 and a fresh btrfs, and the agent is started on what a cut at each of them could leave. Then the same with
# syncs left out on purpose: files, folders, sled's file. About nine minutes on two cores, with --quick about three.
# PROGRAM names another binary than that of a release build.
#
# Runs as root (loop devices, mounts); not in a container without /dev/fuse.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

say() { printf 'crash-lab: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }
[ "$(id -u)" = 0 ] || die "needs root: it mounts file systems of its own"

# ---- tools ----

packages=(qemu-utils e2fsprogs btrfs-progs mosquitto mosquitto-clients strace gcc python3)
missing=()
for package in "${packages[@]}"; do
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
done
if [ ${#missing[@]} -gt 0 ]; then
    command -v apt-get >/dev/null || die "missing: ${missing[*]}; install them and run this again"
    say "installing with apt: ${missing[*]}"
    apt-get update -q
    DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends -o DPkg::Lock::Timeout=300 "${missing[@]}"
fi
command -v qemu-storage-daemon >/dev/null || DEBIAN_FRONTEND=noninteractive apt-get install -q -y \
    --no-install-recommends qemu-system-common # where Ubuntu has it
[ -e /dev/fuse ] || modprobe fuse || die "there is no /dev/fuse"
grep -qw btrfs /proc/filesystems || modprobe btrfs || die "this kernel has no btrfs"

# ---- program ----

library=${EDGEWARDEN_ONNXRUNTIME:-$PWD/.deps/onnxruntime/libonnxruntime.so}
if [ -z "${PROGRAM:-}" ]; then
    ./packaging/setup.sh
    # shellcheck source=/dev/null
    [ -x "$(command -v cargo)" ] || . "$HOME/.cargo/env"
    say "building; this takes some minutes the first time"
    cargo build --release --locked --quiet
    PROGRAM=${CARGO_TARGET_DIR:-target}/release/edgewarden
fi

# ---- the lab ----

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cc -shared -fPIC -O1 -Wall -Wextra -Werror -o "$scratch/nosync.so" packaging/crash-lab/nosync.c
# Thousands of small images: in memory, where there is room.
room=$(df --output=avail -k /dev/shm 2>/dev/null | tail -n1 || echo 0)
if [ -z "${TMPDIR:-}" ] && [ "${room:-0}" -gt 3000000 ]; then export TMPDIR=/dev/shm; fi
PYTHONDONTWRITEBYTECODE=1 python3 packaging/crash-lab/lab.py "$PROGRAM" "$library" packaging/models "$scratch/nosync.so" "$@"
