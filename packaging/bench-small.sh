#!/usr/bin/env bash
# Is one program slower for a frame than another, such as the one that is shipped (small.sh) than one built for speed?
# Both are measured in turn by their own command `bench`; what counts is the ratio.
#
#   packaging/bench-small.sh PROGRAM OTHER [BUNDLE PICTURE]
#
# Without a bundle it takes one of the demo's. ROUNDS: 5; SECONDS_A_ROUND: 3. The least of the rounds is told.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
[ $# -ge 2 ] || { sed -n '5s/^#   //p' "${BASH_SOURCE[0]}" >&2; exit 64; }
export EDGEWARDEN_ONNXRUNTIME=${EDGEWARDEN_ONNXRUNTIME:-$PWD/.deps/onnxruntime/libonnxruntime.so}
programs=("$1" "$2")
shift 2
[ $# -ge 2 ] || set -- packaging/models/v2 packaging/models/v2/golden/1.jpg

results=$(mktemp)
trap 'rm -f "$results"' EXIT
for _ in $(seq "${ROUNDS:-5}"); do
    for program in "${programs[@]}"; do
        "$program" bench "$1" --input "$2" --seconds "${SECONDS_A_ROUND:-3}" --threads 1 --providers cpu --json 2>/dev/null |
            tail -n1 >>"$results"
    done
done
python3 - "$results" <<'REPORT'
import json, sys
rounds = [json.loads(line)["settings"][0]["measured"] for line in open(sys.argv[1])]
print(f"{'milliseconds':16}{'first':>10}{'second':>10}{'ratio':>8}")
for stage in ("decode", "preprocess", "infer", "postprocess"):
    first, second = (min(one["stages"][stage] for one in rounds[which::2]) for which in (0, 1))
    print(f"{stage:16}{first:10.4f}{second:10.4f}{first / second if second else 1:8.2f}")
REPORT
