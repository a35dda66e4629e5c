#!/usr/bin/env bash
# Sets up what is needed, builds, and tells the whole story on this machine.
# Arguments go to `edgewarden demo`; `--help` tells them.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
"$here/setup.sh"
[ -x "$(command -v cargo)" ] || . "$HOME/.cargo/env"
target=${CARGO_TARGET_DIR:-$here/../target}
echo "demo: building (some minutes the first time)" >&2
cargo build --release --locked --manifest-path "$here/../Cargo.toml"
export EDGEWARDEN_ONNXRUNTIME=${EDGEWARDEN_ONNXRUNTIME:-$here/../.deps/onnxruntime/libonnxruntime.so}
exec "$target/release/edgewarden" demo --models "$here/models" "$@"
