#!/usr/bin/env bash
# Time per frame, in one run on one machine: the bare session.run, this program by stage, a Python loop
# with OpenCV and onnxruntime that does the same work on the same picture, and the whole path of a
# running device.
#
#   packaging/bench.sh [BUNDLE [PICTURE [FRAMES]]]
#
# Without arguments it takes UltraFace where ../shared/data is, else the demo's model. It sets up all that
# it needs; the Python parts are pinned and lie in .deps/bench-venv. The loops take turns in several
# rounds, so that a machine that slows down slows all of them.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

./packaging/setup.sh
[ -x "$(command -v cargo)" ] || . "$HOME/.cargo/env"
export EDGEWARDEN_ONNXRUNTIME=${EDGEWARDEN_ONNXRUNTIME:-$PWD/.deps/onnxruntime/libonnxruntime.so}
say() { printf 'bench: %s\n' "$*" >&2; }

data=../shared/data
work=target/bench
venv=.deps/bench-venv
python=$venv/bin/python
rounds=${ROUNDS:-5}
frames=${3:-100}
mkdir -p "$work"

if ! "$python" -m pip --version >/dev/null 2>&1; then
    rm -rf "$venv"
    if ! python3 -c 'import ensurepip' 2>/dev/null; then
        say "installing with apt: python3-venv"
        if [ "$(id -u)" = 0 ]; then root=(env); else root=(sudo); fi
        "${root[@]}" apt-get update -q
        "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends python3-venv
    fi
    say "making $venv"
    python3 -m venv "$venv"
fi
"$python" -m pip install --quiet --disable-pip-version-check --only-binary=:all: \
    onnxruntime==1.31.1 opencv-python-headless==4.12.0.88 'numpy>=2,<2.3'

# Makes the program as well. The benchmark's own file is run, so that a round does not wait for Cargo.
program=target/release/edgewarden
say "building; this takes some minutes the first time"
loop=$(cargo bench --locked --bench frame --no-run --message-format json |
    "$python" -c 'import json, sys
for line in sys.stdin:
    made = json.loads(line)
    if made.get("executable") and made["target"]["name"] == "frame": print(made["executable"])')

picture=${2:-}
if [ $# -ge 1 ]; then
    bundle=$1
elif [ -f "$data/ultraface/version-RFB-320.onnx" ]; then
    bundle=$work/ultraface
    "$program" bundle init --force "$data/ultraface/version-RFB-320.onnx" "$bundle" >/dev/null
    "$python" - "$bundle/manifest.json" <<'PYTHON'
import json, sys
path = sys.argv[1]
manifest = json.load(open(path))
manifest["inputs"][0].update(scale=1, mean=[127], std=[128])
manifest["decode"]["keep"].update(score_threshold=0.7, iou_threshold=0.3)
manifest["labels"] = ["face"]
json.dump(manifest, open(path, "w"))
PYTHON
    picture=${picture:-$data/frames/f00.jpg}
else
    bundle=packaging/models/v2
fi
if [ -z "$picture" ]; then
    # What the demo's models know, as large as a camera's picture.
    picture=$work/belt-1280x720.jpg
    "$python" - packaging/models/v2/golden/1.jpg "$picture" <<'PYTHON'
import sys, cv2
large = cv2.resize(cv2.imread(sys.argv[1]), (1280, 720), interpolation=cv2.INTER_CUBIC)
cv2.imwrite(sys.argv[2], large, [cv2.IMWRITE_JPEG_QUALITY, 85])
PYTHON
fi

: > "$work/rounds.jsonl"
for round in $(seq "$rounds"); do
    say "round $round of $rounds"
    for threads in 1 2; do
        ours=$("$loop" "$bundle" "$picture" "$frames" "$threads")
        theirs=$("$python" packaging/bench.py "$bundle" "$picture" "$frames" "$threads")
        printf '{"ours": %s, "theirs": %s}\n' "$ours" "$theirs" >> "$work/rounds.jsonl"
    done
done
say "the whole path"
path=$("$python" packaging/bench_path.py "$program" "$bundle" "$picture" "$EDGEWARDEN_ONNXRUNTIME")

"$python" - "$work/rounds.jsonl" "$path" "$bundle" "$picture" "$frames" <<'PYTHON'
import json, os, platform, statistics, sys
rounds = [json.loads(line) for line in open(sys.argv[1])]
path = json.loads(sys.argv[2])
processor = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")),
                 platform.machine())
print(f"{sys.argv[3]} on {sys.argv[4]}")
print(f"{processor}, {os.cpu_count()} cores; medians of {len(rounds) // 2} rounds in turn, each the median of "
      f"{sys.argv[5]} frames; milliseconds per frame")
def of(who, threads, what):
    return statistics.median(r[who][what] for r in rounds if r[who]["threads"] == threads)
columns = [(who, threads) for threads in (1, 2) for who in ("ours", "theirs")]
head = [f"{'edgewarden' if who == 'ours' else 'Python'}, {threads}T" for who, threads in columns]
line = "{:18}" + "{:>16}" * 4
print(); print(line.format("", *head))
def show(name, values, form="{:.3f}"):
    print(line.format(name, *(form.format(value) for value in values)))
show("bare session.run", [of(*c, "bare_run") for c in columns])
for stage in ("decode", "preprocess", "infer", "postprocess", "total"):
    show(stage, [of(*c, stage) for c in columns])
show("total / bare", [of(*c, "total") / of(*c, "bare_run") for c in columns], "{:.2f}")
show("frames/s", [1000 / of(*c, "total") for c in columns], "{:.1f}")
show("peak MiB", [of(*c, "peak_bytes") / 2**20 for c in columns], "{:.0f}")
show("boxes", [of(*c, "found") for c in columns], "{:.0f}")
for threads in (1, 2):
    ours, theirs = ([r[who]["total"] for r in rounds if r[who]["threads"] == threads] for who in ("ours", "theirs"))
    ratios = [a / b for a, b in zip(ours, theirs)]
    print(f"edgewarden / Python, {threads} thread{'s' * (threads > 1)}: {statistics.median(ratios):.3f} of the time "
          f"(rounds {min(ratios):.3f} to {max(ratios):.3f})")
stages = ", ".join(f"{name} {value:.2f}" for name, value in path["stages"].items())
memory = ", ".join(f"{name} {value / 2**20:.0f}" for name, value in path["memory"].items())
counts = ", ".join(f"{count} {name}" for name, count in path["frames"].items() if count)
print(f"\nwhole path (source process, shared memory, inference process, agent), 1T: {path['fps']:.1f} frames/s answered")
print(f"  frames: {counts}\n  medians, ms: {stages}\n  memory, MiB (shared pages by share): {memory}")
print(f"ONNX Runtime: edgewarden {rounds[0]['ours']['runtime']}, Python {rounds[0]['theirs']['runtime']}")
PYTHON
