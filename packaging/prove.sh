#!/usr/bin/env bash
# What this project says of itself, shown in one run on this machine: decoders beside Python, real streams,
# real camera drivers, speed beside the best Python, swaps, memory, and a soak with faults.
#
#   packaging/prove.sh [MINUTES]        MINUTES (10) are those of the soak; the whole takes about an hour
#
# Every part can be run alone. Nothing else should run on the machine meanwhile. What is missing is
# installed; where a part fails the others still run, and the exit status is 1.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

./packaging/setup.sh --tests || exit 1
[ -x "$(command -v cargo)" ] || . "$HOME/.cargo/env"
export EDGEWARDEN_ONNXRUNTIME=${EDGEWARDEN_ONNXRUNTIME:-$PWD/.deps/onnxruntime/libonnxruntime.so}

failed=()
part() {
    printf '\n=== %s: %s\n' "$1" "${*:2}"
    "${@:2}" || failed+=("$1")
}
part "decoders beside their Python references" cargo test --locked --lib inference::postprocess
part "RTSP, HTTP and H.264 from real servers and files" cargo test --locked --test it stream::real
part "cameras of the kernel's test driver" ./packaging/test-v4l2.sh
part "speed" ./packaging/bench.sh
part "swaps, memory and faults" ./packaging/soak.sh "${1:-10}"

printf '\n'
if [ ${#failed[@]} -gt 0 ]; then
    printf 'failed: %s\n' "${failed[@]}"
    exit 1
fi
echo "all parts were shown"
