#!/usr/bin/env python3
"""Trains the models of `edgewarden demo` and writes the bundles v1 … v5 beside this file.

    cargo build --release
    python3 -m venv /tmp/venv && /tmp/venv/bin/pip install -r packaging/models/requirements.txt
    /tmp/venv/bin/python packaging/models/train.py --edgewarden target/release/edgewarden

The pictures come from the program itself (`edgewarden demo --dataset`), so the models are trained on
what the built-in camera shows, but on belts (seeds) that the demo never uses. Everything is seeded:
the same versions on the same kind of processor give the same weights. See README.md for what each
bundle is and why.
"""

import argparse
import hashlib
import io
import json
import pathlib
import shutil
import subprocess
import tempfile
import time

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

HERE = pathlib.Path(__file__).resolve().parent
LABELS = ["washer", "nut", "bracket", "cracked"]
WIDTH, HEIGHT, STRIDE = 160, 120, 8
GRID_W, GRID_H = WIDTH // STRIDE, HEIGHT // STRIDE
CELLS = GRID_W * GRID_H
# Seeds of belts: the demo's own seeds are small numbers, so these never meet them.
TRAIN_SEED, TEST_SEED, GOLDEN_SEED, QUIET_SEED = 1_000_000, 2_000_000, 3_000_000, 4_000_000
KEEP = {"score_threshold": 0.35, "iou_threshold": 0.45, "class_agnostic": True, "max_detections": 50}
# Parts of which less than this share is inside the picture are neither asked for nor held against a model.
LEAST_VISIBLE = 0.5
# More good cells than this and the net of v4 reads past the end of a table.
CROWD = 12

# Output channels and stride of each 3×3 layer; a 1×1 layer to 4 distances and 4 classes follows.
SMALL = [(8, 2), (12, 2), (16, 2), (16, 1)]
LARGE = [(16, 2), (24, 2), (32, 1), (48, 2), (48, 1), (48, 1)]


# ---- pictures -------------------------------------------------------------------------------------


def dataset(program, seed, count, density=None):
    """(pictures [n,240,320,3] u8, list of objects per picture) drawn by the program."""
    with tempfile.TemporaryDirectory() as folder:
        command = [program, "demo", "--dataset", folder, "--seed", str(seed), "--count", str(count)]
        if density is not None:
            command += ["--density", str(density)]
        subprocess.run(command, check=True)
        lines = [json.loads(line) for line in open(f"{folder}/truth.jsonl")]
        w, h = lines[0]["width"], lines[0]["height"]
        frames = np.fromfile(f"{folder}/frames.rgb", np.uint8).reshape(count, h, w, 3)
    return frames, [line["objects"] for line in lines]


def shrink(frames, soft):
    """Halves the pictures: the mean of 2×2, or (soft) a triangle filter over 4×4, as resizers do."""
    x = frames.astype(np.float32)
    if not soft:
        return (x[:, 0::2, 0::2] + x[:, 1::2, 0::2] + x[:, 0::2, 1::2] + x[:, 1::2, 1::2]) / 4
    for axis in (1, 2):
        pad = [(0, 0)] * 4
        pad[axis] = (1, 1)
        p = np.pad(x, pad, mode="edge")
        n = x.shape[axis]
        take = lambda o: np.take(p, range(o, o + n, 2), axis=axis)
        x = (take(0) + 3 * take(1) + 3 * take(2) + take(3)) / 8
    return x


def targets(objects):
    """Per cell: class or −1 (nothing) or −2 (not judged), and the box in pixels of the model."""
    kind = np.full((GRID_H, GRID_W), -1, np.int32)
    boxes = np.zeros((GRID_H, GRID_W, 4), np.float32)
    near = np.full((GRID_H, GRID_W), np.inf, np.float32)
    ys, xs = np.mgrid[0:GRID_H, 0:GRID_W]
    px, py = (xs + 0.5) * STRIDE, (ys + 0.5) * STRIDE
    for o in objects:
        x0, y0, x1, y1 = (v / 2 for v in o["box"])
        cx, cy = (x0 + x1) / 2, (y0 + y1) / 2
        distance = np.maximum(abs(px - cx), abs(py - cy))
        if o["visible"] < LEAST_VISIBLE:
            kind[(px > x0 - 4) & (px < x1 + 4) & (py > y0 - 4) & (py < y1 + 4) & (kind == -1)] = -2
            continue
        chosen = (distance <= 0.8 * STRIDE) & (distance < near)
        # Cells at the rim of the part are neither right nor wrong.
        rim = (distance <= 1.3 * STRIDE) & ~chosen & (kind == -1)
        kind[rim] = -2
        kind[chosen], boxes[chosen], near[chosen] = o["class"], (x0, y0, x1, y1), distance[chosen]
    return kind, boxes


