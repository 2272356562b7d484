"""The survey of files in the wild, but for the network."""

from __future__ import annotations

import io
import os
import re
import tarfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from tests.survey import archives, widening
from tests.survey.archives import ArchiveError, Package, digest, inside, packages, unpack
from tests.survey.rows import EMPTY, FAILED, REFUSED, WIDENED, Row, distinct, latest
from tests.survey.tables import by_file, by_package, line, summary


def model(folder: Path, *, hidden: int = 6, op: str = "Relu") -> Path:
    """A file with a hidden dim between two weights."""
    random = np.random.default_rng(0)
    shapes = {"up": (4, hidden), "down": (hidden, 3)}
    weights = [
        numpy_helper.from_array(random.standard_normal(s).astype(np.float32), name) for name, s in shapes.items()
    ]
    nodes = [
        helper.make_node("MatMul", ["x", "up"], ["a"]),
        helper.make_node(op, ["a"], ["b"]),
        helper.make_node("MatMul", ["b", "down"], ["y"]),
    ]
    ports = [[helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, ["n", s])] for n, s in (("x", 4), ("y", 3))]
    graph = helper.make_graph(nodes, "g", *ports, weights)
    made = helper.make_model(
        graph,
        producer_name="by-hand",
        producer_version="1",
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    path = folder / "model.onnx"
    onnx.save(made, path)
    return path


def _works(file: Path) -> dict[str, Any]:
    while True:
        pass


def _sleeps(file: Path) -> dict[str, Any]:
    time.sleep(1000)
    return {}


def _dies(file: Path) -> dict[str, Any]:
    os._exit(3)


def _process(file: Path) -> dict[str, Any]:
    return {"process": os.getpid()}


def zipped(path: Path, content: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    return path


def tarred(path: Path, content: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, data in content.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return path


class TestPackages:
    def test_of_the_table_have_a_registry_and_one_version_each(self) -> None:
        listed = packages()
        assert {package.registry for package in listed} == {"pypi", "npm"}
        assert all(re.fullmatch(r"\d[\w.]*", package.version) for package in listed)
        assert Package("pypi", "silero-vad", "6.2.3") in listed
        assert Package("npm", "@ricky0123/vad-web", "0.0.31") in listed

    def test_that_a_client_does_not_get_is_named(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(archives._CLIENTS, "npm", ("sh", "-c", "echo E404 $0 >&2; exit 1"))
        with pytest.raises(ArchiveError, match=r"thing 1\.0: not downloaded: E404 thing@1.0"):
            archives.download(Package("npm", "thing", "1.0"), tmp_path)

    def test_that_is_too_large_is_named(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(archives._CLIENTS, "npm", ("sh", "-c", "echo 12345 > thing.tgz"))
        monkeypatch.setattr(archives, "LARGEST", 5)
        with pytest.raises(ArchiveError, match=r"thing 1\.0: larger"):
            archives.download(Package("npm", "thing", "1.0"), tmp_path)


@pytest.mark.parametrize("pack", [zipped, tarred])
class TestUnpack:
    def test_takes_models_and_the_weights_beside_them(self, pack, tmp_path: Path) -> None:
        content = {"p/b.onnx": b"2", "p/a.onnx": b"1", "p/a.onnx.data": b"3", "p/setup.py": b"4", "p/data.bin": b"5"}
        folder = tmp_path / "content"
        models = unpack(pack(tmp_path / "archive", content), folder)
        assert models == [folder / "p/a.onnx", folder / "p/b.onnx"]
        assert sorted(path.name for path in (folder / "p").iterdir()) == ["a.onnx", "a.onnx.data", "b.onnx"]
        assert models[0].read_bytes() == b"1"

    @pytest.mark.parametrize("name", ["../out.onnx", "p/../../out.onnx", "/tmp/out.onnx", "C:\\out.onnx", "..\\o.onnx"])
    def test_refuses_a_name_that_leads_out(self, pack, name: str, tmp_path: Path) -> None:
        folder = tmp_path / "content"
        with pytest.raises(ArchiveError, match="leads out of the archive"):
            unpack(pack(tmp_path / "archive", {name: b"1"}), folder)
        assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.name != "archive"]

    def test_refuses_a_model_that_is_too_large(self, pack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(archives, "LARGEST", 3)
        with pytest.raises(ArchiveError, match=r"a\.onnx is larger"):
            unpack(pack(tmp_path / "archive", {"a.onnx": b"1234"}), tmp_path)


class TestArchives:
    def test_with_a_link_in_place_of_a_model_are_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "archive"
        with tarfile.open(path, "w:gz") as archive:
            entry = tarfile.TarInfo("a.onnx")
            entry.type, entry.linkname = tarfile.SYMTYPE, "/etc/passwd"
            archive.addfile(entry)
        with pytest.raises(ArchiveError, match=r"a\.onnx is no file"):
            unpack(path, tmp_path / "content")

    def test_that_are_none_are_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "archive"
        path.write_bytes(b"no archive")
        with pytest.raises(ArchiveError, match="archive: not unpacked"):
            unpack(path, tmp_path / "content")

    def test_keep_names_that_stay_inside(self) -> None:
        assert inside("package/models/a..b.onnx") == Path("package/models/a..b.onnx")

    def test_have_one_digest_for_equal_files_and_another_for_other_weights(self, tmp_path: Path) -> None:
        found = []
        for name, data in (("one", b"1"), ("two", b"1"), ("three", b"2")):
            folder = tmp_path / name
            folder.mkdir()
            (folder / "m.onnx").write_bytes(b"graph")
            (folder / "m.onnx.data").write_bytes(data)
            found.append(digest(folder / "m.onnx"))
        assert found[0] == found[1] != found[2]


class TestFacts:
    def test_of_a_file_that_can_grow(self, tmp_path: Path) -> None:
        found = widening.facts(model(tmp_path))
        assert found["outcome"] == WIDENED
        assert (found["producer"], found["opset"]) == ("by-hand 1", 17)
        assert (found["parameters"], found["growth"]) == (4 * 6 + 6 * 3, 2)
        assert 0 <= found["ratio"] <= 4

    def test_of_a_file_without_weights(self, tmp_path: Path) -> None:
        ports = [[helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, [2, 3])] for n in "xy"]
        graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", *ports)
        path = tmp_path / "model.onnx"
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
        assert widening.facts(path)["outcome"] == EMPTY

    def test_of_a_file_that_is_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "model.onnx"
        path.write_bytes(b"")
        found = widening.facts(path)
        assert found["outcome"] == REFUSED
        assert found["why"].startswith("model.onnx: is empty")

    def test_of_a_defect(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def broken(*args: object, **options: object) -> None:
            raise KeyError("lost")

        monkeypatch.setattr(widening.gc, "clone", broken)
        found = widening.facts(model(tmp_path))
        assert (found["outcome"], found["why"]) == (FAILED, "KeyError: 'lost'")

    @pytest.mark.parametrize(
        ("find", "patience", "why"),
        [(_works, 120, "no end: the processor's time is up"), (_sleeps, 1, "no end: the time is up")],
    )
    def test_of_a_process_that_does_not_end(
        self, find: Callable[[Path], Any], patience: int, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(widening, "PATIENCE", patience)
        found = widening.outcome_of(find, tmp_path, seconds=1)
        assert (found["outcome"], found["why"]) == (FAILED, why)

    def test_of_a_process_that_dies(self, tmp_path: Path) -> None:
        found = widening.outcome_of(_dies, tmp_path, seconds=120)
        assert (found["outcome"], found["why"]) == (FAILED, "the process ended with exit code 3")

    def test_come_from_another_process(self, tmp_path: Path) -> None:
        assert widening.outcome_of(_process, tmp_path, seconds=120)["process"] != os.getpid()


ROWS = [
    Row("a 1", "x/m.onnx", "d1", WIDENED, "", "pytorch 2.0", 17, 1000, 3.5, 0.5, 10.0),
    Row("a 1", "x/n.onnx", "d2", REFUSED, "no | rule", "tf2onnx 1.9", 11, 2000, seconds=3.0),
    Row("b 2", "m.onnx", "d1", same="a 1: x/m.onnx"),
    Row("c 3", "p.onnx", "d3", EMPTY, "no weights", "", 0),
]


class TestTables:
    def test_count_every_file_once(self) -> None:
        text = summary(ROWS)
        assert text.startswith("3 files: 1 widened and verified (50% of those with weights), 1 without weights")
        assert text.endswith("1 refused with a reason, 0 failed")

    def test_say_everything_of_a_file(self) -> None:
        lines = by_file(ROWS).splitlines()
        assert len(lines) == 2 + len(ROWS)
        assert lines[2] == "| a 1 | m.onnx | pytorch 2.0 | 17 | 1,000 | x3.50 | 0.50 | 10 |  |"
        assert lines[3].endswith("| no / rule |")
        assert lines[4].endswith("| the same as a 1: x/m.onnx |")
        assert {row.count("|") for row in lines} == {10}

    def test_have_one_line_per_package(self) -> None:
        lines = by_package(ROWS).splitlines()
        assert lines[2] == "| a 1 | 2 | pytorch, tf2onnx | 11, 17 | 1 | x3.50 | 0.50 | no / rule |"
        assert lines[3].startswith("| b 2 | 0 |")
        assert {row.count("|") for row in lines} == {9}

    def test_print_a_line_as_a_survey_goes(self) -> None:
        assert re.fullmatch(r"a 1 +m\.onnx +pytorch 2\.0 +17 +1,000 +x3\.50 +0\.50 +10", line(ROWS[0]))

    def test_take_the_last_of_several_rows_of_a_file(self) -> None:
        again = Row("a 1", "x/n.onnx", "d2", WIDENED)
        assert [row.outcome for row in latest([*ROWS, again])] == [WIDENED, WIDENED, FAILED, EMPTY]
        assert len(distinct(ROWS)) == 3
