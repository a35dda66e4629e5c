#!/usr/bin/env bash
# SIGKILL of the real agent at every call that changes or syncs a file, and at random: one table (see crash-lab/kills.py).
#
#   packaging/kill-lab.sh [--every N] [--random N] [--seed N]
#
# An update, a refused release and a rollback, each killed at its first such call, at its second, and so on; then 60 kills
# at random moments, one update after the other. About twelve minutes on two cores; with --every 10 about two.
# PROGRAM names another binary than that of a release build.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

die() { printf 'kill-lab: %s\n' "$*" >&2; exit 1; }
command -v mosquitto_pub >/dev/null || die "mosquitto_pub is missing: apt install mosquitto-clients"
library=${EDGEWARDEN_ONNXRUNTIME:-$PWD/.deps/onnxruntime/libonnxruntime.so}
if [ -z "${PROGRAM:-}" ]; then
    ./packaging/setup.sh
    # shellcheck source=/dev/null
    [ -x "$(command -v cargo)" ] || . "$HOME/.cargo/env"
    printf 'kill-lab: building; this takes some minutes the first time\n' >&2
    cargo build --release --locked --quiet
    PROGRAM=${CARGO_TARGET_DIR:-target}/release/edgewarden
fi
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cc -shared -fPIC -O1 -Wall -Wextra -Werror -pthread -o "$scratch/kill.so" tests/data/kill.c
room=$(df --output=avail -k /dev/shm 2>/dev/null | tail -n1 || echo 0)
if [ -z "${TMPDIR:-}" ] && [ "${room:-0}" -gt 1000000 ]; then export TMPDIR=/dev/shm; fi
PYTHONDONTWRITEBYTECODE=1 python3 packaging/crash-lab/kills.py "$PROGRAM" "$library" packaging/models "$scratch/kill.so" "$@"
