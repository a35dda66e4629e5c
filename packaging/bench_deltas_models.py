#!/usr/bin/env python3
"""Makes the pairs of models for bench-deltas.sh: MobileNetV2 as ONNX, with synthetic weights and with trained ones.

    bench_deltas_models.py FOLDER [--train]

Each pair is FOLDER/NAME/old.onnx and FOLDER/NAME/new.onnx. The trained network learns figures that are drawn here, and is
then fine-tuned on figures of other colours and more noise. Nothing is fetched.
"""

import argparse
import pathlib

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

# Expansion, channels, repeats, stride: table 2 of the MobileNetV2 paper (arXiv 1801.04381).
BLOCKS = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]


def layers():
    """Name, kind, output channels, input channels, stride, of every convolution; and where a sum closes."""
    found = [("stem", "conv", 32, 3, 2, None)]
    channels = 32
    for number, (expansion, out, repeats, stride) in enumerate(BLOCKS):
        for repeat in range(repeats):
            step = stride if repeat == 0 else 1
            name, inner = f"block{number}.{repeat}", channels * expansion
            sums = step == 1 and channels == out
            if expansion > 1:
                found.append((f"{name}.expand", "point", inner, channels, 1, "begin"))
            found.append((f"{name}.depth", "depth", inner, inner, step, None if expansion > 1 else "begin"))
            found.append((f"{name}.project", "linear", out, inner, 1, "sum" if sums else "end"))
            channels = out
    found.append(("head", "point", 1280, channels, 1, None))
    return found


def shape(kind, out, inner):
    return {"conv": (out, inner, 3, 3), "depth": (out, 1, 3, 3)}.get(kind, (out, inner, 1, 1))


def synthetic(classes, random):
    weights = {}
    for name, kind, out, inner, _, _ in layers():
        form = shape(kind, out, inner)
        spread = np.sqrt(2 / np.prod(form[1:]))
        weights[f"{name}.weight"] = random.normal(0, spread, form).astype(np.float32)
        weights[f"{name}.bias"] = random.normal(0, 0.1, out).astype(np.float32)
    return weights | last_layer(classes, random)


def last_layer(classes, random):
    return {
        "classifier.weight": random.normal(0, 0.03, (classes, 1280)).astype(np.float32),
        "classifier.bias": random.normal(0, 0.01, classes).astype(np.float32),
    }


