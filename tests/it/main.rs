/// An ONNX file, a bundle, answers on pictures.
mod predict;
