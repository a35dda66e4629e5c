#!/usr/bin/env bash
# Makes waiting.ld anew: which functions the linker lays side by side, since the agent needs them while it waits.
#
#   packaging/waiting.sh
#
# Once in a while, and after a change of what the agent does each second or minute: the further waiting.ld is from the
# truth, the more memory the waiting agent takes (bench-idle.sh). It takes a release build and three minutes, needs to
# run on x86-64, and serves all processors. SECONDS_EACH is how long the agent is watched.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
program=${PROGRAM:-}
if [ -z "$program" ]; then
    ./packaging/setup.sh --tests
    [ -x "$(command -v cargo)" ] || . "$HOME/.cargo/env"
    packaging/small.sh cargo build --release --locked
    program=${CARGO_TARGET_DIR:-target}/release/edgewarden
fi
library=${EDGEWARDEN_ONNXRUNTIME:-$PWD/.deps/onnxruntime/libonnxruntime.so}
mosquitto=$(command -v mosquitto || echo /usr/sbin/mosquitto)
made=$(mktemp)
trap 'rm -f "$made"' EXIT
python3 packaging/waiting.py "$program" "$mosquitto" "$library" "${SECONDS_EACH:-90}" >"$made"
cp "$made" packaging/waiting.ld
# Cargo does not know that the program is made of it.
touch src/main.rs
printf 'waiting.sh: %s names in packaging/waiting.ld\n' "$(grep -c '\*(' packaging/waiting.ld)" >&2