def save(path, weights, classes, size=224, note="first", int8=False):
    """The graph with these weights; int8: each stored as whole numbers with a scale a channel."""
    nodes, stored = [], []

    def weight(name):
        value = weights[name]
        if not int8 or value.ndim < 2:
            stored.append(numpy_helper.from_array(value, name))
            return name
        scale = np.abs(value).reshape(len(value), -1).max(axis=1) / 127 + 1e-12
        whole = np.round(value / scale.reshape(-1, *[1] * (value.ndim - 1))).clip(-127, 127).astype(np.int8)
        stored.append(numpy_helper.from_array(whole, f"{name}.int8"))
        stored.append(numpy_helper.from_array(scale.astype(np.float32), f"{name}.scale"))
        stored.append(numpy_helper.from_array(np.zeros(len(value), np.int8), f"{name}.zero"))
        nodes.append(helper.make_node(
            "DequantizeLinear", [f"{name}.int8", f"{name}.scale", f"{name}.zero"], [name], axis=0))
        return name

    for bound, value in (("zero", 0), ("six", 6)):
        stored.append(numpy_helper.from_array(np.array(value, np.float32), bound))
    at, begun = "image", None
    for name, kind, out, inner, stride, mark in layers():
        if mark == "begin":
            begun = at
        pads = [1, 1, 1, 1] if kind in ("conv", "depth") else [0, 0, 0, 0]
        nodes.append(helper.make_node(
            "Conv", [at, weight(f"{name}.weight"), weight(f"{name}.bias")], [name], name=name,
            strides=[stride, stride], pads=pads, group=inner if kind == "depth" else 1))
        at = name
        if kind != "linear":
            nodes.append(helper.make_node("Clip", [at, "zero", "six"], [f"{name}.relu"]))
            at = f"{name}.relu"
        if mark == "sum":
            nodes.append(helper.make_node("Add", [at, begun], [f"{name}.sum"]))
            at = f"{name}.sum"
    nodes.append(helper.make_node("GlobalAveragePool", [at], ["pooled"]))
    nodes.append(helper.make_node("Flatten", ["pooled"], ["flat"]))
    nodes.append(helper.make_node(
        "Gemm", ["flat", weight("classifier.weight"), weight("classifier.bias")], ["scores"], transB=1))
    graph = helper.make_graph(
        nodes, "mobilenet_v2",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, size, size])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, classes])], stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], producer_name="bench", ir_version=9)
    model.doc_string = note
    helper.set_model_props(model, {"note": note})
    onnx.checker.check_model(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(model.SerializeToString())


def synthetic_pairs(folder):
    random = np.random.default_rng(1)
    big, small = synthetic(1000, random), synthetic(10, random)
    moved = {name: (value * (1 + random.normal(0, 1e-3, value.shape))).astype(np.float32) for name, value in big.items()}
    words = "second, with other words about where it comes from"
    for name, classes, old, new, note, int8 in [
        ("metadata", 1000, big, big, words, False),
        ("last-layer-10", 10, small, small | last_layer(10, random), "first", False),
        ("last-layer-1000", 1000, big, big | last_layer(1000, random), "first", False),
        ("all-moved-0.1%", 1000, big, moved, "first", False),
        ("all-moved-0.1%-int8", 1000, big, moved, "first", True),
    ]:
        save(folder / name / "old.onnx", old, classes, int8=int8)
        save(folder / name / "new.onnx", new, classes, note=note, int8=int8)


def trained_pairs(folder, steps, more, classes=20, size=48, batch=32):
    import jax
    import jax.numpy as jnp

    random = np.random.default_rng(2)

    def picture(label, colours, noise):
        """A figure of one of 5 forms and 4 sizes on a ground with a slope."""
        form, scale = label % 5, 8 + 5 * (label // 5)
        y, x = np.mgrid[0:size, 0:size].astype(np.float32)
        cy, cx = random.uniform(scale, size - scale, 2)
        dy, dx = y - cy, x - cx
        inside = [
            dx**2 + dy**2 < scale**2,
            np.maximum(abs(dx), abs(dy)) < scale * 0.8,
            abs(dx) + abs(dy) < scale,
            (abs(dx) < scale * 0.3) | (abs(dy) < scale * 0.3),
            (dx**2 + dy**2 < scale**2) & (dx**2 + dy**2 > (scale * 0.6) ** 2),
        ][form] & (np.maximum(abs(dx), abs(dy)) < scale)
        ground = random.uniform(0, 0.5, 3) + random.uniform(-0.3, 0.3, 3) * (x / size)[..., None]
        colour = np.asarray(colours[label % len(colours)]) + random.normal(0, 0.1, 3)
        return (np.where(inside[..., None], colour, ground) + random.normal(0, noise, (size, size, 3))).astype(np.float32)

    def batch_of(colours, noise):
        labels = random.integers(0, classes, batch)
        return np.stack([picture(label, colours, noise) for label in labels]), labels

    weights = synthetic(classes, random)
    norms = {}
    state = {}
    for name, kind, out, inner, _, _ in layers():
        del weights[f"{name}.bias"]
        norms[name] = (np.ones(out, np.float32), np.zeros(out, np.float32))
        state[name] = (np.zeros(out, np.float32), np.ones(out, np.float32))

    def forward(parameters, images, kept=None):
        weights, norms = parameters
        at, begun, seen = images, None, {}
        for name, kind, out, inner, stride, mark in layers():
            if mark == "begin":
                begun = at
            weight = weights[f"{name}.weight"]
            if kind == "conv":
                at = jax.lax.conv_general_dilated(
                    at, weight.transpose(2, 3, 1, 0), (stride, stride), [(1, 1), (1, 1)],
                    dimension_numbers=("NHWC", "HWIO", "NHWC"))
            elif kind == "depth":
                # Nine shifted products: quicker here than a grouped convolution and its gradient.
                high, wide = at.shape[1], at.shape[2]
                padded = jnp.pad(at, ((0, 0), (1, 1), (1, 1), (0, 0)))
                at = sum(
                    padded[:, i : i + high : stride, j : j + wide : stride] * weight[:, 0, i, j]
                    for i in range(3) for j in range(3))
            else:
                at = at @ weight[:, :, 0, 0].T
            if kept is None:
                mean, variance = at.mean((0, 1, 2)), at.var((0, 1, 2))
                seen[name] = (mean, variance)
            else:
                mean, variance = kept[name]
            gain, shift = norms[name]
            at = (at - mean) * jax.lax.rsqrt(variance + 1e-3) * gain + shift
            if kind != "linear":
                at = jnp.clip(at, 0, 6)
            if mark == "sum":
                at = at + begun
        flat = at.mean((1, 2))
        return flat @ weights["classifier.weight"].T + weights["classifier.bias"], seen

    def loss(parameters, images, labels):
        scores, seen = forward(parameters, images)
        right = jax.nn.log_softmax(scores)[jnp.arange(len(labels)), labels]
        return -right.mean(), (seen, (scores.argmax(1) == labels).mean())

    @jax.jit
    def step(parameters, first, second, kept, images, labels, rate, number):
        (value, (seen, share)), slope = jax.value_and_grad(loss, has_aux=True)(parameters, images, labels)
        first = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, first, slope)
        second = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, second, slope)
        fix1, fix2 = 1 - 0.9**number, 1 - 0.999**number
        parameters = jax.tree.map(
            lambda p, m, v: p - rate * (m / fix1) / (jnp.sqrt(v / fix2) + 1e-8), parameters, first, second)
        kept = jax.tree.map(lambda k, s: 0.95 * k + 0.05 * s, kept, seen)
        return parameters, first, second, kept, value, share

    def train(parameters, kept, count, colours, noise, rate, what):
        zeros = jax.tree.map(jnp.zeros_like, parameters)
        first, second = zeros, zeros
        for number in range(1, count + 1):
            images, labels = batch_of(colours, noise)
            parameters, first, second, kept, value, share = step(
                parameters, first, second, kept, images, labels, rate, float(number))
            if number % 20 == 0 or number == count:
                print(f"{what}: step {number} of {count}, loss {float(value):.3f}, right {float(share):.2f}", flush=True)
        return parameters, kept

    def folded(parameters, kept):
        """The weights with the normalisation in them, as an exporter writes them."""
        weights, norms = jax.tree.map(np.asarray, parameters)
        folded = {name: value for name, value in weights.items() if name.startswith("classifier")}
        for name, kind, out, inner, _, _ in layers():
            mean, variance = (np.asarray(part) for part in kept[name])
            gain, shift = norms[name]
            factor = gain / np.sqrt(variance + 1e-3)
            folded[f"{name}.weight"] = (weights[f"{name}.weight"] * factor[:, None, None, None]).astype(np.float32)
            folded[f"{name}.bias"] = (shift - mean * factor).astype(np.float32)
        return folded

    bright = [(0.9, 0.2, 0.2), (0.2, 0.9, 0.2), (0.3, 0.4, 1.0), (0.9, 0.9, 0.3)]
    dull = [(0.7, 0.5, 0.3), (0.5, 0.7, 0.5), (0.5, 0.5, 0.8), (0.8, 0.7, 0.6)]
    parameters, kept = train((weights, norms), state, steps, bright, 0.05, 2e-3, "training")
    before = folded(parameters, kept)
    for name, rate in [("tuned-1e-4", 1e-4), ("tuned-1e-5", 1e-5)]:
        tuned, tuned_kept = train(parameters, kept, more, dull, 0.15, rate, f"fine-tuning, rate {rate}")
        after = folded(tuned, tuned_kept)
        for int8 in (False, True):
            pair = folder / (name + "-int8" if int8 else name)
            save(pair / "old.onnx", before, classes, size=size, int8=int8)
            save(pair / "new.onnx", after, classes, size=size, int8=int8)
    # Only the last layer is taken over, as if the trunk had been frozen.
    tuned, _ = train(parameters, kept, more, dull, 0.15, 1e-3, "fine-tuning for the last layer")
    last = {name: np.asarray(value) for name, value in tuned[0].items() if name.startswith("classifier")}
    save(folder / "tuned-last-layer" / "old.onnx", before, classes, size=size)
    save(folder / "tuned-last-layer" / "new.onnx", before | last, classes, size=size)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--train", action="store_true")
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--more", type=int, default=30)
    arguments = parser.parse_args()
    synthetic_pairs(arguments.folder)
    if arguments.train:
        trained_pairs(arguments.folder, arguments.steps, arguments.more)
