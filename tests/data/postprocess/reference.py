#!/usr/bin/env python3
"""Makes reference.json: small outputs of each family and what they mean, by numpy.

    pip install numpy==2.2.6 opencv-python-headless==4.12.0.88; ./reference.py > reference.json

OpenCV only looks over the shoulder: where it is installed, each suppression must agree with its
cv2.dnn.NMSBoxes or NMSBoxesBatched, else the script fails. The numbers are the same without it.

Written from the families' own post-processing, without a look at this repository's:
yolov5 utils/general.py non_max_suppression (multi_label=False), ultralytics utils/nms.py,
YOLOX yolox/utils/demo_utils.py demo_postprocess + multiclass_nms_class_agnostic's per-class twin,
torchvision.ops.nms for the suppression, OpenCV-style greedy order by score.
"""
import json
import numpy as np

try:
    import cv2
except ImportError:
    cv2 = None

rng = np.random.default_rng(7)


def nms(boxes, scores, iou):
    x1, y1, x2, y2 = boxes.T
    area = (x2 - x1) * (y2 - y1)
    order = (-scores).argsort(kind="stable")
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


def second_opinion(boxes, scores, cls, iou, agnostic, kept):
    """OpenCV's own suppression keeps the same boxes."""
    if cv2 is None or not len(boxes):
        return
    xywh = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], 1).astype(float)
    if agnostic:
        theirs = cv2.dnn.NMSBoxes(xywh.tolist(), scores.tolist(), 0.0, iou)
    else:
        theirs = cv2.dnn.NMSBoxesBatched(xywh.tolist(), scores.tolist(), cls.tolist(), 0.0, iou)
    assert sorted(int(i) for i in theirs) == sorted(int(i) for i in kept), (theirs, kept)


def finish(boxes, scores, size, conf, iou, agnostic=False, own=None, most=300):
    """scores: [n, classes]; classes are kept apart by shifting their boxes, as YOLOv5 does.
    own: least scores of single classes."""
    cls, best = scores.argmax(1), scores.max(1)
    least = np.full(scores.shape[1], conf)
    for c, t in (own or {}).items():
        least[c] = t
    m = best >= least[cls]
    boxes, cls, best = boxes[m], cls[m], best[m]
    kept = nms(boxes + (0 if agnostic else cls[:, None] * 7680.0), best, iou)
    second_opinion(boxes, best, cls, iou, agnostic, kept)
    out = []
    for i in kept[:most]:
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

# Suppression over all classes, with fewer boxes than there are, and with least scores of single classes
p = q(np.concatenate([clusters(n, S), rng.uniform(0, 1, (n, c))], 1))
v8 = {"kind": "yolo", "version": "v8", "output": "o"}
out = [tensor("o", np.ascontiguousarray(p.T)[None])]
case("yolo v8, class-agnostic", S, {**v8, "keep": {**keep, "class_agnostic": True}}, out,
     finish(corners(p[:, :4]), p[:, 4:], S, C, I, agnostic=True))
case("yolo v8, best 4", S, {**v8, "keep": {**keep, "max_detections": 4}}, out,
     finish(corners(p[:, :4]), p[:, 4:], S, C, I, most=4))
case("yolo v8, thresholds of classes", S,
     {**v8, "keep": {**keep, "score_threshold": 0.9, "class_thresholds": {"0": 0.4, "2": 0.97}}}, out,
     finish(corners(p[:, :4]), p[:, 4:], S, 0.9, I, own={0: 0.4, 2: 0.97}))
case("boxes and scores, class-agnostic, thresholds of classes", S,
     {**base, "format": "center", "units": "pixels",
      "keep": {**keep, "class_agnostic": True, "class_thresholds": {"1": 0.6}}},
     [tensor("b", cb), tensor("s", scores)], finish(corners(cb), scores, S, C, I, agnostic=True, own={1: 0.6}))


# DETR: transformers' post_process_object_detection: softmax, the last column left out, best class
def detr(boxes, scores, size, least, most):
    pairs = [(scores[i, k], i, k) for i in range(len(boxes)) for k in range(scores.shape[1]) if scores[i, k] >= least[k]]
    pairs.sort(key=lambda pair: -pair[0])
    found = []
    for score, i, k in pairs[:most]:
        edge = np.array([size[0], size[1]] * 2)
        x1, y1, x2, y2 = np.clip(boxes[i] * edge, 0, edge)
        found.append({"class": int(k), "score": float(score), "box": [float(v) for v in (x1, y1, x2, y2)]})
    return found


