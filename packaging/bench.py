#!/usr/bin/env python3
"""The loop that one would write by hand with OpenCV and onnxruntime, timed like ours.

bench.py BUNDLE PICTURE [FRAMES [THREADS [ahead]]]: prints one JSON object with medians in milliseconds and
the peak memory in bytes. It reads the same manifest, and knows as much of it as the models of
packaging/bench.sh need: pictures in planes, stretched or letterboxed, to boxes or classes. With `ahead` a
second thread decodes and prepares the next picture while the model runs.
"""
import json
import pathlib
import queue
import resource
import statistics
import sys
import threading
import time

import cv2
import numpy as np
import onnxruntime as ort

# OpenCV's own threads would come on top of the runtime's.
cv2.setNumThreads(1)
bundle, picture = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]).read_bytes()
frames = int(sys.argv[3]) if len(sys.argv) > 3 else 300
threads = int(sys.argv[4]) if len(sys.argv) > 4 else 1
ahead = len(sys.argv) > 5 and sys.argv[5] == "ahead"
manifest = json.loads((bundle / "manifest.json").read_text())
spec, decode = manifest["inputs"][0], manifest["decode"]
if spec["layout"] != "nchw" or spec["type"] != "f32" or spec["color"] == "grey":
    sys.exit("bench.py: only colour pictures in planes of f32 are known here")
_, _, height, width = spec["shape"]


def three(values, absent):
    return np.broadcast_to(np.array(values or [absent], np.float32), 3)


scale = spec.get("scale", 1)
mean, std = three(spec.get("mean"), 0), three(spec.get("std"), 1)
if (std != std[0]).any():
    sys.exit("bench.py: one deviation for all channels is needed here")
# blobFromImage computes (pixel - mean) * factor.
factor, mean = float(scale / std[0]), tuple(float(value) for value in mean / scale)
swap = spec["color"] == "rgb"
letterbox = spec["fit"].get("letterbox") if isinstance(spec["fit"], dict) else None

# As our runtime: no thread spins while there is nothing to do, and the arena is on.
options = ort.SessionOptions()
options.intra_op_num_threads = threads
options.log_severity_level = 3
options.add_session_config_entry("session.intra_op.allow_spinning", "0")
options.add_session_config_entry("session.inter_op.allow_spinning", "0")
options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
session = ort.InferenceSession(bundle / manifest["model"], options, providers=["CPUExecutionProvider"])

# Where OpenCV's decoder can leave out detail that the tensor would not hold anyway. By the same rule as
# ours: the needed size stays, or twice that.
least = 1 if spec.get("jpeg") == "fast" else 2
REDUCED = [(8, cv2.IMREAD_REDUCED_COLOR_8), (4, cv2.IMREAD_REDUCED_COLOR_4), (2, cv2.IMREAD_REDUCED_COLOR_2)]
original = cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR).shape[1::-1]
reading = next((flag for by, flag in REDUCED if original[0] >= least * by * width and original[1] >= least * by * height),
               cv2.IMREAD_COLOR)
