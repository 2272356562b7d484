"""What is kept on disk is what was written, or nothing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

import graphclone
from graphclone.runtime import cache


@pytest.fixture
def empty_cache() -> Path:
    return cache.folder()


ANSWER = {"shapes": {"weight": [3, 4]}, "number": 0.1, "none": None}


def kept(folder: Path) -> Path:
    cache.write(cache.key("question"), ANSWER)
    (path,) = folder.iterdir()
    return path


def test_an_answer_is_read_back(empty_cache: Path) -> None:
    kept(empty_cache)
    assert cache.read(cache.key("question")) == ANSWER
    assert cache.read(cache.key("another question")) is None


def test_an_answer_of_another_length_is_none(empty_cache: Path) -> None:
    path = kept(empty_cache)
    data = path.read_bytes()
    for damaged in (data[:-1], data[:20], b"", data + b" "):
        path.write_bytes(damaged)
        assert cache.read(cache.key("question")) is None


def test_every_flipped_byte_is_noticed(empty_cache: Path) -> None:
    path = kept(empty_cache)
    data = path.read_bytes()
    for position in range(len(data)):
        path.write_bytes(data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :])
        assert cache.read(cache.key("question")) is None


def test_a_folder_that_cannot_be_written_is_no_error(empty_cache: Path) -> None:
    empty_cache.parent.mkdir()
    empty_cache.write_text("a file in place of the folder")
    cache.write(cache.key("question"), ANSWER)
    assert cache.read(cache.key("question")) is None


def test_no_cache_neither_reads_nor_writes(empty_cache: Path) -> None:
    with graphclone.no_cache():
        cache.write(cache.key("question"), ANSWER)
    assert not empty_cache.exists()
    kept(empty_cache)
    with graphclone.no_cache():
        assert cache.read(cache.key("question")) is None
    assert cache.read(cache.key("question")) == ANSWER


def test_the_key_has_what_answers_depend_on(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = {cache.key("question"), cache.key("question", 1), cache.key("question", True), cache.key("question", 1.0)}
    with torch.no_grad():
        keys.add(cache.key("question"))
    monkeypatch.setenv("TRANSFORMERS_SETTING", "1")
    keys.add(cache.key("question"))
    monkeypatch.setattr(cache, "environment", lambda: ["another version"])
    keys.add(cache.key("question"))
    assert len(keys) == 7


def test_what_is_no_plain_value_has_no_key() -> None:
    with pytest.raises(TypeError):
        cache.key("question", object())


def test_the_code_of_the_library_is_in_the_key() -> None:
    root = Path(cache.__file__).parent.parent
    cache.own_code.cache_clear()
    before = cache.own_code()
    extra = root / "runtime" / "_another_file_of_the_library.py"
    try:
        extra.write_text("")
        cache.own_code.cache_clear()
        assert cache.own_code() != before
    finally:
        extra.unlink()
        cache.own_code.cache_clear()


def test_what_was_not_asked_for_longest_is_dropped(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "LIMIT", 2)
    for number in range(3):
        cache._trim.cache_clear()
        cache.write(cache.key(number), number)
        os.utime(empty_cache / cache.key(number), (number, number))
        cache.read(cache.key(0))
    cache._trim.cache_clear()
    cache.write(cache.key(3), 3)
    assert [cache.read(cache.key(number)) for number in range(4)] == [0, None, None, 3]
