"""The solver of configurations, on code made up for it: it knows only what it can try."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from graphclone.formats.huggingface.config_solver import (
    Config,
    ModelProbe,
    Shapes,
    Unfit,
    changed,
    differences,
    numbers,
    solve,
)

CONFIG: Config = {"hidden": 40, "ffn": 52, "heads": 5, "layers": 2, "token": 5, "flag": True, "rate": 0.1}


def shapes(config: Config) -> Shapes:
    """An attention block whose heads show in no shape, and a feed-forward part."""
    if config["hidden"] % config["heads"]:
        raise ValueError("heads do not divide hidden")
    found: dict[str, tuple[int, ...]] = {"embed": (61, config["hidden"])}
    for i in range(config["layers"]):
        found[f"{i}.qkv"] = (3 * config["hidden"], config["hidden"])
        found[f"{i}.up"] = (config["ffn"], config["hidden"])
    return found


def model(make: Callable[[Config], Shapes] = shapes, **wanted: int) -> ModelProbe:
    """Code that runs as wanted if these fields have these values."""

    def unlike(config: Config) -> str | None:
        wrong = [name for name, value in wanted.items() if config[name] != value]
        return f"{wrong[0]} is wrong" if wrong else None

    return ModelProbe(make, unlike, lambda a, b: a.get("heads") != b.get("heads"), lambda size: {1, 2})


def test_shapes_alone_determine_most_and_a_run_the_rest() -> None:
    wide = changed(CONFIG, [(("hidden",), 80), (("ffn",), 104), (("heads",), 10)])
    assert solve(CONFIG, shapes(wide), model(heads=10)) == wide


def test_each_number_has_its_own_factor() -> None:
    wide = changed(CONFIG, [(("hidden",), 80), (("heads",), 10)])
    assert solve(CONFIG, shapes(wide), model(heads=10)) == wide
    narrow_heads = changed(CONFIG, [(("ffn",), 156)])
    assert solve(CONFIG, shapes(narrow_heads), model(heads=5)) == narrow_heads


def test_nothing_changes_where_nothing_is_wanted() -> None:
    assert solve(CONFIG, shapes(CONFIG), model()) == CONFIG


def test_a_number_of_the_same_value_that_moves_nothing_is_left_alone() -> None:
    """``token`` has the value of ``heads``, and no bearing on a run."""
    wide = changed(CONFIG, [(("hidden",), 80)])
    assert solve(CONFIG, shapes(wide), model(heads=10))["token"] == 5


def test_numbers_that_must_stay_equal_are_moved_together() -> None:
    def projected(config: Config) -> Shapes:
        extra = {} if config["embed"] == config["hidden"] else {"project": (config["embed"], config["hidden"])}
        return {"embed": (61, config["embed"]), "up": (52, config["hidden"]), **extra}

    config = {"embed": 40, "hidden": 40}
    wide = {"embed": 80, "hidden": 80}
    assert solve(config, projected(wide), model(projected)) == wide
    config, wide = {"embed": 20, "hidden": 40}, {"embed": 40, "hidden": 80}
    assert solve(config, projected(wide), model(projected)) == wide


@pytest.mark.parametrize(("factor", "tables"), [(2, 4), (3, 4)])
def test_numbers_whose_quotient_is_fixed_are_moved_together(factor: int, tables: int) -> None:
    """A list of as many numbers as half a head is wide holds for heads of that width only."""

    def with_list(config: Config) -> Shapes:
        if config["hidden"] // config["heads"] // 2 != len(config["list"]):
            raise ValueError("the list does not fit")
        return shapes(config)

    config = {**CONFIG, "list": [1.0] * tables}
    wide = {**config, "hidden": 40 * factor, "heads": 5 * factor}
    code = ModelProbe(with_list, lambda c: None, lambda a, b: a["heads"] != b["heads"], lambda size: {1, factor})
    assert solve(config, with_list(wide), code) == wide


@pytest.mark.parametrize("grown", ["heads", "size"])
def test_numbers_that_must_agree_are_probed_alone_and_solved_together(grown: str) -> None:
    """``hidden = heads x size`` or the class refuses it; no shape has the size in it, and no run can be seen."""
    config = {"heads": 5, "hidden": 40, "size": 8}
    wide = {**config, "hidden": 80, grown: 2 * config[grown]}

    def projected(made: Config) -> Shapes:
        return {"embed": (61, made["hidden"]), "decay": (made["heads"],)}

    def unlike(made: Config) -> str | None:
        return None if made["hidden"] == made["heads"] * made["size"] else "the class refuses it"

    code = ModelProbe(projected, unlike, lambda a, b: None, lambda size: {1, 2})
    assert solve(config, projected(wide), code) == wide


def test_axes_that_are_sums_and_products_of_numbers() -> None:
    def fused(config: Config) -> Shapes:
        return {"qkv": ((config["heads"] + 2 * config["kv"]) * config["dim"], 61), "o": (config["heads"] * 8, 7)}

    config, wide = {"heads": 15, "kv": 5, "dim": 8}, {"heads": 30, "kv": 10, "dim": 8}
    assert solve(config, fused(wide), model(fused)) == wide


def test_a_number_need_not_have_the_size_of_what_it_counts() -> None:
    """Two thirds of it, rounded up, as gated layers often have."""

    def gated(config: Config) -> Shapes:
        return {"up": (-(-2 * config["inner"] // 24) * 8, 40)}

    config = {"inner": 48, "hidden": 40}
    wide = {"inner": 72, "hidden": 40}
    assert gated(config) == {"up": (32, 40)}
    assert solve(config, gated(wide), model(gated)) == wide


def test_an_axis_that_may_have_any_size() -> None:
    """It neither asks for a number to change, nor keeps one from changing that moves it besides others."""

    def headed(config: Config) -> Shapes:
        return {
            "up": (config["hidden"], 3),
            "pooler": (config["hidden"], config["hidden"]),
            "head": (config["labels"],),
        }

    wide = solve({"hidden": 40, "labels": 5}, {"up": (80, 3), "pooler": (None, 80), "head": (None,)}, model(headed))
    assert wide == {"hidden": 80, "labels": 5}


def test_as_few_numbers_change_as_can() -> None:
    """An axis that is a product could grow fourfold by two of its factors."""
    solver = ModelProbe(lambda c: {"w": (c["a"] * c["b"],)}, lambda c: None, lambda a, b: None, lambda size: {1, 2, 4})
    config: Config = {"a": 3, "b": 5}
    found = solve(config, {"w": (60,)}, solver)
    assert found["a"] * found["b"] == 60
    assert len(differences(config, found)) == 1


def test_a_sum_that_can_only_be_seen_tripled() -> None:
    """The class refuses even numbers, so that what an axis gains by the probe is twice what a unit brings."""

    def odd(config: Config) -> Shapes:
        if config["odd"] % 2 == 0:
            raise ValueError("even")
        return {"w": (config["odd"] + 4,)}

    def ratios(size: int) -> set[int]:
        return {1, 5}

    solver = ModelProbe(odd, lambda config: None, lambda a, b: None, ratios)
    assert solve({"odd": 7}, {"w": (39,)}, solver) == {"odd": 35}


def test_lists_and_nested_configurations() -> None:
    def towers(config: Config) -> Shapes:
        text = config["text"]
        stages = {f"stage.{i}": (width, 3) for i, width in enumerate(config["widths"])}
        return {"text": (text["hidden"], 61), **stages}

    config = {"text": {"model_type": "text", "hidden": 40}, "widths": [20, 44], "names": {"a": 7}}
    wide = {"text": {"model_type": "text", "hidden": 80}, "widths": [20, 88], "names": {"a": 7}}
    assert solve(config, towers(wide), model(towers)) == wide
    assert differences(config, wide) == {("text", "hidden"): (40, 80), ("widths", 1): (44, 88)}
    assert [where for where, _ in numbers(config)] == [("text", "hidden"), ("widths", 0), ("widths", 1)]


def test_a_width_that_is_left_to_its_default_is_set() -> None:
    def derived(config: Config) -> Shapes:
        return {"embed": (61, config["hidden"]), "up": (config["inner"] or 4 * config["hidden"], config["hidden"])}

    config = {"hidden": 40, "inner": None, "other": None}
    wanted = {"embed": (61, 80), "up": (160, 80)}
    assert solve(config, wanted, model(derived)) == {"hidden": 80, "inner": 160, "other": None}


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"1.up": (52, 80)}, "axis 1 of 1.up would be 80 instead of 40, but its hidden cannot give it that"),
        ({"embed": (122, 40)}, "axis 0 of embed would be 122 instead of 61, which no number of the configuration says"),
    ],
)
def test_a_tensor_that_does_not_fit_is_named(wanted: Any, message: str) -> None:
    with pytest.raises(Unfit, match=message):
        solve(CONFIG, {**shapes(CONFIG), **wanted}, model())


def test_a_run_that_no_number_makes_right_is_named() -> None:
    wide = changed(CONFIG, [(("hidden",), 80)])
    with pytest.raises(Unfit, match="token is wrong"):
        solve(CONFIG, shapes(wide), model(token=7))
