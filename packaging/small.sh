#!/usr/bin/env bash
# Runs a command that builds the program as it is shipped: small, and no slower for a frame. Sourced, it sets the
# shell's variables for such commands.
#
#   packaging/small.sh COMMAND…      such as: packaging/small.sh cargo build --release --locked
#
# Our own crate is built for size, but for its functions that look at every pixel or value: they have a name of their
# own for the compiler (`export_name = "hot_…"`), by which small-rustc.sh takes the wish for size off them.
# What Cargo.toml's profile names is built for speed, too.
set -euo pipefail
export CARGO_PROFILE_RELEASE_OPT_LEVEL=${CARGO_PROFILE_RELEASE_OPT_LEVEL:-z}
RUSTC_WRAPPER=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)/small-rustc.sh
export RUSTC_WRAPPER
[ "${BASH_SOURCE[0]}" = "$0" ] || return 0
[ $# -ge 1 ] || { sed -n '5s/^#   //p' "$0" >&2; exit 64; }
exec "$@"
