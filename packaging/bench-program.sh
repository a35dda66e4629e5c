#!/usr/bin/env bash
# Builds one of the benchmarks as the program is shipped, and prints where it is.
#
#   packaging/bench-program.sh NAME
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
[ -x "$(command -v cargo)" ] || . "$HOME/.cargo/env"
echo "bench-program: building $1; this takes some minutes the first time" >&2
packaging/small.sh cargo bench --locked --bench "$1" --no-run --message-format json | python3 -c '
import json, sys
for line in sys.stdin:
    made = json.loads(line)
    if made.get("executable") and made["target"]["name"] == sys.argv[1]: print(made["executable"])' "$1"
