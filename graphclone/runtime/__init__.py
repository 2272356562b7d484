"""The parts that compute: the widening kernel, maps of tensors, the interpreter, ONNX Runtime, whole files."""
