"""ONNX operators in float64, by onnx's reference implementation where it is right."""
