"""From a Hugging Face checkpoint to a wider one that its stock class loads, disk to disk."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from graphclone.algebra.depths import Depths, Start, Where
from graphclone.algebra.factors import Widen
from graphclone.algebra.strategies import StrategyLike
from graphclone.clones.saving import check_room
from graphclone.clones.source import After
from graphclone.errors import GraphcloneError
from graphclone.formats.huggingface import card, staging
from graphclone.formats.huggingface.plan import MAX_SHARD_SIZE, Plan, plan
from graphclone.formats.huggingface.reader import open_checkpoint
from graphclone.formats.huggingface.sentence_modules import write_modules
from graphclone.formats.huggingface.training import TrainingState, training_state
from graphclone.pipeline.requests import requested
from graphclone.progress import Progress, in_bytes, silent
from graphclone.runtime.ranks import ALONE, Ranks

if TYPE_CHECKING:
    import torch

    from graphclone.verification.checks import Report


Verify: TypeAlias = bool | Literal["sample"]
"""Whether a clone is compared with its source; on a sample if so said, with little memory."""


@dataclass(frozen=True)
class Written:
    """A checkpoint that has been written.

    Attributes:
        plan: what was decided.
        verification: what comparing source and clone found; None if that was left out.
        notes: what the user should know.
    """

    plan: Plan
    verification: Report | None
    notes: Sequence[str]


def clone_checkpoint(  # noqa: PLR0913 (all but the first two are keywords)
    source: str | Path,
    output: str | Path,
    *,
    widen: Widen | None = None,
    sizes: Mapping[str, int] | None = None,
    depth: Depths | None = None,
    new_blocks: Where = "spread",
    new_from: Start = "copy",
    like: str | Path | None = None,
    keep_vocab: bool = False,
    omit: Sequence[str] = (),
    widen_io: Sequence[str] = (),
    strategy: StrategyLike = "symmetric",
    snr_db: float | None = None,
    seed: int = 0,
    dtype: torch.dtype | str | None = None,
    max_shard_size: int = MAX_SHARD_SIZE,
    inputs: Mapping[str, Any] | None = None,
    trust_remote_code: bool = False,
    optimizer: str | Path | None = None,
    resume: bool = False,
    force: bool = False,
    verify: Verify = True,
    command: str = "graphclone.clone_checkpoint",
    progress: Progress | None = None,
    after: After | None = None,
) -> Written:
    """Write a bigger checkpoint that ``from_pretrained`` loads and that computes what the source computes.

    Args:
        source: the folder of a checkpoint, or a hub id.
        output: the folder to write.
        widen: a factor, or a dict of factors by dim; as for ``clone``.
        sizes: a dict of new sizes by dim; as for ``clone``.
        depth: a number of blocks, or a dict of numbers by stack; as for ``clone``.
        new_blocks: where new blocks go: ``spread``, ``end`` or ``start``; as for ``clone``.
        new_from: what new blocks begin as: ``copy`` or ``random``; as for ``clone``.
        like: a published shape to take in place of these: a config.json, a folder with one, or a hub id.
        keep_vocab: keep the source's vocabulary if ``like`` has another one.
        omit: names or patterns of parts that no example input reaches, and that the clone is to lack; as for ``clone``.
        widen_io: patterns of names of outputs that may grow.
        strategy: as for ``clone``.
        snr_db: the signal-to-noise ratio of a noisy strategy, in decibels.
        seed: of the noise.
        dtype: of the clone's weights, or its name. By default it is the source's.
        max_shard_size: the most bytes of tensors in one file.
        inputs: everything that the model is fed, by name, if graphclone can make no inputs for it: tensors, arrays, or
            tuples of sizes for which values are drawn.
        trust_remote_code: let code that comes with the checkpoint run.
        optimizer: the file in which transformers' Trainer or Accelerate keeps the state of an optimizer. The state
            grows, too. Files beside it that hold for any width are copied: the schedule, random states, the number of
            steps.
        resume: go on from the finished files of a run that was stopped.
        force: replace a checkpoint that is already there.
        verify: whether to load both and compare what they compute before the folder gets its name. ``"sample"`` runs
            both on one input and reads their weights part by part, for models that do not fit into memory.
        command: the command that the model card shows.
        progress: a callback that is told how many steps are done.
        after: a function that is called after each pass, with the pass and the state.

    Returns:
        What was written: the plan, the report of the verification, and notes for the user.

    Raises:
        NotEquivalentError: the clone does not compute the same. Nothing is left behind.
        GraphcloneError: the source cannot be read, cannot grow as asked, or the output cannot be written.

    Examples:
        >>> written = gc.clone_checkpoint(folder, folder.with_name("wide"), widen=2, verify=False)
        >>> sorted(path.name for path in folder.with_name("wide").glob("*.json"))
        ['config.json', 'generation_config.json']
    """
    request = requested(
        widen=widen,
        sizes=sizes,
        depth=depth,
        new_blocks=new_blocks,
        new_from=new_from,
        like=like,
        keep_vocab=keep_vocab,
        omit=omit,
        widen_io=widen_io,
        strategy=strategy,
        snr_db=snr_db,
        seed=seed,
    )
    advance = progress or silent
    checkpoint = open_checkpoint(source, trust_remote_code=trust_remote_code, inputs=inputs, dtype=dtype)
    staging.check_target(Path(output), checkpoint.folder, force=force, resume=resume)
    clone_plan = plan(checkpoint, request, max_shard_size=max_shard_size, progress=advance, after=after)
    training = training_state(clone_plan, Path(optimizer)) if optimizer is not None else None
    return write_checkpoint(
        clone_plan,
        output,
        training=training,
        resume=resume,
        force=force,
        verify=verify,
        command=command,
        progress=advance,
    )


def write_checkpoint(  # noqa: PLR0913 (all but the first two are keywords)
    clone_plan: Plan,
    output: str | Path,
    *,
    training: TrainingState | None = None,
    resume: bool = False,
    force: bool = False,
    verify: Verify = True,
    command: str = "graphclone.clone_checkpoint",
    progress: Progress = silent,
    ranks: Ranks = ALONE,
) -> Written:
    """Write what has been planned; see ``clone_checkpoint``. Processes that have planned the same share the shards.

    Raises:
        NotEquivalentError: the clone does not compute the same; nothing is left behind.
        GraphcloneError: a source tensor cannot be read, or the output not written.
    """
    target = Path(output)
    if len(set(ranks.gathered(clone_plan.fingerprint))) > 1:
        raise GraphcloneError(f"{target}: the processes see different sources or versions; give all of them the same")
    staging.check_target(target, clone_plan.checkpoint.folder, force=force, resume=resume)
    shards = clone_plan.shards
    with staging.staged(target, clone_plan.fingerprint, resume=resume, ranks=ranks) as stage:
        if ranks.first:
            missing = (shard for shard in shards if shard.file_name not in stage.finished)
            check_room(stage.target, sum(shard.nbytes for shard in missing))
        stage.write(shards, _counter(progress, sum(shard.nbytes for shard in shards)))
        if not ranks.first:
            ranks.gathered(None)  # once the first has done the rest
            return Written(clone_plan, None, clone_plan.notes)
        notes = [*clone_plan.notes, *_complete(clone_plan, stage, training)]
        report = _verified(clone_plan, stage.folder, verify, progress) if verify else None
        text = card.text(clone_plan, command=command, notes=notes, report=report)
        staging.write_text(stage.folder / staging.CARD, text)
        stage.publish(force)
        ranks.gathered(None)
    return Written(clone_plan, report, notes)


def _complete(clone_plan: Plan, stage: staging.Staging, training: TrainingState | None) -> list[str]:
    """Write everything beside the shards; returns what the user should know about it."""
    checkpoint = clone_plan.checkpoint
    left_out = staging.copied(checkpoint.folder, stage.folder, code=checkpoint.trusted)
    notes = write_modules(checkpoint.folder, stage.folder, clone_plan.widened.state)
    staging.write_index(stage.folder, clone_plan.shards)
    staging.write_config(stage.folder, clone_plan.config)
    if training is not None:
        notes.append(training.write(stage.folder))
        left_out = [name for name in left_out if not (stage.folder / name).exists()]
    notes += [f"not copied: {', '.join(left_out)}"] if left_out else []
    with_nans = (name for names in stage.finished.values() for name in names)
    return [*notes, *(f"{name} holds NaNs in the source, and so it does here" for name in with_nans)]


def _verified(clone_plan: Plan, folder: Path, verify: Verify, progress: Progress) -> Report:
    from graphclone.formats.huggingface.verifier import verify_checkpoints

    progress("verifying", 0, 1)
    report = verify_checkpoints(clone_plan, folder, sample=verify == "sample")
    report.raise_if_failed()
    return report


def _counter(progress: Progress, total: int) -> Callable[[int], None]:
    """Adds up bytes, in megabytes as they are shown. It is called from several threads, and need not be exact."""
    written = 0

    def advance(count: int) -> None:
        nonlocal written
        written += count
        progress(f"writing {in_bytes(written)} of {in_bytes(total)}", written, total)

    return advance
