"""The dims of a model as a file of node data, which Model Explorer (``ai-edge-model-explorer``) lays over its graph.

The file is what that package calls the node data of one graph: a value and a colour by the name of a node, or of a
tensor that it computes.
"""

from __future__ import annotations

import json
from pathlib import Path

from graphclone.report.page import Page
from graphclone.report.tree import dims_of, operations
from graphclone.runtime.files import written

_COLOURS = ("#56b4e9", "#e69f00", "#009e73", "#cc79a7", "#f0e442", "#d55e00", "#0072b2")
"""Colours for all eyes (Okabe and Ito 2008), one after the other."""

_DARK = "#0072b2"


def node_data(page: Page) -> dict[str, object]:
    """The layouts of what every node computes, coloured by the first of its dims.

    Args:
        page: of a model or a clone.
    """
    results: dict[str, dict[str, str]] = {}
    for operation in operations(page.tree, unfolded=True):
        numbers = sorted(dims_of(operation.outputs))
        if not numbers:
            continue
        texts = (f"[{', '.join(axis.text for axis in output.axes)}]" for output in operation.outputs)
        colour = _COLOURS[numbers[0] % len(_COLOURS)]
        text_colour = "white" if colour == _DARK else "black"
        result = {"value": " ".join(texts), "bgColor": colour, "textColor": text_colour}
        results.update(dict.fromkeys((operation.name, *(output.name for output in operation.outputs)), result))
    return {"results": results}


def write_node_data(page: Page, path: Path) -> None:
    """Write the node data of a page, whole or not at all.

    Raises:
        GraphcloneError: the file cannot be written.
    """
    with written(path) as stage:
        stage.write_text(json.dumps(node_data(page), indent=1) + "\n", encoding="utf-8")
