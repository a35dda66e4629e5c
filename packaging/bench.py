#!/usr/bin/env python3
"""The loop that one would write by hand with OpenCV and onnxruntime, timed like ours.

bench.py BUNDLE PICTURE [FRAMES]: prints one JSON object with medians in milliseconds. It reads the
same manifest, and knows as much of it as the models of packaging/bench.sh need: stretch and letterbox,
boxes with scores, YOLO v5 and v8, classification.
"""
import json
import pathlib
import statistics
import sys
import time

import cv2
import numpy as np
import onnxruntime as ort

cv2.setNumThreads(1)
bundle, picture = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]).read_bytes()
frames = int(sys.argv[3]) if len(sys.argv) > 3 else 300
manifest = json.loads((bundle / "manifest.json").read_text())
spec, decode = manifest["inputs"][0], manifest["decode"]
nchw = spec["layout"] == "nchw"
_, a, b, c = spec["shape"]
width, height = (c, b) if nchw else (b, a)
dtype = {"f32": np.float32, "f16": np.float16, "u8": np.uint8, "i8": np.int8}[spec["type"]]
mean = np.array(spec.get("mean") or [0], np.float32)
std = np.array(spec.get("std") or [1], np.float32)
scale = np.float32(spec.get("scale", 1))
options = ort.SessionOptions()
options.intra_op_num_threads = 1
session = ort.InferenceSession(bundle / manifest["model"], options, providers=["CPUExecutionProvider"])


def prepare(image):
    fit = spec["fit"]
    ratio, left, top = None, 0, 0
    if isinstance(fit, dict):
        h, w = image.shape[:2]
        ratio = min(width / w, height / h)
        nw, nh = round(w * ratio), round(h * ratio)
        centre = fit["letterbox"].get("position", "center") == "center"
        left, top = ((width - nw) // 2, (height - nh) // 2) if centre else (0, 0)
        value = fit["letterbox"].get("value", 114)
        image = cv2.copyMakeBorder(
            cv2.resize(image, (nw, nh), interpolation=cv2.INTER_LINEAR),
            top, height - nh - top, left, width - nw - left, cv2.BORDER_CONSTANT, value=(value,) * 3)
    else:
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    if spec["color"] == "rgb":
        image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    elif spec["color"] == "grey":
        image = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)[..., None]
    tensor = (image.astype(np.float32) * scale - mean) / std
    if nchw:
        tensor = tensor.transpose(2, 0, 1)
    return np.ascontiguousarray(tensor[None].astype(dtype)), (ratio, left, top)


def boxes_of(outputs, place, size):
    kind = decode["kind"]
    if kind == "boxes_scores":
        boxes, scores = outputs[decode["boxes"]].reshape(-1, 4), outputs[decode["scores"]]
        scores = scores.reshape(len(boxes), -1)
        if "background" in decode:
            scores = np.delete(scores, decode["background"], axis=1)
        classes, best = scores.argmax(1), scores.max(1)
        if decode["units"] == "normalized":
            boxes = boxes * np.array([width, height] * 2, np.float32)
        centre = decode["format"] == "center"
    else:
        rows = outputs[decode["output"]][0]
        if decode["version"] == "v8":
            rows = rows.T
            boxes, scores = rows[:, :4], rows[:, 4:]
        else:
            boxes, scores = rows[:, :4], rows[:, 5:] * rows[:, 4:5]
        classes, best = scores.argmax(1), scores.max(1)
        centre = True
    wanted = best >= decode["keep"]["score_threshold"]
    boxes, classes, best = boxes[wanted], classes[wanted], best[wanted]
    if centre:
        boxes = np.concatenate([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], 1)
    corner_size = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], 1)
    kept = cv2.dnn.NMSBoxesBatched(corner_size.tolist(), best.tolist(), classes.tolist(),
                                   decode["keep"]["score_threshold"], decode["keep"]["iou_threshold"])
    boxes = boxes[np.array(kept, int).ravel()]
    ratio, left, top = place
    if ratio is None:
        return boxes * np.array([size[0] / width, size[1] / height] * 2, np.float32)
    return (boxes - np.array([left, top] * 2, np.float32)) / ratio


def answer(outputs, place, size):
    if decode["kind"] == "classification":
        values = outputs[decode["output"]].ravel()
        if decode["activation"] == "softmax":
            values = np.exp(values - values.max())
            values /= values.sum()
        return values.argsort()[::-1][: decode["top_k"]]
    return outputs if decode["kind"] == "raw" else boxes_of(outputs, place, size)


names = [output.name for output in session.get_outputs()]
times = {stage: [] for stage in ["decode", "preprocess", "infer", "postprocess", "total", "bare_run"]}
for at in range(20 + frames):
    t0 = time.perf_counter()
    image = cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR)
    t1 = time.perf_counter()
    tensor, place = prepare(image)
    t2 = time.perf_counter()
    outputs = session.run(names, {spec["name"]: tensor})
    t3 = time.perf_counter()
    answer(dict(zip(names, outputs)), place, (image.shape[1], image.shape[0]))
    t4 = time.perf_counter()
    session.run(names, {spec["name"]: tensor})
    t5 = time.perf_counter()
    if at >= 20:
        for stage, seconds in zip(times, [t1 - t0, t2 - t1, t3 - t2, t4 - t3, t4 - t0, t5 - t4]):
            times[stage].append(seconds * 1e3)
result = {stage: statistics.median(values) for stage, values in times.items()}
print(json.dumps({**result, "frames": frames, "runtime": ort.__version__}))