if letterbox:
    ratio = min(width / original[0], height / original[1])
    inner = (round(original[0] * ratio), round(original[1] * ratio))
    centre = letterbox.get("position", "center") == "center"
    left, top = ((width - inner[0]) // 2, (height - inner[1]) // 2) if centre else (0, 0)
    fill = (letterbox.get("value", 114),) * 3
    back_scale, back_offset = np.float32(1 / ratio), np.array([left, top] * 2, np.float32)
else:
    back_scale = np.array([original[0] / width, original[1] / height] * 2, np.float32)
    back_offset = np.zeros(4, np.float32)


def prepare(image):
    if letterbox:
        image = cv2.copyMakeBorder(
            cv2.resize(image, inner, interpolation=cv2.INTER_LINEAR), top, height - inner[1] - top,
            left, width - inner[0] - left, cv2.BORDER_CONSTANT, value=fill)
    return cv2.dnn.blobFromImage(image, factor, (width, height), mean, swapRB=swap)


def answer(outputs):
    if decode["kind"] == "classification":
        scores = outputs[decode["output"]][0]
        if decode["activation"] == "softmax":
            scores = np.exp(scores - scores.max())
            scores /= scores.sum()
        best = np.argsort(-scores)[: decode.get("top_k", 5)]
        return [{"class": int(c), "score": float(scores[c])} for c in best]
    keep = decode["keep"]
    if decode["kind"] == "boxes_scores":
        boxes, scores = outputs[decode["boxes"]].reshape(-1, 4), outputs[decode["scores"]]
        scores = scores.reshape(len(boxes), -1)
        background = decode.get("background")
        if background == 0:
            scores = scores[:, 1:]
        elif background is not None:
            scores = np.delete(scores, background, axis=1)
        unit = np.array([width, height] * 2, np.float32) if decode["units"] == "normalized" else np.float32(1)
        centre = decode["format"] == "center"
    elif decode["kind"] == "yolo":
        rows = outputs[decode["output"]][0]
        if decode["version"] == "v8":
            boxes, scores = rows[:4].T, rows[4:].T
        else:
            boxes, scores = rows[:, :4], rows[:, 5:] * rows[:, 4:5]
        unit, centre = np.float32(1), True
    else:
        return outputs
    wanted = (scores >= keep["score_threshold"]).any(1)
    boxes, scores = boxes[wanted] * unit, scores[wanted]
    classes, best = scores.argmax(1), scores.max(1)
    if centre:
        corners = np.concatenate([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], 1)
    else:
        corners = boxes
    places = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], 1)
    if keep.get("class_agnostic"):
        kept = cv2.dnn.NMSBoxes(places, best, keep["score_threshold"], keep["iou_threshold"])
    else:
        kept = cv2.dnn.NMSBoxesBatched(places, best, classes, keep["score_threshold"], keep["iou_threshold"])
    kept = np.array(kept, int).ravel()[: keep.get("max_detections", 300)]
    boxes = np.clip((corners[kept] - back_offset) * back_scale, 0, original * 2)
    return [{"label": manifest["labels"][c], "score": float(s), "box": b.tolist()}
            for c, s, b in zip(classes[kept], best[kept], boxes)]


names = [output.name for output in session.get_outputs()]
stages = ["decode", "preprocess", "infer", "postprocess", "total", "bare_run"]
times = {stage: [] for stage in stages}


def load():
    t0 = time.perf_counter()
    image = cv2.imdecode(np.frombuffer(picture, np.uint8), reading)
    t1 = time.perf_counter()
    return prepare(image), t1 - t0, time.perf_counter() - t1


def in_turn():
    """One thing after the other, each frame followed by a bare run."""
    for at in range(20 + frames):
        t0 = time.perf_counter()
        tensor, decoding, preparing = load()
        t2 = time.perf_counter()
        outputs = session.run(names, {spec["name"]: tensor})
        t3 = time.perf_counter()
        found = answer(dict(zip(names, outputs)))
        t4 = time.perf_counter()
        session.run(names, {spec["name"]: tensor})
        t5 = time.perf_counter()
        if at >= 20:
            for stage, seconds in zip(stages, [decoding, preparing, t3 - t2, t4 - t3, t4 - t0, t5 - t4]):
                times[stage].append(seconds * 1e3)
    return found


def with_a_thread():
    """`total` is the period from answer to answer; the bare runs come after."""
    ready = queue.Queue(1)

    def feed():
        for _ in range(20 + frames):
            ready.put(load())

    threading.Thread(target=feed, daemon=True).start()
    last = time.perf_counter()
    for at in range(20 + frames):
        tensor, decoding, preparing = ready.get()
        t2 = time.perf_counter()
        outputs = session.run(names, {spec["name"]: tensor})
        t3 = time.perf_counter()
        found = answer(dict(zip(names, outputs)))
        t4 = time.perf_counter()
        if at >= 20:
            for stage, seconds in zip(stages, [decoding, preparing, t3 - t2, t4 - t3, t4 - last]):
                times[stage].append(seconds * 1e3)
        last = t4
    for _ in range(frames):
        start = time.perf_counter()
        session.run(names, {spec["name"]: tensor})
        times["bare_run"].append((time.perf_counter() - start) * 1e3)
    return found


found = with_a_thread() if ahead else in_turn()
result = {stage: statistics.median(values) for stage, values in times.items()}
if ahead:
    # The queue makes single periods short and long in turn; what counts is how many there are.
    result["total"] = statistics.fmean(times["total"])
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps({**result, "frames": frames, "threads": threads, "found": len(found), "peak_bytes": peak,
                  "runtime": ort.__version__}))
