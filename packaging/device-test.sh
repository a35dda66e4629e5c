#!/usr/bin/env bash
# Tries the Debian packages as on a device: installs them with apt in a fresh Debian 12 with systemd as PID 1, and
# lives with them. Root only; on Debian 12, Ubuntu 22.04 or their like, x86-64.
#
#   packaging/device-test.sh [--vm] [--power N] [--arm64] [--only] [--keep] DEB...
#   packaging/device-test.sh --able
#
#   DEB...       the packages: edgewarden_VERSION_amd64.deb, edgewarden-onnxruntime_VERSION_amd64.deb; with --arm64
#                also those for arm64, whose answers are then compared with those of amd64
#   --vm         the everyday part in a qemu machine, where systemd-nspawn cannot boot; slow without KVM
#   --power N    also cut the power N times in the middle of updates, in a qemu machine
#   --arm64      also install, start, infer and update in an emulated arm64 machine
#   --only       leave out the everyday part
#   --keep       at a failure, wait with the machine running, to look into it
#   --able       only boots a Debian without any of our packages in a container: where that cannot be done here (no
#                root, no rights, no mirror), says `skipped: why` and ends with 77
#
# The everyday part: first start without configuration, broker with a password (LoadCredential), models over the air
# by command line and MQTT, a hung model and a frozen agent, systemd-analyze security, upgrade (also in the middle of
# an update), remove, purge. It takes some minutes; the cuts and arm64 take a quarter of an hour each without KVM.
# What is missing is installed with apt. The Debian is made once and kept in target/device; it has no network.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

say() { printf 'device-test: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }
usage() { sed -n '5,16s/^# \{0,3\}//p' "${BASH_SOURCE[0]}" >&2; exit 64; }

everyday=yes vm=no cuts=0 arm64=no able=no keep=() debs=()
# What it needs is not to be had here.
unable() {
    [ $able = no ] || { say "skipped: $*"; exit 77; }
    die "$*"
}
while [ $# -gt 0 ]; do
    case $1 in
    --vm) vm=yes ;;
    --power) [[ ${2:-} =~ ^[1-9][0-9]*$ ]] || usage; cuts=$2; shift ;;
    --arm64) arm64=yes ;;
    --only) everyday=no ;;
    --keep) keep=(--keep) ;;
    --able) able=yes ;;
    -*) usage ;;
    *) [ -f "$1" ] || die "$1: no such file"; debs+=("$(realpath "$1")") ;;
    esac
    shift
done
if [ $able = yes ]; then [ "${#debs[@]} $everyday $vm $cuts $arm64" = '0 yes no 0 no' ] || usage
else [ ${#debs[@]} -gt 0 ] || usage; fi
[ "$(id -u)" = 0 ] || unable "needs root, for a system of its own: run it with sudo"

# ---- the packages by processor ----

declare -A ours=([amd64]='' [arm64]='')
command -v dpkg-deb >/dev/null || unable "dpkg is missing: this needs Debian, Ubuntu or their like"
for deb in "${debs[@]}"; do
    arch=$(dpkg-deb -f "$deb" Architecture)
    for one in amd64 arm64; do
        case $arch in "$one" | all) ours[$one]+="$deb"$'\n' ;; esac
    done
done
debs_of() { mapfile -t debs <<<"${ours[$1]%$'\n'}"; [ -n "${debs[0]}" ] || die "no package for $1 was given"; }

# ---- what this needs ----

export PATH=$PATH:/usr/sbin:/sbin
missing=()
want() { command -v "$1" >/dev/null || missing+=("$2"); }
want python3 python3
want pgrep procps
want mmdebstrap mmdebstrap
[ -e /usr/share/keyrings/debian-archive-keyring.gpg ] || missing+=(debian-archive-keyring)
[ "$everyday$vm" != yesno ] || want systemd-nspawn systemd-container
if [ "$everyday$vm" = yesyes ] || [ "$cuts" -gt 0 ] || [ "$arm64" = yes ]; then
    want qemu-img qemu-utils
    want ssh openssh-client
    want mke2fs e2fsprogs
fi
if [ "$everyday$vm" = yesyes ] || [ "$cuts" -gt 0 ]; then want qemu-system-x86_64 qemu-system-x86; fi
if [ "$arm64" = yes ]; then
    want qemu-system-aarch64 qemu-system-arm
    want arch-test arch-test
    want qemu-aarch64-static qemu-user-static
fi
if [ ${#missing[@]} -gt 0 ]; then
    say "installing with apt: ${missing[*]}"
    apt-get update -q
    # Nothing that is there is taken away: where this fails, install them by hand.
    DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends --no-remove \
        -o DPkg::Lock::Timeout=300 "${missing[@]}" || unable "apt cannot install ${missing[*]}"
fi

# ---- the parts ----

home=${CARGO_TARGET_DIR:-$here/../target}/device
mkdir -p "$home"
home=$(realpath "$home")
# Two at once would make the same image.
exec {lock}>"$home/lock"
flock -n "$lock" || die "another device-test.sh runs with $home"

failed=()
part() {
    local name=$1
    shift
    printf '\n=== %s\n' "$name"
    # Not below the lock: what outlives this must not hold it.
    python3 "$here/device-test/run.py" "$@" {lock}>&- || { [ $? = 130 ] && exit 130; failed+=("$name"); }
}
image() { "$here/device-test/image.sh" "$@" {lock}>&-; }

if [ "$able" = yes ]; then
    # What making the image and booting it stand on, each with an answer of its own.
    unshare --mount --pid --fork --mount-proc true 2>/dev/null || unable "no rights to make namespaces here"
    probe=$(mktemp -d "$home/probe.XXXXXX")
    mknod "$probe/null" c 1 3 2>/dev/null || { rm -rf "$probe"; unable "no rights to make devices in $home"; }
    rm -rf "$probe"
    image container "$home/container" || unable "a Debian cannot be made here (see above)"
    python3 "$here/device-test/run.py" boot --container "$home/container" {lock}>&- && exit
    [ $? = 77 ] && unable "a plain Debian does not boot in a container here (see above)"
    exit 1
fi
if [ "$everyday" = yes ]; then
    if [ "$vm" = no ]; then
        debs_of "$(dpkg --print-architecture)"
        image container "$home/container"
        part "everyday, in a container" everyday --container "$home/container" "${keep[@]}" "${debs[@]}"
    else
        debs_of amd64
        image machine "$home/machine-amd64" amd64
        part "everyday, in a qemu machine" everyday --machine "$home/machine-amd64" "${keep[@]}" "${debs[@]}"
    fi
fi
if [ "$cuts" -gt 0 ]; then
    debs_of amd64
    image machine "$home/machine-amd64" amd64
    part "$cuts power cuts" power --machine "$home/machine-amd64" --cuts "$cuts" "${keep[@]}" "${debs[@]}"
fi
if [ "$arm64" = yes ]; then
    native=()
    if [ -n "${ours[amd64]}" ]; then
        debs_of amd64
        native=("${debs[@]/#/--native=}")
    fi
    debs_of arm64
    image machine "$home/machine-arm64" arm64
    part "arm64" short --machine "$home/machine-arm64" --arch arm64 "${native[@]}" "${keep[@]}" "${debs[@]}"
fi

printf '\n'
if [ ${#failed[@]} -gt 0 ]; then
    printf 'failed: %s\n' "${failed[@]}"
    exit 1
fi
echo "all parts are good"
