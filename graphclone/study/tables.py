"""The report of a study, from its runs alone: what was run, how it ended, and what is not done yet."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from math import isfinite
from pathlib import Path

from graphclone.errors import GraphcloneError
from graphclone.runtime.files import written
from graphclone.study.curve_tables import downstream, results_by_gap
from graphclone.study.curves import CurveGroup, curves
from graphclone.study.markdown import files, table
from graphclone.study.measures import (
    MARGIN,
    RunGroup,
    Speedup,
    comparisons,
    dip,
    final_loss,
    in_order,
    spread,
)
from graphclone.study.recipes import RANDOM
from graphclone.study.records import Run, read_runs

NOTES: Mapping[str, str] = {
    "¹": "In this many of the seeds the clone ends above the random model's last loss; a mean is over the others.",
    "²": "The clone is below the random model's last loss before its first step, so there is no ratio of steps.",
    "³": "In this many of the seeds the random model does not end clearly below the base (by "
    f"{MARGIN} nats, or twice the base's noise): the base knew all that is asked for, and how soon a clone is there "
    "says nothing; a mean is over the others.",
    "⁴": "In this many of the seeds the loss did not come back to what the clone began with.",
}
"""What the marks in the tables mean."""

REPORT = "report.md"

_LEGEND = """\
Losses are validation losses in nats per token; ± is the sample's standard deviation over seeds. *Speedup*: steps until
the random model is at its own last loss for good, over the steps until the clone is; mean (least..greatest) over seeds.
*With base*: the same in training compute, 6 × parameters × tokens, with all of the base's training counted as the
clone's. *Dip*: how far the loss first rises above what the clone began with; *back at*: the step from which on it is
back. *Row*, *column*: cosine of weights that are copies of each other; *swap*: of each weight and itself with all
copies exchanged, which stays 1 as long as the copies cannot part. *Rank*: effective rank over full rank."""

_LEARNT = "accuracy brackets indentation identifiers".split()
_GEOMETRY = "row_cosine column_cosine swap_cosine effective_rank".split()
_HEADINGS = [
    *"recipe seeds loss accuracy brackets indentation identifiers speedup".split(),
    *["with base", "dip", "back at", "row", "column", "swap", "rank", "runs"],
]


def report(folder: Path) -> str:
    """The report in Markdown, without plots.

    Raises:
        GraphcloneError: the folder holds no runs, or a file of one is damaged.
    """
    runs = read_runs(folder)
    return _markdown(runs, comparisons(runs), curves(runs), {})


def write_report(folder: Path) -> Path:
    """Write ``report.md`` and, where matplotlib is installed, ``plots/*.svg``; returns the report's path.

    Raises:
        GraphcloneError: the folder holds no runs, a file of one is damaged, or nothing can be written there.
    """
    runs = read_runs(folder)
    path = folder / REPORT
    groups, budgets = comparisons(runs), curves(runs)
    text = _markdown(runs, groups, budgets, _drawn(groups, budgets, folder))
    with written(path) as target:
        target.write_text(text, encoding="utf-8")
    return path


def _drawn(groups: Sequence[RunGroup], budgets: Sequence[CurveGroup], folder: Path) -> dict[str, str] | None:
    """Where each plot is, from the folder, by the slug of what it shows; None where nothing can draw."""
    if find_spec("matplotlib") is None:
        return None
    from graphclone.study.plots import draw

    plots = folder / "plots"
    try:
        plots.mkdir(exist_ok=True)
    except OSError as error:
        raise GraphcloneError(f"cannot write to {plots}: {error.strerror or error}") from error
    return {slug: path.relative_to(folder).as_posix() for slug, path in draw(groups, budgets, plots).items()}


def _markdown(
    runs: Sequence[Run],
    groups: Sequence[RunGroup],
    budgets: Sequence[CurveGroup],
    plots: Mapping[str, str] | None,
) -> str:
    names = [run.name for run in runs]
    sections = ["# Study", _what_was_run(runs)]
    sections += results_by_gap(budgets, names, plots or {})
    sections += ["## Results", _LEGEND] if groups else []
    sections += ["No plots were drawn: matplotlib is not installed."] if plots is None else []
    sections += [_results(each, names, plots or {}) for each in groups]
    sections += downstream(runs)
    sections += [_unfinished(runs)] if any(not run.finished for run in runs) else []
    return "\n\n".join(sections) + "\n"


# --- What was run ---


def _what_was_run(runs: Sequence[Run]) -> str:
    alike: dict[tuple[str, ...], list[Run]] = defaultdict(list)
    for run in runs:
        alike[_setup(run)].append(run)
    by_steps = sorted(alike.items(), key=lambda item: (item[0][:2], item[1][0].steps, item[0]))
    rows = [[*setup, str(len(same)), _recipes(same)] for setup, same in by_steps]
    headings = "model,what,parameters,steps,batch,context,tokens,learning rate,warmup,corpus,runs,recipes".split(",")
    digests = sorted({run.corpus for run in runs})
    commands = sorted({run.command for run in runs})
    lines = [f"Corpus: {', '.join(f'`{digest}`' for digest in digests)}"]
    if len(digests) > 1:
        lines[0] += ". Losses on different corpora cannot be compared, and no speedup is taken between them."
    lines += ["", *(f"    {command}" for command in commands)]
    return "## What was run\n\n" + "\n".join(lines) + "\n\n" + table(headings, rows, left=(0, 1, 9, 11))


def _recipes(runs: Sequence[Run]) -> str:
    return ", ".join(in_order({run.recipe for run in runs if run.recipe}))


def _setup(run: Run) -> tuple[str, ...]:
    base = f"base {run.base_label or ''}".rstrip()
    what = {"base": base, "control": f"{base}, trained on"}.get(run.kind, f"grown {run.factor}x")
    sizes = (run.parameters, run.steps, run.batch, run.context, run.steps * run.batch * run.context)
    rate = (f"{run.learning_rate:g}", f"{run.warmup:,}", run.corpus[:12])
    return (run.model, what, *(f"{size:,}" for size in sizes), *rate)


def _unfinished(runs: Sequence[Run]) -> str:
    rows = []
    for run in runs:
        if run.finished:
            continue
        step = run.evaluations[-1].step if run.evaluations else 0
        loss = f"{run.evaluations[-1].loss:.3f}" if run.evaluations else ""
        rows.append([f"`{run.name}`", f"{step:,}", f"{run.steps:,}", f"{100 * step / run.steps:.0f}%", loss])
    text = "These runs are not done, and no number above comes from them."
    return f"## Unfinished\n\n{text}\n\n" + table("run,step,of,done,loss".split(","), rows, left=(0,))


# --- Results ---


@dataclass
class _Marks:
    """The marks that a table uses."""

    used: set[str] = field(default_factory=set)

    def mark(self, text: str, sign: str) -> str:
        self.used.add(sign)
        return text + sign

    @property
    def notes(self) -> str:
        return "  \n".join(f"{sign} {note}" for sign, note in NOTES.items() if sign in self.used)


def _results(group: RunGroup, names: Sequence[str], plots: Mapping[str, str]) -> str:
    marks = _Marks()
    base = f", base {group.base_label}" if group.base_label else ""
    rows = [_base_row(group, names)] if group.bases else []
    rows += [_row(group, recipe, names, marks) for recipe in group.recipes]
    title = f"### {group.model}, {group.factor}x{base}"
    parts = [title, table(_HEADINGS, rows, left=(0, len(_HEADINGS) - 1)), marks.notes]
    if group.slug in plots:
        parts.append(f"![Loss and symmetry of {title[4:]}]({plots[group.slug]})")
    return "\n\n".join(part for part in parts if part)


def _base_row(group: RunGroup, names: Sequence[str]) -> list[str]:
    runs = group.bases
    rank = _mean(run.evaluations[-1].effective_rank for run in runs)
    return ["*base*", str(len(runs)), *_ends(runs), *[""] * 7, rank, files(runs, names)]


def _row(group: RunGroup, recipe: str, names: Sequence[str], marks: _Marks) -> list[str]:
    runs = group.recipes[recipe]
    gains = group.speedups(recipe)
    ratios = [_speedup(gains, marks, of) for of in (_ratio, _ratio_with_base)]
    dips = ["", ""] if recipe == RANDOM else _dips(runs, marks)
    geometry = [_mean(getattr(run.evaluations[-1], name) for run in runs) for name in _GEOMETRY]
    return [recipe, str(len(runs)), *_ends(runs), *ratios, *dips, *geometry, files(runs, names)]


def _ends(runs: Sequence[Run]) -> list[str]:
    """The final loss and what was learnt."""
    loss = spread(final_loss(run) for run in runs)
    assert loss is not None, "a comparison has no empty recipe"
    ends = [run.evaluations[-1] for run in runs]
    return [
        str(loss) if isfinite(loss.mean) else "diverged",
        *(_mean(getattr(e, name) for e in ends) for name in _LEARNT),
    ]


def _ratio(gain: Speedup) -> float | None:
    return gain.ratio


def _ratio_with_base(gain: Speedup) -> float | None:
    return gain.ratio_with_base


def _speedup(gains: Sequence[Speedup], marks: _Marks, of: Callable[[Speedup], float | None]) -> str:
    """A cell of speedups: the mean over seeds with its range, or why there is none."""
    if not gains:
        return ""
    clear = [gain for gain in gains if gain.meaningful]
    without = marks.mark(f"{len(gains) - len(clear)} no gap ", "³") if len(clear) < len(gains) else ""
    return ", ".join(text for text in (_of_clear(clear, marks, of), without) if text)


def _of_clear(gains: Sequence[Speedup], marks: _Marks, of: Callable[[Speedup], float | None]) -> str:
    never = sum(gain.clone_steps is None for gain in gains)
    ratio = spread(of(gain) for gain in gains)
    if ratio is None:
        return _no_ratio(gains, never, marks)
    text = f"{ratio.mean:.2f}"
    if ratio.count > 1:
        text += f" ({ratio.low:.2f}..{ratio.high:.2f})"
    if any(gain.begins_below for gain in gains):
        text = marks.mark(f"{text} ", "²")
    return marks.mark(f"{text}, {never} never ", "¹") if never else text


def _no_ratio(gains: Sequence[Speedup], never: int, marks: _Marks) -> str:
    if never:
        return marks.mark(f"{never} never ", "¹")
    return marks.mark("begins below ", "²") if any(gain.begins_below for gain in gains) else ""


def _dips(runs: Sequence[Run], marks: _Marks) -> list[str]:
    dips = [dip(run) for run in runs]
    failures = sum(each.recovered is None for each in dips)
    back = spread(each.recovered for each in dips)
    text = f"{back.mean:,.0f}" if back else ""
    if failures:
        text = marks.mark(f"{text}, {failures} never ".removeprefix(", "), "⁴")
    return [_mean(each.rise for each in dips), text]


def _mean(values: Iterable[float | None]) -> str:
    mean = spread(values)
    return f"{mean.mean:.3f}" if mean else ""
