"""Runs all benchmarks and prints one line per timing."""

from collections.abc import Callable, Iterable

from tests.bench import bench_analysis, bench_checkpoints, bench_kernel, bench_onnx

BENCHMARKS: tuple[Callable[[], Iterable[object]], ...] = (
    bench_kernel.widen_linear,
    bench_kernel.widen_in_blocks,
    bench_analysis.trace_decoder,
    bench_analysis.analyse_decoder,
    bench_onnx.read_long_file,
    bench_onnx.widen_file,
    bench_checkpoints.clone_in_memory,
    bench_checkpoints.clone_checkpoints,
)


def main() -> None:
    """Prints work, yardstick and ratio, medians in milliseconds."""
    for benchmark in BENCHMARKS:
        for timing in benchmark():
            print(timing, flush=True)


if __name__ == "__main__":
    main()
