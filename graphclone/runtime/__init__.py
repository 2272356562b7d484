"""What computes: the widening kernel, maps of tensors, the interpreter, sessions of ONNX Runtime, whole files."""
