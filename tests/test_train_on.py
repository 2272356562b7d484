"""Every block of docs/train-on.md runs, and goes on from where the source was."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.support.clones import seeded
from tests.support.trainers import Tokens, decoder

pytestmark = pytest.mark.filterwarnings("ignore")

_TEXT = (Path(__file__).parents[1] / "docs" / "train-on.md").read_text()

_BLOCKS = {
    title: re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    for title, text in (part.split("\n", 1) for part in _TEXT.split("\n## ")[1:])
}


def _learned(model: nn.Module, optimizer: torch.optim.Optimizer, batches: Any) -> list[float]:
    seen = []
    for x, y in batches:
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        seen.append(loss.item())
    return seen


@pytest.fixture
def names() -> dict[str, Any]:
    """What the text says is there: a model in training and its optimizer, some steps in."""
    model = seeded(lambda: nn.Sequential(nn.Linear(6, 10), nn.LayerNorm(10), nn.Tanh(), nn.Linear(10, 5))).double()
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(8, 4, 6, generator=generator, dtype=torch.float64)
    batches = list(zip(x, torch.randint(5, (8, 4), generator=generator), strict=True))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    _learned(model, optimizer, batches[:4])
    return {"torch": torch, "model": model, "optimizer": optimizer, "inputs": (x[0],), "batches": batches[4:]}


def _run(block: str, names: dict[str, Any]) -> None:
    exec(compile(block, "docs/train-on.md", "exec"), names)


def test_every_block_is_tested() -> None:
    counts = {title: len(blocks) for title, blocks in _BLOCKS.items() if blocks}
    assert counts == {
        "Plain torch": 2,
        "Accelerate": 1,
        "transformers' Trainer": 1,
        "A short training": 1,
        "What is not exact": 1,
    }


def test_plain_torch(names: dict[str, Any]) -> None:
    model, optimizer = names["model"], names["optimizer"]
    first, second = _BLOCKS["Plain torch"]
    _run(first, names)
    expected = _learned(model, optimizer, names["batches"])
    assert names["loss"].item() == pytest.approx(expected[-1], rel=1e-12)
    _run(second, names)
    assert {group["lr"] for group in names["optimizer"].param_groups} == {1e-3, 5e-4}


def test_accelerate(names: dict[str, Any]) -> None:
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True)
    source, plain = names["model"], names["optimizer"]
    names["accelerator"] = accelerator
    names["model"], names["optimizer"] = accelerator.prepare(source, plain)
    _run(_BLOCKS["Accelerate"][0], names)
    _learned(source, plain, names["batches"])
    x = names["inputs"][0]
    torch.testing.assert_close(names["model"](x), source(x), rtol=1e-12, atol=1e-12)


def test_trainer(tmp_path: Path) -> None:
    import transformers

    arguments = transformers.TrainingArguments(
        str(tmp_path), max_steps=5, use_cpu=True, report_to=[], save_strategy="no", logging_steps=1, disable_tqdm=True
    )
    names = {"model": decoder(), "arguments": arguments, "dataset": Tokens(), "folder": str(tmp_path / "wide")}
    _run(_BLOCKS["transformers' Trainer"][0], names | {"Trainer": transformers.Trainer})
    saved = transformers.AutoConfig.from_pretrained(tmp_path / "wide")
    assert (saved.hidden_size, saved.intermediate_size) == (48, 176)


def test_a_short_training(names: dict[str, Any]) -> None:
    _run(_BLOCKS["A short training"][0], names)
    x = names["inputs"][0]
    torch.testing.assert_close(names["wide"](x), names["model"](x), rtol=1e-12, atol=1e-12)
    first = names["wide"].get_parameter("0.weight")
    before = first.detach().clone()
    _learned(names["wide"], names["optimizer"], names["batches"][:1])
    steps = (first.detach() - before).abs()
    assert steps[10:].median() == pytest.approx(1e-3, rel=1e-3), "Adam's first step is the rate"
    assert steps[:10].median() == pytest.approx(2e-4, rel=1e-3)


def test_what_is_not_exact(names: dict[str, Any]) -> None:
    _run(_BLOCKS["What is not exact"][0], names)
    optimizer = names["optimizer"]
    assert all(optimizer.state[parameter] for group in optimizer.param_groups for parameter in group["params"])
