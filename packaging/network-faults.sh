#!/usr/bin/env bash
# Prints the table of network faults and what happened at each: the real agent, a real web server that plays them one
# after the other at metadata, manifests and model files, with the requests and the bytes counted. Takes a few minutes.
#
#   packaging/network-faults.sh [--large]
#
# --large   also takes a bundle of more than 4 GiB its whole way (9 GiB of disk, some minutes)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
[ -x "$(command -v cargo)" ] || . "$HOME/.cargo/env"
export PATH=$PWD/.deps/tools/bin:$PATH
export EDGEWARDEN_ONNXRUNTIME=${EDGEWARDEN_ONNXRUNTIME:-$PWD/.deps/onnxruntime/libonnxruntime.so}

tests=(network::)
case ${1:-} in
'') ;;
--large) export EDGEWARDEN_LARGE=1; tests+=(agent::large::) ;;
*) sed -n '2,7s/^# \{0,1\}//p' "$0" >&2; exit 64 ;;
esac

table=$(mktemp)
trap 'rm -f "$table"' EXIT
# One after the other, so that a busy machine is no fault of the network.
EDGEWARDEN_NETWORK_FAULTS=$table cargo test --locked --test it -- --test-threads 1 "${tests[@]}" >&2
cat "$table"
