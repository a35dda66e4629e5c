#!/usr/bin/env python3
"""Makes the models of the benchmark: bench_models.py PROGRAM WORK DATA.

Prints one line for each bundle: its name, its folder, and the picture. From DATA (../shared/data) it takes
UltraFace as it was published, and the same with its weights no longer listed as inputs of the graph. The
classifier is made here: the blocks of MobileNetV2 at 224x224, about 5 MB of random weights, which take the
same time as trained ones.
"""
import json
import pathlib
import subprocess
import sys

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

program, work, data = (pathlib.Path(arg) for arg in sys.argv[1:4])


def bundle(name, model, edit):
    folder = work / name
    subprocess.run([program, "bundle", "init", "--force", model, folder], check=True, stdout=subprocess.DEVNULL)
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    edit(manifest)
    manifest["name"] = name
    # Both sides decode at the nearest size above the model's input.
    manifest["inputs"][0]["jpeg"] = "fast"
    path.write_text(json.dumps(manifest))
    subprocess.run([program, "bundle", "seal", folder], check=True, stdout=subprocess.DEVNULL)
    return folder


def faces(manifest):
    manifest["inputs"][0].update(scale=1, mean=[127], std=[128])
    manifest["decode"]["keep"].update(score_threshold=0.7, iou_threshold=0.3)
    manifest["labels"] = ["face"]


def cleaned(model):
    graph = onnx.load(model)
    weights = {weight.name for weight in graph.graph.initializer}
    inputs = [value for value in graph.graph.input if value.name not in weights]
    del graph.graph.input[:]
    graph.graph.input.extend(inputs)
    path = work / "ultraface-clean.onnx"
    onnx.save(graph, path)
    return path


def classifier():
    """MobileNetV2 (Sandler et al. 2018, table 2) at width 0.5, 1000 classes."""
    random = np.random.default_rng(1)
    nodes, weights = [], []

    def weight(shape, scale):
        name = f"w{len(weights)}"
        values = (random.standard_normal(shape) * scale).astype(np.float32)
        weights.append(numpy_helper.from_array(values, name))
        return name

    def node(kind, inputs, **attributes):
        name = f"t{len(nodes)}"
        nodes.append(helper.make_node(kind, inputs, [name], **attributes))
        return name

    def conv(x, c_in, c_out, kernel=1, stride=1, group=1, relu=True):
        shape = (c_out, c_in // group, kernel, kernel)
        pads = [kernel // 2] * 4
        x = node("Conv", [x, weight(shape, (2 / np.prod(shape[1:])) ** 0.5), weight((c_out,), 0.01)],
                 kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=pads, group=group)
        return node("Clip", [x, "zero", "six"]) if relu else x

    weights.append(numpy_helper.from_array(np.float32(0).reshape(()), "zero"))
    weights.append(numpy_helper.from_array(np.float32(6).reshape(()), "six"))
    channels = 16
    x = conv("image", 3, channels, 3, 2)
    for expand, c, repeat, stride in [(1, 8, 1, 1), (6, 16, 2, 2), (6, 16, 3, 2), (6, 32, 4, 2), (6, 48, 3, 1),
                                      (6, 80, 3, 2), (6, 160, 1, 1)]:
        for at in range(repeat):
            step, wide = stride if at == 0 else 1, channels * expand
            y = conv(x, channels, wide) if expand > 1 else x
            y = conv(y, wide, wide, 3, step, wide)
            y = conv(y, wide, c, relu=False)
            x = node("Add", [x, y]) if step == 1 and c == channels else y
            channels = c
    x = node("Flatten", [node("GlobalAveragePool", [conv(x, channels, 640)])])
    nodes.append(helper.make_node("Gemm", [x, weight((1000, 640), 0.05), weight((1000,), 0.01)], ["logits"], transB=1))
    graph = helper.make_graph(
        nodes, "classifier", [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, 224, 224])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 1000])], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
    model.ir_version = 8
    path = work / "classifier.onnx"
    onnx.save(model, path)
    return path


def classes(manifest):
    manifest["inputs"][0].update(scale=1, mean=[123.675, 116.28, 103.53], std=[58], fit="stretch", color="rgb")
    manifest["decode"] = {"kind": "classification", "output": "logits", "activation": "softmax", "top_k": 5}
    manifest["labels"] = []


picture = data / "frames/f00.jpg"
published = data / "ultraface/version-RFB-320.onnx"
if published.exists():
    print("ultraface", bundle("ultraface", published, faces), picture)
    print("ultraface-clean", bundle("ultraface-clean", cleaned(published), faces), picture)
else:
    import cv2

    # What the demo's models know, as large as a camera's picture.
    picture = work / "belt-1280x720.jpg"
    small = cv2.imread("packaging/models/v2/golden/1.jpg")
    large = cv2.resize(small, (1280, 720), interpolation=cv2.INTER_CUBIC)
    cv2.imwrite(str(picture), large, [cv2.IMWRITE_JPEG_QUALITY, 85])
    print("demo", "packaging/models/v2", picture)
print("classifier", bundle("classifier", classifier(), classes), picture)
