"""ONNX files in: checked, read with their sizes, and brought into the graph that every pass works on."""
