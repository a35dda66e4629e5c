#!/usr/bin/env bash
# Makes edgewarden-onnxruntime_VERSION_ARCH.deb from a wheel of ONNX Runtime, with plain dpkg-deb.
#
#   packaging/onnxruntime-deb.sh [--out FOLDER] WHEEL             from a wheel that you have
#   packaging/onnxruntime-deb.sh [--out FOLDER] --fetch [ARCH]    amd64 or arm64 (default: this machine), the pinned
#                                                                 version from PyPI
#
# The library and its neighbours go to /usr/lib/edgewarden/onnxruntime, with the notices of the wheel. A wheel of
# another name (onnxruntime_gpu, for CUDA and TensorRT) gives a package of another name that takes the place of the
# usual one: all of them provide edgewarden-onnxruntime-provider. Any machine can make the package of any other.
#
# A wheel of the pinned version (packaging/onnxruntime.sha256) must hold the pinned library. One wheel always gives
# the same bytes; SOURCE_DATE_EPOCH, when set, is the date in the package instead of the wheel's own.
set -euo pipefail
umask 022
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

say() { printf 'onnxruntime-deb: %s\n' "$*" >&2; }
die() { printf 'onnxruntime-deb: %s\n' "$*" >&2; exit 1; }
usage() { sed -n '4,6s/^#   //p' "${BASH_SOURCE[0]}" >&2; exit 64; }

out=. wheel='' fetch=''
while [ $# -gt 0 ]; do
    case $1 in
    --out) [ $# -ge 2 ] || usage; out=$2; shift ;;
    --fetch) fetch=${2:-$(dpkg --print-architecture)}; [ $# -lt 2 ] || shift ;;
    -*) usage ;;
    *) [ -z "$wheel" ] || usage; wheel=$1 ;;
    esac
    shift
done
[ -n "$wheel" ] && [ -n "$fetch" ] && usage
[ -n "$wheel$fetch" ] || usage
for tool in python3 dpkg-deb; do
    command -v "$tool" >/dev/null || die "$tool is missing: install it with apt, then run this again"
done

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

if [ -n "$fetch" ]; then
    case $fetch in
    amd64) machine=x86_64 ;;
    arm64) machine=aarch64 ;;
    *) die "there is no pinned ONNX Runtime for $fetch, only for amd64 and arm64; give a wheel for it instead" ;;
    esac
    version=$(awk -v machine="$machine" '$2 == machine { print $1 }' "$here/onnxruntime.sha256")
    say "fetching ONNX Runtime $version for $fetch from PyPI"
    # Any Python will do: the wheel is only unpacked, never installed.
    python3 -m pip download "onnxruntime==$version" --quiet --disable-pip-version-check --no-deps \
        --only-binary=:all: --platform "manylinux_2_28_$machine" --python-version 3.12 \
        --implementation cp --abi cp312 --dest "$scratch"
    wheel=$(ls "$scratch"/*.whl)
fi
[ -f "$wheel" ] || die "$wheel: no such file"

# Fills the package's tree; prints its file name and its date.
tree=$scratch/tree
mkdir "$tree"
described=$(python3 "$here/onnxruntime_deb.py" "$wheel" "$here/onnxruntime.sha256" "$tree") || exit 1
read -r name date <<<"$described"

# Same bytes on every machine: dates, owners, order (dpkg-deb sorts), one thread of compression.
find "$tree" -exec touch --no-dereference --date="@$date" {} +
mkdir -p "$out"
SOURCE_DATE_EPOCH=$date DPKG_DEB_THREADS_MAX=1 \
    dpkg-deb --root-owner-group -Zxz -z6 --build "$tree" "$scratch/$name" >/dev/null
mv "$scratch/$name" "$out/$name"
say "$out/$name, $(stat -c %s "$out/$name") bytes"
