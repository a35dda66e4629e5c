#!/usr/bin/env bash
# What the agent's own process takes while it has little to do (one frame a second): memory and processor, with MQTT
# and without.
#
#   [PROGRAM=...] [SECONDS_EACH=60] packaging/bench-idle.sh
#
# PROGRAM names the program that is built already, as it is shipped (small.sh). The difference of the two rows is the
# MQTT part: the client, the spool and the reports. "shared out" counts pages that several processes use by share; "heap"
# is what is no file's.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
program=${PROGRAM:-}
if [ -z "$program" ]; then
    [ -x "$(command -v cargo)" ] || . "$HOME/.cargo/env"
    packaging/small.sh cargo build --release --locked
    program=${CARGO_TARGET_DIR:-target}/release/edgewarden
fi
library=${EDGEWARDEN_ONNXRUNTIME:-$PWD/.deps/onnxruntime/libonnxruntime.so}
mosquitto=$(command -v mosquitto || echo /usr/sbin/mosquitto)
python3 packaging/bench_idle.py "$program" "$mosquitto" "$library" "${SECONDS_EACH:-60}"