nb = q(clusters(12, S) / 64)
lg = q(rng.normal(0, 2, (12, 4)))
e = np.exp(lg.astype(np.float64) - lg.max(1, keepdims=True))
prob = (e / e.sum(1, keepdims=True))[:, :-1]
only_best = np.where(prob == prob.max(1, keepdims=True), prob, -1)
spec = {"kind": "detr", "boxes": "b", "logits": "l"}
case("detr, softmax", S, {**spec, "activation": "softmax", "background": 3, "score_threshold": 0.3},
     [tensor("b", nb[None]), tensor("l", lg[None])], detr(corners(nb.astype(np.float64)), only_best, S, [0.3] * 3, 300))
# RT-DETR: sigmoid, the best of all pairs of box and class
sig = 1 / (1 + np.exp(-lg.astype(np.float64)))
case("rt-detr, sigmoid, best 7", S, {**spec, "activation": "sigmoid", "score_threshold": 0.5, "max_detections": 7},
     [tensor("b", nb[None]), tensor("l", lg[None])], detr(corners(nb.astype(np.float64)), sig, S, [0.5] * 4, 7))
case("rt-detr, thresholds of classes", S,
     {**spec, "activation": "sigmoid", "score_threshold": 0.8, "class_thresholds": {"1": 0.3}},
     [tensor("b", nb[None]), tensor("l", lg[None])], detr(corners(nb.astype(np.float64)), sig, S, [0.8, 0.3, 0.8, 0.8], 300))

# A class of a window, with least scores of single classes
x = q(rng.normal(0, 2, (1, 6)))
e = np.exp(x.ravel() - x.max())
y = e / e.sum()
own = {int(y.argsort()[-2]): 0.99}
order = [int(i) for i in y.argsort()[::-1][:5] if y[i] >= own.get(int(i), 0.0)]
case("softmax, thresholds of classes", S,
     {"kind": "classification", "output": "o", "activation": "softmax", "top_k": 5,
      "class_thresholds": {str(k): v for k, v in own.items()}},
     [tensor("o", x)], [{"class": i, "score": float(y[i])} for i in order])

# Regression
x = q(rng.normal(0, 50, (1, 3)))
specs = [{"name": "speed", "unit": "m/s", "scale": 0.1}, {"name": "load", "unit": "%", "scale": 100.0, "offset": -3.5},
         {"name": "wear"}]
wanted = [float(v) * s.get("scale", 1.0) + s.get("offset", 0.0) for v, s in zip(x.ravel(), specs)]
cases.append({"name": "values", "size": (8, 3), "decode": {"kind": "values", "output": "o", "values": specs},
              "outputs": [tensor("o", x)], "expected": [], "values": wanted})

# Reconstruction error: [1, channels, samples] and [1, samples, channels]
for metric, last in [("mse", False), ("mae", True), ("mae", False)]:
    shape = (1, 16, 3) if last else (1, 3, 16)
    given, back = q(rng.normal(0, 1, shape)), q(rng.normal(0, 1, shape))
    d = given.astype(np.float64) - back.astype(np.float64)
    d = d * d if metric == "mse" else np.abs(d)
    each = d.mean(axis=(0, 1) if last else (0, 2))
    for threshold in (float(d.mean()) - 0.01, float(d.mean()) + 0.01):
        cases.append({
            "name": f"anomaly {metric}, {'nlc' if last else 'ncl'}, above {threshold:.3f}", "size": (16, 3),
            "decode": {"kind": "anomaly", "output": "o", "metric": metric, "threshold": threshold},
            "outputs": [tensor("o", back)], "expected": [], "channels_last": last,
            "input": [float(v) for v in given.ravel()],
            "anomaly": {"score": float(d.mean()), "is_anomaly": bool(d.mean() > threshold), "channels": [float(v) for v in each]},
        })

print(json.dumps({"cases": cases}, separators=(",", ":")))
