#!/usr/bin/env bash
# Hot swaps under load, memory over many swaps, and an accelerated soak with faults: three tables.
#
#   packaging/soak.sh [MINUTES [BUNDLE PICTURE]]
#
# MINUTES (10) are those of the soak; the whole takes about a quarter of an hour more. Without a bundle it
# takes the demo's model. ROUNDS (20) swaps are measured on one core and as many with one to spare; SWAPS
# (100) are made for the memory. It sets up all that it needs; run it on a machine that is otherwise idle.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

./packaging/setup.sh
[ -x "$(command -v cargo)" ] || . "$HOME/.cargo/env"
library=${EDGEWARDEN_ONNXRUNTIME:-$PWD/.deps/onnxruntime/libonnxruntime.so}
say() { printf 'soak: %s\n' "$*" >&2; }

minutes=${1:-10}
bundle=${2:-packaging/models/v1}
picture=${3:-packaging/models/v1/golden/1.jpg}

python=$(./packaging/venv.sh soak paho-mqtt==2.1.0)

if [ -z "${PROGRAM:-}" ]; then
    say "building; this takes some minutes the first time"
    cargo build --release --locked --quiet
    PROGRAM=target/release/edgewarden
fi

cores="0;0,1"
[ "$(nproc)" -gt 1 ] || cores=0
bad=0
run() { "$python" packaging/soak.py "$1" "$PROGRAM" "$bundle" "$picture" "$library" "${@:2}" || bad=1; }
run swap --rounds "${ROUNDS:-20}" --cores "$cores"
run memory --swaps "${SWAPS:-100}"
run faults --minutes "$minutes"
exit "$bad"
