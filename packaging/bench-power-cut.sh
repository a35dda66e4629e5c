#!/usr/bin/env bash
# The cost of a power cut: from the start of the agent to the first inference of the right model.
#
#   packaging/bench-power-cut.sh [--rounds N]
#
# Five kills at each stage of an update, and five with nothing under way to compare with. PROGRAM names another binary than that of a release build. Run it on a machine that is otherwise idle.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

library=${EDGEWARDEN_ONNXRUNTIME:-$PWD/.deps/onnxruntime/libonnxruntime.so}
if [ -z "${PROGRAM:-}" ]; then
    ./packaging/setup.sh
    # shellcheck source=/dev/null
    [ -x "$(command -v cargo)" ] || . "$HOME/.cargo/env"
    printf 'bench: building; this takes some minutes the first time\n' >&2
    cargo build --release --locked --quiet
    PROGRAM=${CARGO_TARGET_DIR:-target}/release/edgewarden
fi
PYTHONDONTWRITEBYTECODE=1 python3 packaging/bench_power_cut.py "$PROGRAM" packaging/models/v1 packaging/models/v1/golden/1.jpg \
    "$library" "$@"
