#!/usr/bin/env python3
"""Makes the tiny models of this folder: pip install onnx==1.19.0 numpy; ./make.py

mean_*.onnx give the mean of each channel of the picture, so that a test can tell what reached the
tensor. The others are broken in one way each, as their names say.
"""
import pathlib
import onnx
from onnx import TensorProto as T, helper as h

HERE = pathlib.Path(__file__).parent


def save(name, nodes, inputs, outputs, opset=13, ir=8, weights={}):
    info = lambda port: h.make_tensor_value_info(port[0], port[1], port[2])
    graph = h.make_graph(nodes, name, [info(i) for i in inputs], [info(o) for o in outputs],
                         [h.make_tensor(key, T.FLOAT, [], [value]) for key, value in weights.items()])
    model = h.make_model(graph, opset_imports=[h.make_opsetid("", opset)], producer_name="edgewarden tests")
    model.ir_version = ir
    (HERE / f"{name}.onnx").write_bytes(model.SerializeToString())


mean = [h.make_node("GlobalAveragePool", ["x"], ["p"]), h.make_node("Flatten", ["p"], ["y"])]
nchw, out = ("x", T.FLOAT, [1, 3, 8, 8]), ("y", T.FLOAT, [1, 3])

save("mean_f32", mean, [nchw], [out])
save("mean_open", mean, [("x", T.FLOAT, ["n", 3, "h", "w"])], [("y", T.FLOAT, ["n", 3])])
save("mean_grey", mean, [("x", T.FLOAT, [1, 1, 8, 8])], [("y", T.FLOAT, [1, 1])])
save(
    "mean_f16",
    [h.make_node("Cast", ["x"], ["f"], to=T.FLOAT), h.make_node("GlobalAveragePool", ["f"], ["p"]),
     h.make_node("Flatten", ["p"], ["g"]), h.make_node("Cast", ["g"], ["y"], to=T.FLOAT16)],
    [("x", T.FLOAT16, [1, 3, 8, 8])], [("y", T.FLOAT16, [1, 3])],
)
for name, kind in [("u8", T.UINT8), ("i8", T.INT8)]:
    save(
        f"mean_{name}_nhwc",
        [h.make_node("Cast", ["x"], ["f"], to=T.FLOAT), h.make_node("ReduceMean", ["f"], ["y"], axes=[1, 2], keepdims=0)],
        [("x", kind, [1, 8, 8, 3])], [out],
    )
save("nan", mean[:1] + [h.make_node("Flatten", ["p"], ["f"]), h.make_node("Neg", ["f"], ["m"]),
                        h.make_node("Log", ["m"], ["y"])], [nchw], [out])
save("two_inputs", [h.make_node("Add", ["x", "z"], ["a"])] + [h.make_node("GlobalAveragePool", ["a"], ["p"]),
     h.make_node("Flatten", ["p"], ["y"])], [nchw, ("z", T.FLOAT, [1, 3, 8, 8])], [out])
save("newer_opset", mean, [nchw], [out], opset=99)
save("newer_ir", mean, [nchw], [out], ir=99)
save("unknown_operator", [h.make_node("Frobnicate", ["x"], ["y"])], [nchw], [out])

# Models of time series: the mean of each channel, and one that gives back what lies within -1 to 1.
series = ("x", T.FLOAT, [1, 3, 16])
save("series_mean", [h.make_node("ReduceMean", ["x"], ["y"], axes=[2], keepdims=0)], [series], [out])
save("series_clip", [h.make_node("Clip", ["x", "low", "high"], ["y"])], [series], [("y", T.FLOAT, [1, 3, 16])],
     weights={"low": -1.0, "high": 1.0})
