#!/usr/bin/env bash
# Time per frame, in one run on one machine: the bare session.run, this program by stage, a Python loop
# with OpenCV and onnxruntime that does the same work on the same picture, and the whole path of a
# running device.
#
#   [PROGRAM=... LOOP=...] packaging/bench.sh [BUNDLE [PICTURE [FRAMES]]]
#
# Without arguments it takes UltraFace where ../shared/data is (as published, and with its graph cleaned),
# else the demo's model, and a classifier of 224x224 that is made here. It sets up all that it needs; the
# Python parts are pinned and lie in .deps/bench-venv. All take turns in several rounds (ROUNDS, 2), so that
# a machine that slows down slows all of them. Quiet the machine: what else runs is measured too.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

./packaging/setup.sh
[ -x "$(command -v cargo)" ] || . "$HOME/.cargo/env"
export EDGEWARDEN_ONNXRUNTIME=${EDGEWARDEN_ONNXRUNTIME:-$PWD/.deps/onnxruntime/libonnxruntime.so}
say() { printf 'bench: %s\n' "$*" >&2; }

data=../shared/data
work=target/bench
rounds=${ROUNDS:-2}
frames=${3:-60}
seconds=${SECONDS_A_PATH:-5}
mkdir -p "$work"

python=$(./packaging/venv.sh bench onnxruntime==1.31.1 opencv-python-headless==4.12.0.88 'numpy>=2,<2.3' onnx==1.19.0)

# PROGRAM and LOOP name programs that are built already. The benchmark's own file is run, so that a round does
# not wait for Cargo; making it makes the program as well.
program=${PROGRAM:-target/release/edgewarden}
loop=${LOOP:-}
if [ -z "${PROGRAM:-}" ] || [ -z "$loop" ]; then
    say "building; this takes some minutes the first time"
    # As it is shipped.
    loop=$(packaging/small.sh cargo bench --locked --bench frame --no-run --message-format json |
        "$python" -c 'import json, sys
for line in sys.stdin:
    made = json.loads(line)
    if made.get("executable") and made["target"]["name"] == "frame": print(made["executable"])')
fi

if [ $# -ge 1 ]; then
    printf 'bundle %s %s\n' "$1" "${2:-packaging/models/v2/golden/1.jpg}" > "$work/models"
else
    "$python" packaging/bench_models.py "$program" "$work" "$data" > "$work/models"
fi

# One JSON object a line: what was measured, on which model, with how many threads.
results=$work/results.jsonl
: > "$results"
note() { printf '{"model": "%s", "threads": %s, "who": "%s", "result": %s}\n' "$1" "$2" "$3" "$4" >> "$results"; }
path() { "$python" packaging/bench_path.py "$program" "$1" "$2" "$EDGEWARDEN_ONNXRUNTIME" "$3" "$4" "$5"; }
field() { "$python" -c 'import json, sys; print(json.load(sys.stdin)[sys.argv[1]])' "$1"; }
# A camera a third faster than the bare run of that many milliseconds, so that there always is a newer frame.
faster() { awk -v bare="$1" 'BEGIN { fps = 1333 / bare; print (fps < 1000 ? int(fps) : 1000) }'; }
for round in $(seq "$rounds"); do
    for threads in 1 2; do
        while read -r name bundle picture <&3; do
            say "round $round of $rounds: $name, threads: $threads"
            result=$("$loop" "$bundle" "$picture" "$frames" $threads)
            note "$name" $threads ours "$result"
            bare=$(field bare_run <<< "$result")
            result=$("$python" packaging/bench.py "$bundle" "$picture" "$frames" $threads)
            note "$name" $threads python "$result"
            result=$("$python" packaging/bench.py "$bundle" "$picture" "$frames" $threads ahead)
            note "$name" $threads python_ahead "$result"
            result=$(path "$bundle" "$picture" "$seconds" $threads "$(faster "$bare")")
            note "$name" $threads path "$result"
            # Once more: the bare run that the path is held against is that before and after it.
            result=$("$loop" "$bundle" "$picture" "$frames" $threads)
            note "$name" $threads after "$result"
        done 3< "$work/models"
    done
done
say "ten frames a second, and no model"
while read -r name bundle picture <&3; do
    result=$(path "$bundle" "$picture" "$seconds" 1 10)
    note "$name" 1 paced "$result"
    any=$picture
done 3< "$work/models"
result=$(path none "$any" 10 1 10)
note none 1 idle "$result"
"$python" packaging/bench_report.py "$results" "$frames" "$rounds"
