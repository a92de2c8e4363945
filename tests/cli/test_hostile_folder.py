"""Commands that read a folder execute nothing that the folder holds or names."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from conftest import Command
from optiscope.records import Run, StudyFolder
from optiscope.study.module_file import LARGEST_SOURCE, module_file
from stats.small_study import study

MARK = "PWNED"
EVIL = f"import pathlib\npathlib.Path({MARK!r}).write_text('x')\n\n\nclass Opt:\n    pass\n"
READERS = (["status"], ["report"], ["claim", "A better than B on fmnist_2c2d"])

PATHS = [
    "runs.shared.evil_mod:Opt",  # a namespace package in the natural place
    "runs.shared.package.inner:Opt",  # whose parent would run first
    "evil_top:Opt",
    "zipped.zip.evil_zip:Opt",
    "evil_zip:Opt",
    "linked:Opt",
    "endless:Opt",
    "antigravity:x",
    "this:x",
    "..evil_top:Opt",
    "runs/shared/evil_mod:Opt",
    "a\x00b:Opt",
    "x" * 5000 + ":Opt",
    ":",
    "::",
    "deep:Opt",
    "binary:Opt",
    "huge:Opt",
    "cycle_a:Opt",
]


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Somebody's study at ``runs/shared`` below the current folder, with code in every corner."""
    root = tmp_path / "somebody"
    folder = study(root / "runs" / "shared", {"A": (0.9, 0.8), "B": (0.7, 0.6)}, seeds=(1, 2))
    package = folder.path / "package"
    package.mkdir()
    places = (
        folder.path / "evil_mod.py",
        package / "__init__.py",
        package / "inner.py",
        root / "evil_top.py",
        root / "pandas.py",
        root / "sitecustomize.py",
    )
    for place in places:
        place.write_text(EVIL)
    (root / "evil.pth").write_text("import evil_top\n")
    with zipfile.ZipFile(root / "zipped.zip", "w") as archive:
        archive.writestr("evil_zip.py", EVIL)
    (root / "linked.py").symlink_to(root / "evil_top.py")
    (root / "endless.py").symlink_to("/dev/zero")
    (root / "deep.py").write_text("(" * 100_000)
    (root / "binary.py").write_bytes(bytes(range(256)))
    (root / "huge.py").write_bytes(b"#" * (LARGEST_SOURCE + 1))
    (root / "cycle_a.py").write_text("from cycle_b import *\n")
    (root / "cycle_b.py").write_text("from cycle_a import *\n")
    monkeypatch.chdir(root)
    return folder.path


def _named(folder: Path, path: str) -> None:
    """Let the study's records name ``path``, each with a valid digest and ledger entry."""
    store = StudyFolder(folder)
    entries = []
    for entry in store.ledger():
        run = store.store.read(entry.trial_hash)
        assert isinstance(run, Run)
        values = run.to_dict()
        values["trial"] |= {"optimizer": path, "optimizer_code": "0" * 16}
        values["trial"] |= {"problem_code": "1" * 16}
        changed = Run.from_dict(values, run.metrics)
        store.store.write(changed)
        entries.append(type(entry)(**{**vars(entry), "trial_hash": changed.trial.hash}))
    store.write_ledger(entries)


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path[:30].encode().hex())
def test_no_reader_imports_what_a_record_names(
    optiscope: Command, shared: Path, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(shared.parents[1])
    monkeypatch.syspath_prepend(shared.parents[1] / "zipped.zip")
    _named(shared, path)
    before = set(sys.modules)
    for command in READERS:
        assert optiscope(*command, shared).code in (0, 1)
    assert not list(shared.parents[1].rglob(MARK))
    assert not {name for name in sys.modules.keys() - before if "evil" in name or name == "this"}


def test_a_process_in_that_folder_executes_nothing(shared: Path) -> None:
    """The console script itself: libraries look for optional modules, such as pandas."""
    _named(shared, "evil_top:Opt")
    script = "import sys; sys.path.pop(0); from optiscope.cli import main; main()"
    for command in READERS:
        call = [sys.executable, "-c", script, *command, "runs/shared"]
        done = subprocess.run(call, capture_output=True, text=True, check=False)
        assert done.returncode in (0, 1), done.stderr
        assert "Traceback" not in done.stderr
    assert not list(shared.parents[1].rglob(MARK))


def test_a_module_is_looked_for_as_python_does(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first / "space", second / "space", second / "regular"):
        folder.mkdir(parents=True)
    for file in (second / "space" / "a.py", first / "b.py", second / "b.py"):
        file.write_text("")
    (second / "regular" / "__init__.py").write_text("")
    (second / "compiled.pyc").write_text("")
    (second / "compiled.py").write_text("")
    search = [str(first), str(second)]
    assert module_file("space.a", search) == second / "space" / "a.py"
    assert module_file("b", search) == first / "b.py"
    assert module_file("regular", search) == second / "regular" / "__init__.py"
    for name in ("regular.none", "space", "space.a.b", "none", "..b", "", "b/../b"):
        assert module_file(name, search) is None, name
