#!/usr/bin/env python3
"""Makes reference.json: small outputs of each family and what they mean, by numpy alone.

    pip install numpy==2.3.4; ./reference.py > reference.json

Written from the families' own post-processing, without a look at this repository's:
yolov5 utils/general.py non_max_suppression (multi_label=False), ultralytics utils/nms.py,
YOLOX yolox/utils/demo_utils.py demo_postprocess + multiclass_nms_class_agnostic's per-class twin,
torchvision.ops.nms for the suppression, OpenCV-style greedy order by score.
"""
import json
import numpy as np

rng = np.random.default_rng(7)


def nms(boxes, scores, iou):
    x1, y1, x2, y2 = boxes.T
    area = (x2 - x1) * (y2 - y1)
    order = scores.argsort(kind="stable")[::-1]
    keep = []
    while order.size:
        i = order[0]
        keep.append(i)
        w = np.maximum(0, np.minimum(x2[i], x2[order[1:]]) - np.maximum(x1[i], x1[order[1:]]))
        h = np.maximum(0, np.minimum(y2[i], y2[order[1:]]) - np.maximum(y1[i], y1[order[1:]]))
        inter = w * h
        order = order[1:][inter / (area[i] + area[order[1:]] - inter) <= iou]
    return keep


def corners(b):
    return np.stack([b[:, 0] - b[:, 2] / 2, b[:, 1] - b[:, 3] / 2, b[:, 0] + b[:, 2] / 2, b[:, 1] + b[:, 3] / 2], 1)


def finish(boxes, scores, size, conf, iou):
    """scores: [n, classes]; classes are kept apart by shifting their boxes, as YOLOv5 does."""
    cls, best = scores.argmax(1), scores.max(1)
    m = best >= conf
    boxes, cls, best = boxes[m], cls[m], best[m]
    kept = nms(boxes + cls[:, None] * 7680.0, best, iou)
    out = []
    for i in kept:
        x1, y1, x2, y2 = np.clip(boxes[i], 0, [size[0], size[1]] * 2)
        if x2 > x1 and y2 > y1:
            out.append({"class": int(cls[i]), "score": float(best[i]), "box": [float(v) for v in (x1, y1, x2, y2)]})
    return out


def tensor(name, a):
    return {"name": name, "shape": list(a.shape), "values": [float(v) for v in a.ravel()]}


def q(a):
    return np.round(a, 3).astype(np.float32)


def clusters(n, size):
    """Centre boxes, several around each of a few places."""
    at = rng.uniform(8, 56, (4, 2))[rng.integers(0, 4, n)] + rng.normal(0, 1.5, (n, 2))
    return np.concatenate([at, rng.uniform(12, 20, (n, 2))], 1)


cases = []


def case(name, size, decode, outputs, expected):
    assert len(expected) >= 3, (name, expected)
    cases.append({"name": name, "size": size, "decode": decode, "outputs": outputs, "expected": expected})


S, C, I = (64, 64), 0.3, 0.5
keep = {"score_threshold": C, "iou_threshold": I}

# YOLO v5: [1, n, 5 + c]; score = objectness × class
n, c = 24, 3
p = q(np.concatenate([clusters(n, S), rng.uniform(0, 1, (n, 1)) ** 0.3, rng.uniform(0, 1, (n, c))], 1))
case("yolo v5", S, {"kind": "yolo", "version": "v5", "output": "o", "keep": keep}, [tensor("o", p[None])],
     finish(corners(p[:, :4]), p[:, 5:] * p[:, 4:5], S, C, I))

# YOLO v8: [1, 4 + c, n]
p = q(np.concatenate([clusters(n, S), rng.uniform(0, 1, (n, c))], 1))
case("yolo v8", S, {"kind": "yolo", "version": "v8", "output": "o", "keep": keep}, [tensor("o", np.ascontiguousarray(p.T)[None])],
     finish(corners(p[:, :4]), p[:, 4:], S, C, I))

# YOLOX: offsets from grid cells, exponential sizes
Sx = (96, 64)
grids, strides = [], []
for s in (8, 16, 32):
    xv, yv = np.meshgrid(np.arange(Sx[0] // s), np.arange(Sx[1] // s))
    g = np.stack((xv, yv), 2).reshape(-1, 2)
    grids.append(g)
    strides.append(np.full((len(g), 1), s))
g, st = np.concatenate(grids), np.concatenate(strides)
m = len(g)
p = q(np.concatenate([rng.normal(0, 0.7, (m, 2)), rng.normal(0.3, 0.4, (m, 2)), rng.uniform(0, 1, (m, 1)), rng.uniform(0, 1, (m, 2))], 1))
b = np.concatenate([(p[:, :2] + g) * st, np.exp(p[:, 2:4]) * st], 1)
case("yolox", Sx, {"kind": "yolo", "version": "yolox", "output": "o", "keep": keep}, [tensor("o", p[None])],
     finish(corners(b), p[:, 5:] * p[:, 4:5], Sx, C, I))

# Boxes and scores: normalised corners with a background in front, as UltraFace and SSD
boxes = q(corners(clusters(n, S)) / 64)
logits = rng.normal(0, 2, (n, 3))
scores = q(np.exp(logits) / np.exp(logits).sum(1, keepdims=True))
base = {"kind": "boxes_scores", "boxes": "b", "scores": "s", "keep": keep}
case("corners, normalised, background 0", S, {**base, "format": "corners", "units": "normalized", "background": 0},
     [tensor("b", boxes[None]), tensor("s", scores[None])], finish(boxes * 64, scores[:, 1:], S, C, I))
# The same with the background in the middle: classes are counted without it
case("corners, normalised, background 1", S, {**base, "format": "corners", "units": "normalized", "background": 1},
     [tensor("b", boxes[None]), tensor("s", scores[None])], finish(boxes * 64, scores[:, [0, 2]], S, C, I))
# Centre boxes in pixels, no background, no batch axis
cb = q(clusters(n, S))
case("centre, pixels", S, {**base, "format": "center", "units": "pixels"},
     [tensor("b", cb), tensor("s", scores)], finish(corners(cb), scores, S, C, I))

# Classifiers
x = q(rng.normal(0, 3, (1, 6, 1, 1)))
e = np.exp(x.ravel() - x.max())
for activation, y in [("softmax", e / e.sum()), ("sigmoid", 1 / (1 + np.exp(-x.ravel()))), ("none", x.ravel())]:
    order = y.argsort()[::-1][:4]
    case(activation, S, {"kind": "classification", "output": "o", "activation": activation, "top_k": 4, "score_threshold": 0.0},
         [tensor("o", x)], [{"class": int(i), "score": float(y[i])} for i in order if y[i] >= 0.0])

print(json.dumps({"cases": cases}, separators=(",", ":")))
