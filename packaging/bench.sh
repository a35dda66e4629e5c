#!/usr/bin/env bash
# Time per frame: this program by stage, the bare session.run, and a Python loop with OpenCV and
# onnxruntime that does the same work on the same picture; one run, one machine, one thread each.
#
#   packaging/bench.sh [BUNDLE [PICTURE [FRAMES]]]
#
# Without arguments it takes UltraFace where ../shared/data is, else the demo's model. The Python
# parts are pinned and go into target/bench-venv.
set -euo pipefail
cd "$(dirname "$0")/.."

data=../shared/data
work=target/bench
mkdir -p "$work"
cargo build --release --bin edgewarden
program=target/release/edgewarden

picture=${2:-}
if [ $# -ge 1 ]; then
    bundle=$1
elif [ -f "$data/ultraface/version-RFB-320.onnx" ]; then
    bundle=$work/ultraface
    "$program" bundle init --force "$data/ultraface/version-RFB-320.onnx" "$bundle" >/dev/null
    python3 - "$bundle/manifest.json" <<'PYTHON'
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
    bundle=$work/demo
    "$program" bundle init --force packaging/models/v2.onnx "$bundle" >/dev/null
fi

if [ ! -x target/bench-venv/bin/python ]; then
    echo "Setting up Python for the comparison in target/bench-venv" >&2
    python3 -m venv target/bench-venv
fi
target/bench-venv/bin/pip install --quiet --disable-pip-version-check \
    onnxruntime==1.31.1 opencv-python-headless==4.12.0.88 'numpy>=2,<2.3'

if [ -z "$picture" ]; then
    picture=$work/picture.jpg
    target/bench-venv/bin/python - "$picture" <<'PYTHON'
import sys, cv2, numpy as np
rng = np.random.default_rng(1)
scene = cv2.resize(rng.integers(0, 256, (45, 80, 3), dtype=np.uint8), (1280, 720), interpolation=cv2.INTER_CUBIC)
scene = np.clip(scene + rng.normal(0, 6, scene.shape), 0, 255).astype(np.uint8)
cv2.imwrite(sys.argv[1], scene, [cv2.IMWRITE_JPEG_QUALITY, 85])
PYTHON
fi

# Cargo runs a benchmark in the package's folder, where relative paths still hold.
ours=$(cargo bench --quiet --bench frame -- "$bundle" "$picture" ${3:+"$3"})
theirs=$(target/bench-venv/bin/python packaging/bench.py "$bundle" "$picture" ${3:+"$3"})
python3 - "$ours" "$theirs" "$bundle" "$picture" <<'PYTHON'
import json, sys
ours, theirs = (json.loads(text) for text in sys.argv[1:3])
print(f"{sys.argv[3]} on {sys.argv[4]}, median of {ours['frames']} frames, milliseconds, one thread")
print(f"{'':14}{'edgewarden':>12}{'Python':>12}")
for stage in ["decode", "preprocess", "infer", "postprocess", "total", "bare_run"]:
    print(f"{stage:14}{ours[stage]:12.3f}{theirs[stage]:12.3f}")
print(f"beyond the bare run: edgewarden {ours['total'] - ours['bare_run']:.3f} ms, Python {theirs['total'] - theirs['bare_run']:.3f} ms")
print(f"runtime: edgewarden {ours['runtime']}, Python {theirs['runtime']}")
PYTHON
