"""Inputs for a model of transformers, from its signature, its configuration and the files of its processors.

Inputs go by the names that all models of transformers give them. One name may stand for several forms (a picture, its
crops with their sizes, its patches with their grid): the first with which the model runs is taken. Where features of
pictures or sounds take the places of tokens, the model itself says how many it makes.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, product, starmap
from math import prod
from typing import Any
from unittest.mock import patch

import numpy as np
import numpy.typing as npt
import torch
from torch._subclasses import fake_tensor
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode, ShapeEnv

from graphclone.errors import GraphcloneError
from graphclone.formats.huggingface.descriptions import MEDIA, Documented, documented_inputs, media_tokens, text_config
from graphclone.formats.huggingface.size_inputs import GIVE, SIZES, NamedInputs, method_of, sizes_known, structured
from graphclone.formats.torch.example_inputs import fresh_size, with_fresh_sizes
from graphclone.formats.torch.forgetting import forgotten
from graphclone.formats.torch.traceable import traceable_torch
from graphclone.formats.torch.weightless import weightless

_BATCH, _SEQUENCE, _TARGET_SEQUENCE = 2, 7, 5
_IMAGE = 64
"""Height and width of an image for a model that takes any."""

_FRAMES = 64
"""Frames of a spectrogram for a model that takes any number."""

_WAVE = 5120
"""Samples of a sound for a model that does not say how it cuts one into frames."""

_EXTENTS = ("image_size", "frame_size", "crop_size")
"""What documentation calls the height and the width of a picture."""

_CROPS = 5
"""Crops of a picture: more than most cuts make; a model takes as many as it needs."""

_PARTS = {"vision": "vision|image|visual|^encoder", "audio": "audio|speech|^encoder"}
"""What the part of a configuration for a kind is called; an encoder may be fed with anything."""

_TOKENS = ("input_ids", "decoder_input_ids")

_HIDDEN = "bool_masked_pos"
"""The input that says which patches are hidden."""


@dataclass(frozen=True)
class InputMaker:
    """Makes example inputs for a model.

    Attributes:
        module: the model, without weights.
        processor: what the files of its processors say.
        dtype: of the model.
        weight_sizes: sizes that no axis of the text should have.
    """

    module: Any
    processor: Mapping[str, Any]
    dtype: torch.dtype
    weight_sizes: Collection[int]

    def inputs(self) -> NamedInputs | None:
        """Inputs by name; None where it is not known what the main one looks like."""
        pictures, sounds = self.pictures(), self.sounds()
        if len(pictures) == len(sounds) == 1 and not self.tokens:
            inputs: NamedInputs | None = self.all_inputs(pictures[0] | sounds[0], {})
        else:
            fewer = chain(product(pictures, [{}]), product([{}], sounds), [({}, {})])
            inputs = next(filter(None, starmap(self.working, chain(product(pictures, sounds), fewer))), None)
        return inputs if inputs is not None and inputs.keys() >= main_inputs(self.module) else self.asked_for({})

    def asked_for(self, inputs: NamedInputs) -> NamedInputs | None:
        """Inputs with those besides that the model asks for, as its documentation describes them, if it takes them.

        A model asks by parameters without a default, by naming them where it raises, and by documenting them as needed.
        """
        given = dict(inputs)
        while (fault := self.fault(given)) is not None:
            missing = [name for name in self.documented if name not in given and not SIZES.fullmatch(name)]
            named = [name for name in missing if re.search(rf"\b{name}\b", str(fault))]
            asked = [name for name in missing if self.parameters[name].default is inspect.Parameter.empty] + named
            needed = [name for name in missing if not self.documented[name].optional and name != "labels"]
            if not (more := asked or needed):
                return None
            for name in more:
                given[name] = self._drawn(name, self.sizes(self.documented[name].sizes, given))
        apart = self.traced_apart(given)
        return apart if apart and self.fault(apart) is None else given or None

    def working(self, pictures: NamedInputs, sounds: NamedInputs) -> NamedInputs | None:
        """All inputs for one form of pictures and one of sounds, if the model can make something of them."""
        try:
            forms = {"image": pictures, "audio": sounds}
            places = {kind: self.count(kind, form) for kind, form in forms.items() if form and kind in self.tokens}
            inputs = self.all_inputs(pictures | sounds, {kind: count for kind, count in places.items() if count})
            if (pictures or sounds) and not any(places.values()) and not self.runs(inputs):
                return self.asked_for(inputs)
        except Exception:  # whatever the model raises at inputs of another form
            return None
        return inputs

    def all_inputs(self, form: NamedInputs, places: Mapping[str, int]) -> NamedInputs:
        """All inputs for one form of pictures and sounds, with so many places for each kind in every text."""
        inputs = dict(form)
        if "input_ids" in self.parameters:
            inputs["input_ids"] = self.text(places)
        if "decoder_input_ids" in self.parameters and getattr(self.module.config, "is_encoder_decoder", False):
            inputs["decoder_input_ids"] = self.words(_BATCH, _TARGET_SEQUENCE)
            if "input_ids" in inputs:
                inputs["input_ids"] = self.ended(inputs["input_ids"])
        if places and "mm_token_type_ids" in self.parameters:
            ids = inputs["input_ids"]
            inputs["mm_token_type_ids"] = sum((ids == self.tokens[kind]).int() * MEDIA[kind] for kind in places)
        if "use_cache" in self.parameters:
            inputs["use_cache"] = False
        return self.hidden(self.traced_apart(inputs))

    def hidden(self, inputs: NamedInputs) -> NamedInputs:
        """The inputs, some patches of pictures hidden where a vector of the model stands for those."""
        names = (name.rpartition(".")[2] for name, _ in self.module.named_parameters())
        if _HIDDEN not in self.parameters or "mask_token" not in names or "pixel_values" not in inputs:
            return inputs
        patch = self.field("vision", "patch_size", 1)
        high, wide = (patch, patch) if isinstance(patch, int) else patch[-2:]
        batch, *_, height, width = inputs["pixel_values"].shape
        count = (height // high) * (width // wide)
        more = inputs | {_HIDDEN: torch.arange(batch * count).remainder(3).eq(1).view(batch, count)}
        return more if self.runs(more) else inputs

    def traced_apart(self, inputs: NamedInputs) -> NamedInputs:
        """Inputs whose sizes no width can be mistaken for, where sizes may change."""
        return inputs if structured(inputs, self.tokens) else dict(with_fresh_sizes(inputs, self.weight_sizes))

    def others(self, inputs: NamedInputs) -> NamedInputs:
        """Inputs of which something is other, or more: the first with which the model works."""
        ways = [inputs, *self._other_texts(inputs), *self._other_pictures(inputs), *self._as_documented(inputs)]
        works = next(filter(self.runs, ways[1:]), None) or next((way for way in ways if self.fault(way) is None), None)
        return works or self.asked_for(inputs) or inputs

    def _other_texts(self, inputs: NamedInputs) -> Iterator[NamedInputs]:
        """The inputs with masks that hide nothing, without those of the decoder, and the first text alone."""
        ids = {name: inputs[name] for name in _TOKENS if name in inputs}
        masks = {name.replace("input_ids", "attention_mask"): torch.ones_like(value) for name, value in ids.items()}
        yield inputs | {name: mask for name, mask in masks.items() if name in self.parameters}
        if "input_ids" in ids:
            rows = len(ids["input_ids"])
            batched = {n: v for n, v in inputs.items() if isinstance(v, torch.Tensor) and v.dim() and len(v) == rows}
            yield {name: value for name, value in inputs.items() if name != "decoder_input_ids"}
            yield inputs | {name: value[:1] for name, value in batched.items()}

    def _other_pictures(self, inputs: NamedInputs) -> Iterator[NamedInputs]:
        """The inputs with pictures that have room for more places to choose from, and with pictures in pairs."""
        pictures = inputs.get("pixel_values")
        if isinstance(pictures, torch.Tensor) and pictures.ndim == 4:
            yield inputs | {"pixel_values": pictures.repeat(1, 1, 4, 4)}
            yield inputs | {"pixel_values": torch.stack([pictures, pictures.flip(-1)], 1)}

    def _as_documented(self, inputs: NamedInputs) -> Iterator[NamedInputs]:
        """The inputs with those anew that have other axes in the documentation, such as choices, or several in one."""
        others = {
            name: self.documented[name].sizes
            for name, value in inputs.items()
            if isinstance(value, torch.Tensor) and name in self.documented
            if len(self.documented[name].sizes) != value.ndim or "*" in "".join(self.documented[name].sizes)
        }
        rest = {name: value for name, value in inputs.items() if name not in others}
        if others:
            yield rest | {name: self._drawn(name, self.sizes(names, rest)) for name, names in others.items()}

    # What the user says

    def inputs_from(self, inputs: Mapping[str, Any]) -> NamedInputs:
        """Inputs by name, made of what the user gives: arrays and tensors, sizes to draw values for, or anything else.

        If all are drawn, sizes that a width could be mistaken for change, unless the model takes no others.

        Raises:
            GraphcloneError: the model takes no input of a name, or none like that.
        """
        arguments = {name: self._input(name, item) for name, item in inputs.items()}
        if any(isinstance(item, np.ndarray | torch.Tensor) for item in inputs.values()):
            return arguments
        apart = self.traced_apart(arguments)
        return arguments if self.runs(arguments) and not self.runs(apart) else apart

    def runs(self, inputs: NamedInputs) -> bool:
        """Whether the model makes something of inputs."""
        try:
            self.run(self.faked, inputs)
        except Exception:  # whatever it raises
            return False
        return True

    def fault(self, inputs: NamedInputs) -> Exception | None:
        """What the model raises at inputs, for another reason than that numbers are not there to be looked at."""
        mode = fake_tensor.FakeTensorMode(allow_non_fake_inputs=True, shape_env=ShapeEnv(), static_shapes=True)
        try:
            self.run(weightless(self.module, mode), inputs, mode)
        except (fake_tensor.DataDependentOutputException, GuardOnDataDependentSymNode):
            return None
        except Exception as error:  # whatever it raises
            return error
        return None

    def _input(self, name: str, item: Any) -> Any:
        if isinstance(item, tuple) and all(isinstance(size, int) for size in item):
            self._check_name(name)
            return self._drawn(name, item)
        if isinstance(item, np.ndarray):
            self._check_name(name)
            return self._tensor(name, item)
        if isinstance(item, torch.Tensor):
            self._check_name(name)
        return item

    def _check_name(self, name: str) -> None:
        if name not in self.parameters:
            names = ", ".join(n for n, p in self.parameters.items() if p.kind is not inspect.Parameter.VAR_KEYWORD)
            raise GraphcloneError(f"inputs: {type(self.module).__name__} has no input {name!r}; it has {names}")

    def _tensor(self, name: str, array: npt.NDArray[Any]) -> torch.Tensor:
        """An array in a dtype that models take: floats in that of the model, integers as tokens are."""
        if array.dtype.kind == "f":
            return torch.from_numpy(array.astype(np.float64)).to(self.dtype)
        if array.dtype.kind not in "iub":
            raise GraphcloneError(f"inputs: {name} has dtype {array.dtype}; give numbers")
        return torch.from_numpy(array.astype(bool if array.dtype.kind == "b" else np.int64))

    def _drawn(self, name: str, sizes: tuple[int, ...]) -> torch.Tensor:
        """Values of these sizes: tokens, masks that hide nothing, zeros and ones, or noise."""
        if SIZES.fullmatch(name):
            raise GraphcloneError(f"inputs: the numbers of {name} are sizes, which cannot be drawn; give an array")
        kind = self.documented[name].kind if name in self.documented else ""
        random, hint = torch.Generator().manual_seed(0), f"{self.parameters[name].annotation} {kind}"
        if name in _TOKENS:
            return self.words(*sizes)
        if name.endswith("_mask"):
            return torch.ones(sizes, dtype=torch.long)
        if _is_ids(name) or re.search("Long|Int|Bool", hint):
            values = torch.randint(0, 2, sizes, generator=random)
            return values.bool() if "Bool" in hint else values
        return torch.randn(sizes, generator=random).to(self.dtype)

    # What the model says

    @cached_property
    def parameters(self) -> Mapping[str, Any]:
        return inspect.signature(self.module.forward).parameters

    @cached_property
    def documented(self) -> Mapping[str, Documented]:
        """The parameters whose shapes are documented, and those that are tokens by their names."""
        tokens = {n: Documented("", ("batch_size", "sequence_length"), True) for n in self.parameters if _is_ids(n)}
        return tokens | {n: item for n, item in documented_inputs(self.module.forward).items() if n in self.parameters}

    def sizes(self, names: Sequence[str], given: NamedInputs) -> tuple[int, ...]:
        """The sizes that the documentation of an input calls so, equal to those of the same name in other inputs."""
        height, width = self.extent
        known = {"bs": _BATCH, "height": height, "width": width} | dict.fromkeys(_EXTENTS, height)
        known |= {"num_channels": self.channels, "num_frames": self.field("vision", "num_frames frames_per_clip")}
        known |= {"target_sequence_length": _TARGET_SEQUENCE, "sequence_length": self.field("", "context_length")}
        tensors = {name: value for name, value in given.items() if isinstance(value, torch.Tensor)}
        for name, value in tensors.items():
            if name in self.documented and value.ndim == len(self.documented[name].sizes):
                known |= dict(zip(self.documented[name].sizes, value.shape, strict=True))
        known |= {"batch_size": len(next(iter(tensors.values()), range(_BATCH)))}

        def size(name: str) -> int:
            ways = (int(name) if name.isdecimal() else None, known.get(name), getattr(self.module.config, name, None))
            return next((way for way in ways if isinstance(way, int)), known["sequence_length"] or _SEQUENCE)

        return tuple(sum(prod(map(size, part.split(" * "))) for part in name.split(" + ")) for name in names)

    @cached_property
    def tokens(self) -> dict[str, int]:
        return media_tokens(self.module.config) if "input_ids" in self.parameters else {}

    @cached_property
    def mode(self) -> fake_tensor.FakeTensorMode:
        return fake_tensor.FakeTensorMode(allow_non_fake_inputs=True)

    @cached_property
    def faked(self) -> Any:
        return weightless(self.module, self.mode)

    def run(self, function: Any, inputs: NamedInputs, mode: fake_tensor.FakeTensorMode | None = None) -> Any:
        """A call with fake tensors, as a trace makes it. Tensors whose numbers are sizes stay real."""
        arguments = dict(inputs)
        with (
            forgotten(self.module),
            traceable_torch(),
            patch.multiple(torch.compiler, _is_compiling_flag=True, _is_exporting_flag=True),
            torch.no_grad(),
            mode or self.mode,
            sizes_known(arguments) as size_tensors,
        ):
            return function(**arguments, **size_tensors())

    def count(self, kind: str, form: NamedInputs) -> int:
        """The number of tokens of a text that the features of one kind replace.

        Raises:
            Exception: whatever the model raises at inputs of another form.
        """
        make = method_of(self.faked, f"get_{kind}_features")
        names = inspect.signature(make).parameters if make else {}
        takes_all = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in names.values())
        inputs = {name: value for name, value in form.items() if takes_all or name in names}
        if make is None or not inputs:
            return 0
        result = self.run(make, inputs)
        result = getattr(result, "pooler_output", result)
        features = [result] if isinstance(result, torch.Tensor) else [part for part in result if part is not None]
        rows, rest = divmod(sum(part.numel() // part.shape[-1] for part in features), _BATCH)
        if rest:
            raise ValueError("features that do not belong to one picture each")
        return rows

    def field(self, kind: str, names: str, default: Any = None) -> Any:
        """The first of some fields that the part of the configuration for a kind has, or the whole, or a processor."""
        config = self.module.config
        names_of_parts = [n for n in getattr(config, "sub_configs", ()) if re.search(_PARTS.get(kind, "$"), n)]
        for holder in (*(getattr(config, name, None) for name in names_of_parts), config):
            for name in names.split():
                if (value := getattr(holder, name, None)) is not None:
                    return value
        return next((self.processor[name] for name in names.split() if self.processor.get(name) is not None), default)

    # Text

    def words(self, *sizes: int) -> torch.Tensor:
        """Tokens that stand for themselves."""
        vocabulary = self.vocabulary()
        ids = (31 * torch.arange(prod(sizes)) + 5).remainder(vocabulary)
        for token in self.tokens.values():
            ids[ids == token] = next(i for i in range(vocabulary) if i not in self.tokens.values())
        return ids.view(sizes)

    def ended(self, ids: torch.Tensor) -> torch.Tensor:
        """Texts with the token that ends one at their end, and nowhere else."""
        end = getattr(self.module.config, "eos_token_id", None)
        if not isinstance(end, int) or not 0 <= end < self.vocabulary():
            return ids
        other = next(i for i in range(self.vocabulary()) if i != end and i not in self.tokens.values())
        ids = torch.where(ids == end, other, ids)
        ids[:, -1] = end
        return ids

    def vocabulary(self) -> int:
        """The number of tokens; not every class says which of its tables is that of the tokens."""
        config = self.module.config
        try:
            table = self.module.get_input_embeddings()
        except NotImplementedError:
            table = None
        size = getattr(table, "num_embeddings", None) or getattr(text_config(config), "vocab_size", None)
        if not isinstance(size, int):
            reason = "no number of tokens is in its configuration, so that none can be made for it"
            raise GraphcloneError(f"{type(self.module).__name__}: {reason}", GIVE)
        return size

    def text(self, places: Mapping[str, int]) -> torch.Tensor:
        """Tokens, with places for pictures and sounds between a first and a last word."""
        if not places:
            return self.words(_BATCH, _SEQUENCE)
        ids = self.words(_BATCH, fresh_size(sum(places.values()) + 2 * len(places) + _SEQUENCE, self.weight_sizes))
        at = 2
        for kind, count in places.items():
            ids[:, at : at + count] = self.tokens[kind]
            at += count + 2
        return ids

    # Pictures and sounds

    def pictures(self) -> list[NamedInputs]:
        """The forms that the pictures may have; one of none where the model looks at none."""
        return list(self._pictures()) if "pixel_values" in self.parameters else [{}]

    @cached_property
    def channels(self) -> int:
        """Channels of a picture."""
        return self.field("vision", "num_channels in_channels in_chans", 3)  # type: ignore[no-any-return]

    @cached_property
    def extent(self) -> tuple[int, int]:
        """Height and width of a picture."""
        size = self.field("vision", "image_size crop_size input_size", _IMAGE)
        size = (size.get("height", _IMAGE), size.get("width", _IMAGE)) if isinstance(size, Mapping) else size
        height, width = size if isinstance(size, list | tuple) else (size, size)
        return height, width

    def _pictures(self) -> Iterator[NamedInputs]:
        channels, (height, width) = self.channels, self.extent
        if (grid := next((n for n in self.parameters if re.fullmatch(r"(image_)?grid_thw", n)), None)) is not None:
            yield from self._patches(grid, channels)
        if "spatial_shapes" in self.parameters:
            yield from self._padded_patches(channels)
        if "image_sizes" in self.parameters:
            for h, w in dict.fromkeys(((min(height, _IMAGE), min(width, _IMAGE)), (height, width))):
                yield self._noise("pixel_values", channels, h, w) | {"image_sizes": torch.tensor([[h, w]] * _BATCH)}
            crops = self._noise("pixel_values", _CROPS, channels, height, width)
            yield crops | {"image_sizes": torch.tensor([[height, width]] * _BATCH)}
        if self.field("vision", "num_frames") and not self.tokens:
            yield self._noise("pixel_values", self.field("vision", "num_frames"), channels, height, width)
            return
        yield self._noise("pixel_values", channels, height, width)
        backbone = getattr(getattr(self.module.config, "backbone_config", None), "image_size", None)
        if isinstance(backbone, list | tuple):
            yield self._noise("pixel_values", channels, *backbone)
        if self.tokens:
            yield self._noise("pixel_values", 1, channels, height, width)

    def _patches(self, grid: str, channels: int) -> Iterator[NamedInputs]:
        """Pictures cut into patches, of all pictures side by side, and how many there are in each direction."""
        merged = self.field("vision", "spatial_merge_size merge_size", 1)
        patch, frames = self.field("vision", "patch_size", 1), self.field("vision", "temporal_patch_size", 1)
        sides = torch.tensor([[1, 2 * merged, 2 * merged]] * _BATCH)
        count = int(sides.prod(1).sum())
        for shape in ((channels * frames * patch * patch,), (channels, patch, patch)):
            yield {"pixel_values": self._noise("", *shape, batch=count)[""], grid: sides}

    def _padded_patches(self, channels: int) -> Iterator[NamedInputs]:
        """Pictures cut into patches, those of each picture in a row, and how many there are in each direction."""
        patch, merged = self.field("vision", "patch_size", 1), self.field("", "downsample_factor", 1)
        sides = torch.tensor([[2 * merged, 3 * merged]] * _BATCH)
        count = int(sides[0].prod())
        masks = {n: torch.ones(_BATCH, count, dtype=torch.long) for n in self.parameters if re.match("pixel_.*mask", n)}
        yield self._noise("pixel_values", count, channels * patch * patch) | masks | {"spatial_shapes": sides}

    def sounds(self) -> list[NamedInputs]:
        """The forms that the sounds may have; one of none where the model hears none."""
        heard = {"input_features": self._spectrograms, "input_values": self._waves}
        return next((list(make()) for name, make in heard.items() if name in self.parameters), [{}])

    def _spectrograms(self) -> Iterator[NamedInputs]:
        bins = self.field("audio", "num_mel_bins feature_projection_input_dim input_feat_per_channel feature_size", 80)
        channels = self.field("audio", "input_channels", 1) if self.field("audio", "input_feat_per_channel") else 1
        positions = self.field("audio", "max_source_positions")
        names = [name for name in self.parameters if re.fullmatch(r"(input_)?features?_(attention_)?mask", name)]
        for frames in dict.fromkeys((2 * positions, _FRAMES) if positions else (_FRAMES,)):
            for shape in ((bins, frames), (frames, bins * channels)):
                spectrogram = self._noise("input_features", *shape)
                yield spectrogram
                yield from (spectrogram | {name: torch.ones(_BATCH, frames, dtype=torch.long)} for name in names)

    def _waves(self) -> Iterator[NamedInputs]:
        if (length := self.field("audio", "max_length")) and (bins := self.field("audio", "num_mel_bins")):
            yield self._noise("input_values", length, bins)
        samples = _WAVE
        if strides := self.field("audio", "conv_stride"):
            samples = _SEQUENCE
            for kernel, stride in zip(self.field("audio", "conv_kernel")[::-1], strides[::-1], strict=True):
                samples = (samples - 1) * stride + kernel
        yield self._noise("input_values", samples)
        yield self._noise("input_values", 1, samples)

    def _noise(self, name: str, *shape: int, batch: int = _BATCH) -> NamedInputs:
        values = torch.randn((batch, *shape), generator=torch.Generator().manual_seed(0))
        return {name: values.to(self.dtype)}


def _is_ids(name: str) -> bool:
    return name.endswith("_ids")


def main_inputs(module: Any) -> set[str]:
    """The names of the inputs that a model cannot do without: one, as a rule."""
    names = module.main_input_name
    return {names} if isinstance(names, str) else {*names}
