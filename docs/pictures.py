"""Draw the pictures of the concepts: ``python docs/pictures.py`` writes ``docs/concepts/pictures/*.svg``.

Each picture carries its own background and follows the colours that the reader's system prefers, so that it can be read
on a light page and on a dark one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

FOLDER = Path(__file__).resolve().parent / "concepts" / "pictures"

CELL = 34

_STYLE = """
svg { font: 14px system-ui, sans-serif; }
.ground { fill: #fff; } text { fill: #1b1b1b; } .quiet { fill: #555; } .box { fill: #f1f3f4; stroke: #5f6368; }
.line { stroke: #5f6368; fill: none; stroke-width: 1.5; } .head { fill: #5f6368; }
.a { fill: #b2dfdb; } .b { fill: #ffe0b2; } .c { fill: #d1c4e9; } .d { fill: #f8bbd0; } .none { fill: #fafafa; }
.cell { stroke: #5f6368; } .pad { stroke-dasharray: 4 3; }
@media (prefers-color-scheme: dark) {
  .ground { fill: #1e2129; } text { fill: #eceff1; } .quiet { fill: #b0b7bd; } .box { fill: #2b303b; stroke: #9aa0a6; }
  .line { stroke: #9aa0a6; } .head { fill: #9aa0a6; } .none { fill: #262a33; } .cell { stroke: #9aa0a6; }
  .a { fill: #00605a; } .b { fill: #8a4b00; } .c { fill: #4d3a85; } .d { fill: #8a2550; }
}
"""


@dataclass
class Picture:
    """An SVG picture.

    Attributes:
        title: what it shows, for those who do not see it.
        width: in pixels.
        height: in pixels.
        parts: its elements, in the order in which they are drawn.
    """

    title: str
    width: int
    height: int
    parts: list[str] = field(default_factory=list)

    def text(self, x: float, y: float, text: str, *, quiet: bool = False, anchor: str = "middle") -> None:
        kind = ' class="quiet"' if quiet else ""
        self.parts.append(f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}"{kind}>{escape(text)}</text>')

    def rect(self, x: float, y: float, width: float, height: float, kind: str, corner: int = 0) -> None:
        self.parts.append(
            f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="{corner}" class="{kind}"/>'
        )

    def cells(self, x: float, y: float, labels: Sequence[str], kinds: Sequence[str], size: float = CELL) -> None:
        """A row of cells."""
        for i, (label, kind) in enumerate(zip(labels, kinds, strict=True)):
            self.rect(x + i * size, y, size, CELL, f"cell {kind}")
            self.text(x + (i + 0.5) * size, y + CELL / 2 + 5, label)

    def box(self, x: float, y: float, width: float, lines: Sequence[str], kind: str = "box") -> None:
        """A box with lines of text, the first of which is its name."""
        height = 20 + 19 * len(lines)
        self.rect(x, y, width, height, f"{kind} cell", 6)
        for i, line in enumerate(lines):
            self.text(x + width / 2, y + 24 + 19 * i, line, quiet=i > 0)

    def arrow(self, x0: float, y0: float, x1: float, y1: float, *, both: bool = False) -> None:
        """A line from one point to another, along an axis, with a head at its end."""
        self.parts.append(f'<path class="line" d="M{x0:g} {y0:g}L{x1:g} {y1:g}"/>')
        for (ax, ay), (bx, by) in [((x0, y0), (x1, y1)), ((x1, y1), (x0, y0))][: 2 if both else 1]:
            dx, dy = (bx > ax) - (bx < ax), (by > ay) - (by < ay)
            corners = [
                (bx, by),
                (bx - 8 * dx + 4 * dy, by - 8 * dy + 4 * dx),
                (bx - 8 * dx - 4 * dy, by - 8 * dy - 4 * dx),
            ]
            self.parts.append(f'<polygon class="head" points="{" ".join(f"{x:g},{y:g}" for x, y in corners)}"/>')

    def render(self) -> str:
        body = "\n".join(self.parts)
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width} {self.height}" width="{self.width}" '
            f'role="img">\n<title>{escape(self.title)}</title>\n<style>{_STYLE}</style>\n'
            f'<rect class="ground" width="{self.width}" height="{self.height}" rx="8"/>\n{body}\n</svg>\n'
        )


def growth() -> Picture:
    """The growth maps of one dim."""
    picture = Picture("Growth maps: how 3 indices become 6, or 5", 640, 300)
    kinds = {"0": "a", "1": "b", "2": "c", "": "none pad"}
    rows = [
        ("source", "012", "3 indices"),
        ("tile", "012012", "the dim is repeated as a block"),
        ("interleave", "001122", "each index is repeated in place"),
        ("uneven tile", "01201", "the first two occur once more"),
        ("with pads", "012..", "pads repeat nothing"),
    ]
    for i, (name, indices, text) in enumerate(rows):
        y = 24 + 54 * i
        labels = [index.replace(".", "") for index in indices]
        picture.text(110, y + 22, name, anchor="end")
        picture.cells(126, y, labels, [kinds[label] for label in labels])
        picture.text(126 + 6 * CELL + 18, y + 22, text, quiet=True, anchor="start")
    return picture


def weight() -> Picture:
    """What becomes of a weight."""
    picture = Picture("A weight W, and the same weight twice as wide by three strategies", 760, 220)
    size = 60

    def block(x: int, name: str, entries: Sequence[Sequence[str]], text: str) -> None:
        top = 44 + (2 - len(entries)) * 30
        picture.text(x + len(entries[0]) * size / 2, 28, name)
        for i, row in enumerate(entries):
            for j, entry in enumerate(row):
                picture.rect(x + j * size, top + i * size, size, size, f"cell {'none' if entry == '0' else 'a'}")
                picture.text(x + (j + 0.5) * size, top + (i + 0.5) * size + 5, entry)
        picture.text(x + len(entries[0]) * size / 2, 196, text, quiet=True)

    block(40, "source", [["W"]], "")
    block(170, "symmetric", [["W/2", "W/2"], ["W/2", "W/2"]], "all copies are alike")
    block(370, "diagonal", [["W", "0"], ["0", "W"]], "copies stay apart")
    block(570, "noisy-symmetric", [["W/2+N", "W/2-N"], ["W/2+M", "W/2-M"]], "copies differ")
    return picture


def sums() -> Picture:
    """Why a weight is halved."""
    picture = Picture("A sum over twice as many inputs is twice as large, so each weight is halved", 700, 240)
    for x, name, inputs, share in ((60, "source", "01", ""), (330, "clone", "0101", "/2")):
        kinds = ["a" if index == "0" else "b" for index in inputs]
        middle = x + len(inputs) * 30 + 60
        picture.text(middle, 28, name)
        picture.cells(middle - len(inputs) * 30, 46, [f"x{index}" for index in inputs], kinds, 60)
        picture.cells(middle - len(inputs) * 30, 108, [f"w{index}{share}" for index in inputs], kinds, 60)
        for i in range(len(inputs)):
            picture.arrow(middle - len(inputs) * 30 + 60 * i + 30, 82, middle - len(inputs) * 30 + 60 * i + 30, 106)
        total = "x0 w0 + x1 w1" if name == "source" else "2 (x0 w0/2 + x1 w1/2)"
        picture.arrow(middle, 144, middle, 172)
        picture.text(middle, 194, total)
        picture.text(middle, 218, "= y", quiet=True)
    return picture


def layouts() -> Picture:
    """A product and a concatenation, and how they grow."""
    picture = Picture("Layouts: 6 = heads 2 * head_dim 3, and q + k; growth follows the dims", 760, 400)
    a, b = ["a0", "a1", "a2"], ["b0", "b1", "b2"]
    rows = [
        ("heads*head_dim = 2*3", [*a, *b], "two heads of three"),
        ("heads grow: 2x2*3", [*a, *b, *a, *b], "heads are repeated"),
        ("head_dim grows: 2*3x2", [*a, *a, *b, *b], "each head gets wider"),
    ]
    picture.text(20, 28, "a product", anchor="start")
    for i, (name, labels, text) in enumerate(rows):
        _row(picture, 44 + 46 * i, name, labels, text)
    picture.text(20, 212, "a concatenation", anchor="start")
    q, k = ["q0", "q1"], ["k0", "k1", "k2"]
    rows = [
        ("q+k = 2+3", [*q, *k], "two parts side by side"),
        ("both grow: 2x2+3x2", [*q, *q, *k, *k], "each part is repeated"),
        ("wrong", [*q, *k, *q, *k], "the axis as a whole"),
    ]
    for i, (name, labels, text) in enumerate(rows):
        _row(picture, 228 + 46 * i, name, labels, text)
    return picture


def _row(picture: Picture, y: int, name: str, labels: Sequence[str], text: str) -> None:
    kinds = {"a": "a", "b": "b", "q": "c", "k": "d"}
    picture.text(190, y + 22, name, anchor="end")
    picture.cells(204, y, labels, [kinds[label[0]] for label in labels], 30)
    picture.text(204 + 30 * len(labels) + 12, y + 22, text, quiet=True, anchor="start")


def scales() -> Picture:
    """Where the factor of a tied embedding goes."""
    picture = Picture("A tied embedding makes logits twice as large; the last norm takes the factor", 760, 230)
    steps = [
        ("embedding E", "looked up", "1"),
        ("blocks", "", "1"),
        ("last norm", "weight / 2", "1/2"),
        ("E again", "sums 2 copies", "1"),
        ("logits", "", ""),
    ]
    for i, (name, text, scale) in enumerate(steps):
        x = 20 + 148 * i
        picture.box(x, 60, 128, [name, text], "a" if name == "last norm" else "box")
        if scale:
            picture.arrow(x + 130, 89, x + 146, 89)
            picture.text(x + 138, 46, f"c = {scale}")
    picture.text(380, 164, "The weight E serves two readers, so it cannot be halved for one of them.", quiet=True)
    picture.text(
        380,
        190,
        "The sum over two copies doubles the logits. The norm before it halves them: c = 1/2 * 2 = 1.",
        quiet=True,
    )
    return picture


def depth() -> Picture:
    """A new block that adds nothing."""
    picture = Picture(
        "A new block between two others: its last layer is 0, so the stream passes it unchanged", 760, 210
    )
    picture.arrow(30, 60, 730, 60)
    for i, (name, last, kind) in enumerate((("block 0", "W", "box"), ("new block", "0", "a"), ("block 1", "W", "box"))):
        x = 50 + 230 * i
        picture.box(x + 30, 100, 140, [name, f"closing layer: {last}"], kind)
        picture.arrow(x + 50, 60, x + 50, 98)
        picture.arrow(x + 150, 100, x + 150, 70)
        picture.parts.append(f'<circle class="box cell" cx="{x + 150:g}" cy="60" r="10"/>')
        picture.text(x + 150, 65, "+")
    picture.text(30, 40, "the stream x", quiet=True, anchor="start")
    picture.text(310 + 40, 190, "x + 0 = x", quiet=True)
    return picture


def verification() -> Picture:
    """What is compared with what."""
    picture = Picture("Verification: what is compared with what", 760, 380)
    left, right, width = 40, 470, 250
    rows = [
        (24, ["your module", "its own code and precision"], None, ""),
        (
            124,
            ["source graph, float64", "every value"],
            ["clone graph, float64", "every value"],
            "exact: every value agrees",
        ),
        (
            214,
            ["source, own precision", "its error is the noise floor"],
            ["clone, own precision", "its error"],
            "noise floor: 4 times at most",
        ),
        (
            304,
            ["source in ONNX Runtime", "several inputs and sizes"],
            ["clone in ONNX Runtime", "several inputs and sizes"],
            "ONNX Runtime",
        ),
    ]
    for y, source, clone, text in rows:
        picture.box(left, y, width, source)
        if clone is not None:
            picture.box(right, y, width, clone, "a")
            picture.arrow(left + width + 4, y + 29, right - 4, y + 29, both=True)
            first, _, second = text.partition(": ")
            picture.text((left + width + right) / 2, y + 20, first)
            picture.text((left + width + right) / 2, y + 48, second, quiet=True)
    picture.arrow(left + width / 2, 84, left + width / 2, 122, both=True)
    picture.text(
        left + width / 2 + 12, 108, "trace: does the graph compute what your code computes?", quiet=True, anchor="start"
    )
    return picture


PICTURES: dict[str, Callable[[], Picture]] = {
    "depth": depth,
    "growth": growth,
    "layouts": layouts,
    "scales": scales,
    "sums": sums,
    "verification": verification,
    "weight": weight,
}
"""Every picture, by the name of its file."""


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, draw in PICTURES.items():
        (FOLDER / f"{name}.svg").write_text(draw().render())


if __name__ == "__main__":
    main()
