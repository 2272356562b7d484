"""Runs all benchmarks, or those whose names are given, and prints one line of a table for every figure."""

import os
import platform
import sys
from collections.abc import Callable, Iterable

import onnxruntime
import torch
import transformers

from tests.bench import (
    HEADER,
    bench_analysis,
    bench_checkpoints,
    bench_gpu,
    bench_kernel,
    bench_memory,
    bench_onnx,
    bench_shapes,
)

BENCHMARKS: dict[str, tuple[Callable[[], Iterable[object]], ...]] = {
    "kernel": (bench_kernel.widen_linear, bench_kernel.widen_in_blocks),
    "gpu": (bench_gpu.widen_on_gpu,),
    "analysis": (bench_analysis.trace_decoder, bench_analysis.analyse_decoder),
    "onnx": (bench_onnx.read_long_file, bench_onnx.widen_file),
    "memory": (bench_memory.first_touch, bench_memory.clone_in_memory),
    "plan": (bench_checkpoints.plan_again,),
    "checkpoints": (bench_checkpoints.clone_checkpoints, bench_checkpoints.verify_clone),
    "shapes": (bench_shapes.plan_like, bench_shapes.stream_pads),
}


def main() -> None:
    """Prints where it runs, and figure, anchor and ratio of everything."""
    print(machine(), end="\n\n")
    print(HEADER)
    for name in sys.argv[1:] or BENCHMARKS:
        for benchmark in BENCHMARKS[name]:
            for figure in benchmark():
                print(figure, flush=True)


def machine() -> str:
    """The machine and the versions, in a line; how busy it is, since that is what figures suffer from."""
    modules = {module.__name__: module.__version__ for module in (torch, transformers, onnxruntime)}
    packages = ", ".join(f"{name} {version}" for name, version in modules.items())
    load = f"load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    cores = f"{os.cpu_count()} cores, {torch.get_num_threads()} threads of torch"
    return f"{platform.machine()}, {cores}, {load}; Python {platform.python_version()}, {packages}"


if __name__ == "__main__":
    main()
