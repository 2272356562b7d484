"""Downstream tasks made of a corpus' own validation text, in the files that lm-evaluation-harness reads.

Every item is a choice by likelihood. Its choices are equally long or differ in blanks alone, so that none is likelier
for being shorter. Text is written byte by byte as Latin-1, which gives back the same bytes.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

_CONTINUATION = 32
"""Bytes of a continuation."""

_WORD = re.compile(rb"(?<![A-Za-z0-9_])[A-Za-z_]{4,}")
_LINE = re.compile(rb"(?<=\n)[^\n\0]*\S(?:[ \t]+\S+){3,}(?=\n)")
_INDENTED = re.compile(rb"(?<=\n)( *)([^ \t\n\0][^\n\0]{7,})(?=\n)")
_STEP = 4
_HEAD = 16
"""Bytes of a line that follow its indentation in a choice."""


@dataclass(frozen=True)
class Item:
    """One choice.

    Attributes:
        context: what the text says before.
        choices: what may come next, all different.
        answer: the place of what does.
    """

    context: bytes
    choices: tuple[bytes, ...]
    answer: int


def write_tasks(text: bytes, folder: Path, *, context: int, count: int) -> list[str]:
    """Write the tasks that a text has enough items for; returns their names.

    Args:
        text: to choose from, which no model was trained on.
        folder: that exists; gets ``NAME.yaml`` and ``NAME.jsonl``.
        context: tokens that a model can see, the choice included.
        count: items of every task.
    """
    names = []
    for name in TASKS:
        found = items(text, name, context=context, count=count)
        if len(found) < count:
            continue
        lines = [
            {
                "context": item.context.decode("latin-1"),
                "choices": [choice.decode("latin-1") for choice in item.choices],
                "answer": item.answer,
            }
            for item in found
        ]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
        (folder / f"{name}.yaml").write_text(_yaml(name, folder / f"{name}.jsonl"), encoding="utf-8")
        names.append(name)
    return names


def items(text: bytes, name: str, *, context: int, count: int) -> list[Item]:
    """So many items of a task, or as many as there are; the same for the same text.

    Args:
        text: to choose from.
        name: one of ``TASKS``.
        context: bytes of the context and the longest choice together.
        count: of items.
    """
    draw = np.random.Generator(np.random.Philox(key=[len(text), list(TASKS).index(name)]))
    found: list[Item] = []
    for start, choices in TASKS[name](text, draw):
        before = text[max(0, start - context + max(map(len, choices))) : start]
        if before and len(set(choices)) == len(choices):
            order = draw.permutation(len(choices))
            shuffled = tuple(choices[at] for at in order)
            found.append(Item(before, shuffled, int(np.flatnonzero(order == 0)[0])))
        if len(found) == count:
            break
    return found


# Where items begin, and their choices, the right one first.

_Choices = Iterator[tuple[int, tuple[bytes, ...]]]


def _continuations(text: bytes, draw: np.random.Generator) -> _Choices:
    """What follows, or what follows elsewhere."""
    last = max(len(text) - _CONTINUATION, 0)
    for _ in range(last):
        places = draw.integers(last, size=4).tolist()
        yield places[0], tuple(text[place : place + _CONTINUATION] for place in places)


def _words(text: bytes, draw: np.random.Generator) -> _Choices:
    """The word that follows, or others as long, as often as they occur."""
    matches = list(_WORD.finditer(text))
    by_length: dict[int, list[bytes]] = defaultdict(list)
    for match in matches:
        by_length[len(match[0])].append(match[0])
    for at in draw.permutation(len(matches)):
        word = matches[at][0]
        alike = by_length[len(word)]
        yield matches[at].start(), (word, *(alike[place] for place in draw.integers(len(alike), size=3)))


def _lines(text: bytes, draw: np.random.Generator) -> _Choices:
    """A line, or its words in another order."""
    matches = list(_LINE.finditer(text))
    for at in draw.permutation(len(matches)):
        parts = re.split(rb"([ \t]+)", matches[at][0])
        words = [place for place in range(0, len(parts), 2) if parts[place]]
        turned = list(parts)
        for place, source in zip(words, draw.permutation(words), strict=True):
            turned[place] = parts[source]
        yield matches[at].start(), (matches[at][0], b"".join(turned))


def _indentations(text: bytes, draw: np.random.Generator) -> _Choices:
    """A line as it is indented, or otherwise."""
    matches = [match for match in _INDENTED.finditer(text) if len(match[1]) % _STEP == 0]
    if all(not match[1] for match in matches):
        return
    for at in draw.permutation(len(matches)):
        blanks, line = len(matches[at][1]), matches[at][2][:_HEAD]
        least = max(0, blanks - _STEP * int(draw.integers(4)))
        sizes = [blanks, *(size for size in range(least, least + 5 * _STEP, _STEP) if size != blanks)][:4]
        yield matches[at].start(), tuple(b" " * size + line for size in sizes)


TASKS: Mapping[str, Callable[[bytes, np.random.Generator], _Choices]] = {
    "continuation": _continuations,
    "words": _words,
    "lines": _lines,
    "indentation": _indentations,
}
"""The tasks by name; four choices each, but for ``lines``, which has two."""


def _yaml(name: str, data: Path) -> str:
    """What lm-evaluation-harness is told of a task; JSON is YAML."""
    return json.dumps(
        {
            "task": name,
            "dataset_path": "json",
            "dataset_kwargs": {"data_files": {"test": str(data.resolve())}},
            "test_split": "test",
            "output_type": "multiple_choice",
            "doc_to_text": "{{context}}",
            "doc_to_choice": "choices",
            "doc_to_target": "answer",
            "target_delimiter": "",
            "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
            "metadata": {"version": 1},
        },
        indent=1,
    )
