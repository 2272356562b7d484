"""Runs all benchmarks and prints one line per timing."""

from collections.abc import Callable, Iterable

from tests.bench import Timing, bench_analysis, bench_kernel, bench_onnx

BENCHMARKS: tuple[Callable[[], Iterable[Timing]], ...] = (
    bench_kernel.widen_linear,
    bench_analysis.analyse_decoder,
    bench_onnx.widen_file,
)


def main() -> None:
    """Prints work, yardstick and ratio, medians in milliseconds."""
    for benchmark in BENCHMARKS:
        for timing in benchmark():
            print(timing, flush=True)


if __name__ == "__main__":
    main()
