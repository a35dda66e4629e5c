#!/usr/bin/env bash
# The time of an install beside the floor: reading, hashing and writing the same bytes with sha256sum, cp and sync.
#
#   packaging/bench-install.sh [--size MB] [--rounds N]
#
# 300 random megabytes, three rounds, over HTTP on this machine; exit status 1 where the median ratio is above 1.5.
# What is measured lies under TMPDIR: name a folder on the disk that counts, not one in memory. PROGRAM names another binary than that of a release build. Run it on a machine that is otherwise idle.
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
PYTHONDONTWRITEBYTECODE=1 python3 packaging/bench_install.py "$PROGRAM" packaging/models/v1 packaging/models/v1/golden/1.jpg \
    "$library" "$@"
