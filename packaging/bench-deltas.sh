#!/usr/bin/env bash
# Deltas beside other tools, in one run: bytes over the wire as a share of the new file under zstd -19, time and memory.
#
#   [PROGRAM=...] packaging/bench-deltas.sh [--no-training]
#
# The pairs are MobileNetV2 with synthetic weights, and one that is trained and then fine-tuned here, which takes some
# minutes. PROGRAM names the benchmark `delta` that is built already. The other tools come from the system's packages.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
say() { printf 'bench-deltas: %s\n' "$*" >&2; }
train=--train
if [ "${1:-}" = --no-training ]; then train=; fi

needed=()
for pair in zstd:zstd xdelta3:xdelta3 bsdiff:bsdiff casync:casync zck_delta_size:zchunk; do
    command -v "${pair%%:*}" >/dev/null || needed+=("${pair##*:}")
done
if [ ${#needed[@]} -gt 0 ]; then
    say "installing with apt: ${needed[*]}"
    if [ "$(id -u)" = 0 ]; then root=(env); else root=(sudo); fi
    "${root[@]}" apt-get update -q >&2
    "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "${needed[@]}" >&2
fi
python=$(./packaging/venv.sh bench-deltas numpy==2.4.6 onnx==1.23.2 ${train:+jax==0.10.2 jaxlib==0.10.2})
program=${PROGRAM:-$(packaging/bench-program.sh delta)}
work=target/bench-deltas
rm -rf "$work"
mkdir -p "$work"
say "making the pairs"
"$python" packaging/bench_deltas_models.py "$work" $train >&2
"$python" packaging/bench_deltas.py "$program" "$work"
