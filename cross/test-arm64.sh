#!/usr/bin/env bash
# Runs the program for arm64 on this machine, under QEMU, with ONNX Runtime's library for arm64, and compares its
# answers with those of the program for amd64:
#
#   cross/test-arm64.sh [ARM64-PROGRAM AMD64-PROGRAM]    else both are built, with cross/build.sh
#   cross/test-arm64.sh --unit [FILTER…]                 the unit tests instead, built for arm64
#
# The bundles are v1 of packaging/models and, where ../shared/data is, UltraFace on photographs. QEMU is called by
# name: nothing is registered with the kernel, so what starts children (`run`, `bench`, `check`) is not tested here.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. cross/toolchain.sh
[ "$(uname -m)" = x86_64 ] || die "this compares with a machine of x86-64 and runs only there"

# 7.2, Debian 12's own, crashes in ONNX Runtime.
cross/debian.sh .deps/qemu qemu-user:amd64/bookworm-backports
cross/debian.sh .deps/arm64 libc6:arm64 libgcc-s1:arm64 libstdc++6:arm64
emulator=($PWD/.deps/qemu/usr/bin/qemu-aarch64 -L "$PWD/.deps/arm64")
say "$("${emulator[0]}" --version | head -n1)"

# The pinned library, from the same package that a device gets.
runtime=$PWD/.deps/onnxruntime-arm64
if [ ! -f "$runtime/libonnxruntime.so" ] || [ packaging/onnxruntime.sha256 -nt "$runtime" ]; then
    scratch=$(mktemp -d)
    trap 'rm -rf "$scratch"' EXIT
    packaging/onnxruntime-deb.sh --out "$scratch" --fetch arm64
    dpkg-deb --extract "$scratch"/edgewarden-onnxruntime_*_arm64.deb "$scratch/tree"
    rm -rf "$runtime"
    mv "$scratch/tree/usr/lib/edgewarden/onnxruntime" "$runtime"
    touch "$runtime"
fi

if [ "${1-}" = --unit ]; then
    shift
    toolchain aarch64
    export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="${emulator[*]}"
    export EDGEWARDEN_ONNXRUNTIME=$runtime/libonnxruntime.so
    zig_cargo test --locked --lib --target "$target.2.31" --target-dir target/cross -- "$@"
    exit
fi

native=.deps/onnxruntime/libonnxruntime.so
[ -f "$native" ] || die "ONNX Runtime for this machine is missing: packaging/setup.sh fetches it"
case $# in
0) arm64=$(cross/build.sh aarch64) amd64=$(cross/build.sh x86_64) ;;
2) arm64=$1 amd64=$2 ;;
*) sed -n '5,6s/^#   //p' "${BASH_SOURCE[0]}" >&2; exit 64 ;;
esac
on_arm64() { EDGEWARDEN_ONNXRUNTIME=$runtime/libonnxruntime.so "${emulator[@]}" "$arm64" "$@"; }
on_amd64() { EDGEWARDEN_ONNXRUNTIME=$native "$amd64" "$@"; }

work=$(mktemp -d)
trap 'rm -rf "$work" ${scratch:+"$scratch"}' EXIT
failed=0

# Both answer; neither may fail.
both() {
    local name=$1
    shift
    on_amd64 "$@" >"$work/$name.amd64" || die "amd64: $* failed"
    on_arm64 "$@" >"$work/$name.arm64" || die "arm64: $* failed"
}
# Their answers on pictures, beside each other.
compared() {
    local name=$1
    shift
    both "$name" predict "$@"
    printf '\n%s: predict, amd64 | arm64\n' "$name"
    python3 cross/compare.py "$work/$name.amd64" "$work/$name.arm64" || failed=1
}
checked() {
    both "$1" bundle check "$2"
    printf '\n%s: bundle check, amd64, then arm64\n' "$1"
    cat "$work/$1.amd64" "$work/$1.arm64"
}

both version --version
printf 'amd64: %s\narm64: %s\n' "$(cat "$work/version.amd64")" "$(cat "$work/version.arm64")"
cmp -s "$work/version.amd64" "$work/version.arm64" || die "the two programs have different versions"

belt=packaging/models/v1
checked check-v1 "$belt"
compared v1 "$belt" "$belt"/golden/*.jpg

data=../shared/data
if [ -f "$data/ultraface/version-RFB-320.onnx" ]; then
    on_amd64 bundle init "$data/ultraface/version-RFB-320.onnx" "$work/faces" >&2
    python3 - "$work/faces/manifest.json" <<'PYTHON'
import json, pathlib, sys
path = pathlib.Path(sys.argv[1])
manifest = json.loads(path.read_text())
manifest["labels"] = ["face"]
manifest["inputs"][0].update(scale=1, mean=[127], std=[128])
manifest["decode"]["keep"].update(score_threshold=0.7, iou_threshold=0.3)
path.write_text(json.dumps(manifest))
PYTHON
    checked check-faces "$work/faces"
    compared faces "$work/faces" "$data"/frames/f*.jpg
else
    say "skipped: no UltraFace in $data"
fi
[ "$failed" = 0 ] || die "the answers differ"
say "the answers are the same within tolerance"