# ---- the net --------------------------------------------------------------------------------------


def init(key, layers):
    weights, channels = [], 3
    for out, _ in layers:
        key, k = jax.random.split(key)
        weights.append((jax.random.normal(k, (3, 3, channels, out)) * (2 / (9 * channels)) ** 0.5, jnp.zeros(out)))
        channels = out
    bias = jnp.array([1.0] * 4 + [-4.0] * len(LABELS))
    weights.append((jax.random.normal(key, (1, 1, channels, 4 + len(LABELS))) * 0.05, bias))
    return weights


def forward(weights, layers, x):
    """[b,120,160,3] in −0.5…0.5 → distances [b,15,20,4] to the box's sides in pixels, class logits."""
    conv = lambda x, w, s: jax.lax.conv_general_dilated(
        x, w, (s, s), [(w.shape[0] // 2,) * 2] * 2, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    for (w, b), (_, stride) in zip(weights, layers):
        x = jax.nn.relu(conv(x, w, stride) + b)
    w, b = weights[-1]
    x = conv(x, w, 1) + b
    return jax.nn.softplus(x[..., :4]) * STRIDE, x[..., 4:]


def loss(weights, layers, x, kind, boxes):
    distances, logits = forward(weights, layers, x)
    wanted = jax.nn.one_hot(kind, len(LABELS))
    judged = (kind > -2)[..., None]
    positive = kind >= 0
    count = jnp.maximum(positive.sum(), 1)
    # Focal loss (Lin 2017) with γ = 2, α = 0.5.
    p = jax.nn.sigmoid(logits)
    cross = -wanted * jax.nn.log_sigmoid(logits) - (1 - wanted) * jax.nn.log_sigmoid(-logits)
    focal = cross * jnp.where(wanted > 0, 1 - p, p) ** 2
    # Overlap of boxes, as −log IoU (Yu 2016).
    px = (jnp.arange(GRID_W) + 0.5) * STRIDE
    py = ((jnp.arange(GRID_H) + 0.5) * STRIDE)[:, None]
    true = jnp.stack([px - boxes[..., 0], py - boxes[..., 1], boxes[..., 2] - px, boxes[..., 3] - py], -1)
    true = jnp.maximum(true, 0.1)
    low = jnp.minimum(distances, true)
    area = lambda d: (d[..., 0] + d[..., 2]) * (d[..., 1] + d[..., 3])
    overlap = area(low)
    iou = overlap / (area(distances) + area(true) - overlap)
    return (focal * judged).sum() / count * 2 + 2 * (-jnp.log(iou) * positive).sum() / count


def train(name, layers, data, steps, rate, seed, start=None, batch=32):
    """Adam with one cosine cycle. Returns the weights."""
    images, kinds, boxes = data
    rng = np.random.default_rng(seed)
    weights = start if start is not None else init(jax.random.PRNGKey(seed), layers)
    zeros = jax.tree.map(jnp.zeros_like, weights)

    @jax.jit
    def step(weights, m, v, i, x, kind, box):
        value, slope = jax.value_and_grad(loss)(weights, layers, x, kind, box)
        lr = rate * jnp.minimum(1, (i + 1) / 50) * (0.51 + 0.49 * jnp.cos(jnp.pi * i / steps))
        m = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, m, slope)
        v = jax.tree.map(lambda v, g: 0.99 * v + 0.01 * g * g, v, slope)
        weights = jax.tree.map(
            lambda w, m, v: w - lr * (m / (1 - 0.9 ** (i + 1))) / (jnp.sqrt(v / (1 - 0.99 ** (i + 1))) + 1e-8),
            weights, m, v,
        )
        return weights, m, v, value

    m = v = zeros
    began = time.time()
    for i in range(steps):
        pick = rng.integers(len(kinds), size=batch)
        x = images[rng.integers(len(images))][pick].astype(np.float32) / 255
        x = x * rng.uniform(0.75, 1.25, (batch, 1, 1, 1)).astype(np.float32) - 0.5
        kind, box = kinds[pick], boxes[pick].copy()
        # A belt seen in a mirror is a belt.
        if rng.random() < 0.5:
            x, kind, box = x[:, :, ::-1], kind[:, :, ::-1], box[:, :, ::-1]
            box = np.stack([WIDTH - box[..., 2], box[..., 1], WIDTH - box[..., 0], box[..., 3]], -1)
        if rng.random() < 0.5:
            x, kind, box = x[:, ::-1], kind[:, ::-1], box[:, ::-1]
            box = np.stack([box[..., 0], HEIGHT - box[..., 3], box[..., 2], HEIGHT - box[..., 1]], -1)
        weights, m, v, value = step(weights, m, v, i, np.ascontiguousarray(x), kind, box)
        if i % 100 == 0 or i == steps - 1:
            print(f"{name}: step {i}, loss {float(value):.3f}, {time.time() - began:.0f} s", flush=True)
    return jax.tree.map(np.asarray, weights)


# ---- the ONNX file --------------------------------------------------------------------------------


def to_onnx(weights, layers, crowd=None):
    """The net as ONNX, opset 17, IR 8: `image` [1,3,120,160] → `detections` [1,8,300] (the layout of
    YOLOv8: centre box in pixels, class probabilities). With `crowd`, a fault of the kind that slips
    through a review: a table with room for `crowd` parts is read at the number of parts found."""
    nodes, constants = [], []

    def constant(name, value):
        constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def node(kind, inputs, output, **attributes):
        nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    x = "image"
    for i, (w, b) in enumerate(weights):
        last = i == len(weights) - 1
        stride = 1 if last else layers[i][1]
        inputs = [x, constant(f"w{i}", w.transpose(3, 2, 0, 1)), constant(f"b{i}", b)]
        pad = w.shape[0] // 2
        x = node("Conv", inputs, f"conv{i}", kernel_shape=list(w.shape[:2]), strides=[stride] * 2, pads=[pad] * 4)
        x = x if last else node("Relu", [x], f"relu{i}")
    x = node("Reshape", [x, constant("flat", np.array([1, 4 + len(LABELS), CELLS], np.int64))], "cells")
    constant("split", np.array([4, len(LABELS)], np.int64))
    nodes.append(helper.make_node("Split", [x, "split"], ["raw", "logits"], name="parts", axis=1))
    node("Softplus", ["raw"], "soft")
    node("Mul", ["soft", constant("stride", np.float32(STRIDE))], "distances")
    # centre = cell + (right − left) ÷ 2, size = left + right, as one product with a 4×4 matrix.
    matrix = np.array([[-0.5, 0, 0.5, 0], [0, -0.5, 0, 0.5], [1, 0, 1, 0], [0, 1, 0, 1]], np.float32)
    node("MatMul", [constant("sides", matrix), "distances"], "relative")
    grid = np.zeros((1, 4, CELLS), np.float32)
    grid[0, 0] = np.tile((np.arange(GRID_W) + 0.5) * STRIDE, GRID_H)
    grid[0, 1] = np.repeat((np.arange(GRID_H) + 0.5) * STRIDE, GRID_W)
    node("Add", ["relative", constant("grid", grid)], "boxes")
    scores = node("Sigmoid", ["logits"], "scores")
    if crowd is not None:
        node("ReduceMax", ["scores"], "best", axes=[1], keepdims=0)
        node("Greater", ["best", constant("half", np.float32(0.5))], "good")
        node("Cast", ["good"], "ones", to=TensorProto.INT64)
        node("ReduceSum", ["ones"], "found", keepdims=0)
        node("Gather", [constant("table", np.ones(crowd + 1, np.float32)), "found"], "gain")
        scores = node("Mul", ["scores", "gain"], "scaled")
    node("Concat", ["boxes", scores], "detections", axis=1)
    value = lambda name, shape: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
    graph = helper.make_graph(
        nodes, "belt-inspector",
        [value("image", [1, 3, HEIGHT, WIDTH])], [value("detections", [1, 4 + len(LABELS), CELLS])],
        constants,
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, producer_name="edgewarden-demo"
    )
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


class Runner:
    """Runs an ONNX file as the agent does: resize, normalise, run, decode, suppress."""

    def __init__(self, model):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def __call__(self, frame, soft=False):
        x = shrink(frame[None], soft)[0] / 255 - 0.5
        out = self.session.run(None, {"image": x.transpose(2, 0, 1)[None].astype(np.float32)})[0][0]
        cx, cy, w, h = out[:4] * 2
        scores, kinds = out[4:].max(0), out[4:].argmax(0)
        boxes = np.stack([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2], 1)
        boxes = boxes.clip(0, [frame.shape[1], frame.shape[0]] * 2)
        found = []
        for i in np.argsort(-scores, kind="stable"):
            if scores[i] < KEEP["score_threshold"]:
                break
            if all(iou(boxes[i], f["box"]) <= KEEP["iou_threshold"] for f in found):
                found.append({
                    "label": LABELS[kinds[i]], "class": int(kinds[i]),
                    "score": round(float(scores[i]), 4), "box": [round(float(v), 2) for v in boxes[i]],
                })
        return found


def iou(a, b):
    w = min(a[2], b[2]) - max(a[0], b[0])
    h = min(a[3], b[3]) - max(a[1], b[1])
    if w <= 0 or h <= 0:
        return 0.0
    both = w * h
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)


def f1(run, frames, truths):
    """F1 over all pictures: a detection is right when its class and IoU ≥ 0.5 match a part that no
    better detection took. Hardly visible parts count for nothing, and so does what is found on them."""
    right = wrong = missed = 0
    for frame, objects in zip(frames, truths):
        left = [o for o in objects if o["visible"] >= LEAST_VISIBLE]
        hidden = [o for o in objects if o["visible"] < LEAST_VISIBLE]
        for d in run(frame):
            best = max(left, key=lambda o: (o["class"] == d["class"]) * iou(o["box"], d["box"]), default=None)
            if best and best["class"] == d["class"] and iou(best["box"], d["box"]) >= 0.5:
                left.remove(best)
                right += 1
            elif not any(iou(o["box"], d["box"]) > 0.1 for o in hidden):
                wrong += 1
        missed += len(left)
    return 2 * right / (2 * right + wrong + missed)


# ---- the bundles ----------------------------------------------------------------------------------


def golden(run, frames, count, fits=lambda found: True, least=0.45):
    """`count` pictures (as JPEG bytes) on which `run` answers clearly, with the answers."""
    chosen = []
    for frame in frames:
        packed = io.BytesIO()
        Image.fromarray(frame).save(packed, "JPEG", quality=92, subsampling=0)
        frame = np.asarray(Image.open(packed))
        found, other = run(frame), run(frame, soft=True)
        # Clear: nothing near the threshold, and the same with another resizer.
        clear = all(d["score"] > least for d in found + other) and len(found) == len(other)
        clear = clear and all(
            a["class"] == b["class"] and abs(a["score"] - b["score"]) < 0.08 and iou(a["box"], b["box"]) > 0.85
            for a in found for b in other if iou(a["box"], b["box"]) > 0.5
        )
        if found and clear and fits(found):
            chosen.append((packed.getvalue(), found))
        if len(chosen) == count:
            return chosen
    raise SystemExit(f"only {len(chosen)} of {count} golden pictures are clear enough")


def bundle(version, description, model, samples):
    folder = HERE / f"v{version}"
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "golden").mkdir(parents=True)
    files = {"model.onnx": model}
    for i, (picture, _) in enumerate(samples):
        files[f"golden/{i + 1}.jpg"] = picture
    for path, content in files.items():
        (folder / path).write_bytes(content)
    manifest = {
        "format": 1,
        "name": "belt-inspector",
        "version": f"{version}.0.0",
        "description": description,
        "license": "Apache-2.0",
        "model": "model.onnx",
        "files": [
            {"path": path, "sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
            for path, content in sorted(files.items())
        ],
        "inputs": [{
            "name": "image", "shape": [1, 3, HEIGHT, WIDTH], "type": "f32", "layout": "nchw",
            "fit": "stretch", "color": "rgb", "scale": 1 / 255, "mean": [0.5],
        }],
        "decode": {"kind": "yolo", "version": "v8", "output": "detections", "keep": KEEP},
        "labels": LABELS,
        "needs": {"opset": 17, "ir_version": 8},
        # Wide enough for another decoder, resizer or processor, too narrow for another answer.
        "tolerance": {"score": 0.15, "iou": 0.7},
        "golden": [
            {"input": f"golden/{i + 1}.jpg", "expected": {"detections": found}}
            for i, (_, found) in enumerate(samples)
        ],
    }
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--edgewarden", default="target/release/edgewarden", help="the program")
    arguments.add_argument("--pictures", type=int, default=4000, help="pictures to train on")
    arguments.add_argument("--steps", type=int, default=2000, help="steps of v2; the others follow")
    arguments.add_argument("--weights", type=pathlib.Path, help="folder that keeps weights; found ones are used")
    arguments = arguments.parse_args()
    onnxruntime.set_default_logger_severity(4)  # the failures of v4 are meant
    program = str(pathlib.Path(arguments.edgewarden).resolve())

    frames, truths = dataset(program, TRAIN_SEED, arguments.pictures)
    views = [np.round(np.concatenate([shrink(part, soft) for part in np.array_split(frames, 40)])).astype(np.uint8)
             for soft in (False, True)]
    kinds, boxes = (np.stack(a) for a in zip(*map(targets, truths)))
    data = (views, kinds, boxes)
    del frames

    def trained(name, *rest, **more):
        kept = arguments.weights and arguments.weights / f"{name}.npz"
        if kept and kept.exists():
            flat = list(np.load(kept).values())
            return list(zip(flat[0::2], flat[1::2]))
        weights = train(name, *rest, **more)
        if kept:
            kept.parent.mkdir(parents=True, exist_ok=True)
            np.savez(kept, *[a for pair in weights for a in pair])
        return weights

    small = trained("v1", SMALL, data, arguments.steps // 4, 5e-3, seed=1)
    large = trained("v2", LARGE, data, arguments.steps, 3e-3, seed=2)
    again = trained("v5", LARGE, data, arguments.steps // 10, 5e-4, seed=5, start=large)

    v1, v2, v5 = to_onnx(small, SMALL), to_onnx(large, LARGE), to_onnx(again, LARGE)
    # v3: the classes in the order of a colleague's list.
    order = [0, 1, 2, 3, 5, 6, 7, 4]
    w, b = large[-1]
    v3 = to_onnx(large[:-1] + [(w[..., order], b[order])], LARGE)
    v4 = to_onnx(large, LARGE, crowd=CROWD)

    test, answers = dataset(program, TEST_SEED, 300)
    report = {}
    for name, model in {"v1": v1, "v2": v2, "v3": v3, "v5": v5}.items():
        report[name] = {"bytes": len(model), "f1": round(f1(Runner(model), test, answers), 3)}
    failed = 0
    faulty = Runner(v4)
    for frame in test:
        try:
            faulty(frame)
        except onnxruntime.capi.onnxruntime_pybind11_state.InvalidArgument:
            failed += 1
    report["v4"] = {"bytes": len(v4), "failed_pictures": failed, "of": len(test)}
    print(json.dumps(report, indent=2))

    pictures, _ = dataset(program, GOLDEN_SEED, 200)
    quiet, _ = dataset(program, QUIET_SEED, 200, density=12)
    clear = golden(Runner(v2), pictures, 4)
    few = golden(Runner(v4), [f for f in quiet if len(Runner(v2)(f)) <= 2], 4, lambda found: len(found) <= 2)
    bundle(1, "Finds parts on a belt; a first, small net.", v1, golden(Runner(v1), quiet, 4, least=0.4))
    bundle(2, "Finds parts on a belt.", v2, clear)
    bundle(3, "Finds parts on a belt; more cautious with cracks.", v3, clear)
    bundle(4, "Finds parts on a belt; evens out busy belts.", v4, few)
    bundle(5, "Finds parts on a belt; trained a little longer.", v5, golden(Runner(v5), pictures, 4))


if __name__ == "__main__":
    main()
