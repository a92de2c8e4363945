"""Which part may know which: the table in docs/design.md, and what must not be loaded."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "optiscope"
DESIGN = ROOT / "docs" / "design.md"


def parts() -> set[str]:
    return {path.parent.name for path in PACKAGE.glob("*/__init__.py")}


def rules() -> dict[str, set[str]]:
    """What each part may import, from the table of docs/design.md."""
    found: dict[str, set[str]] = {}
    for left, right in re.findall(r"^\| (`.*?) \| (.*?) \|$", DESIGN.read_text(), re.MULTILINE):
        words = set(re.findall(r"\w+", right))
        if right.startswith("anything"):
            words = parts() - words
        for part in re.findall(r"`(\w+)`", left):
            found[part] = words
    return found


def imported(path: Path) -> set[str]:
    """Parts that a file imports, wherever in it the import stands."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import in line {node.lineno}"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    ours = (name.split(".") for name in names)
    return {name[1] for name in ours if name[0] == "optiscope" and len(name) > 1} & parts()


def test_the_table_knows_every_part() -> None:
    assert parts() <= set(rules())
    assert rules()["train"] == {"data", "problems", "objective", "monitor", "records"}
    assert "cli" not in rules()["testing"]
    assert parts() - {"cli"} <= rules()["cli"]


@pytest.mark.parametrize("part", sorted(parts()))
def test_a_part_imports_only_what_it_may(part: str) -> None:
    allowed = rules()[part] | {part}
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in (PACKAGE / part).rglob("*.py")
        for name in sorted(imported(path) - allowed)
    ]
    assert not wrong


def test_the_walk_sees_an_import_inside_a_function(tmp_path: Path) -> None:
    path = tmp_path / "example.py"
    path.write_text(
        "from optiscope import stats\n"
        "import optiscope.data.samples\n"
        "def f():\n    from optiscope.study.runner import run_study\n"
    )
    assert imported(path) == {"stats", "data", "study"}


def loaded_by(code: str) -> set[str]:
    """Top-level modules that are loaded after ``code`` ran in a fresh process."""
    printed = subprocess.run(
        [sys.executable, "-c", f"import sys\n{code}\nprint(*sys.modules, file=sys.__stdout__)"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()[-1]
    return {name.partition(".")[0] for name in printed.split()}


def run_command(arguments: str) -> str:
    """Code that runs the command line and keeps the process alive."""
    return (
        "from optiscope.cli import main\n"
        f"try:\n    main({arguments.split()!r})\nexcept SystemExit as e:\n    assert not e.code"
    )


@pytest.mark.parametrize(
    "code",
    [
        "import optiscope; optiscope.__version__; dir(optiscope)",
        *(f"import optiscope.{part}" for part in ("records", "stats", "report", "executors")),
        "import optiscope.data, optiscope.problems, optiscope.study",
        run_command("--help"),
        run_command("--version"),
        run_command("list problems --json"),
        run_command("data list --json"),
        run_command("list studies --json"),
    ],
)
def test_torch_is_not_loaded(code: str) -> None:
    assert "torch" not in loaded_by(code)


def test_help_loads_nothing_heavy() -> None:
    heavy = {"torch", "numpy", "pandas", "scipy", "optuna", "matplotlib", "pyarrow", "rich"}
    loaded = loaded_by(run_command("--help"))
    assert not heavy & loaded
    assert len(loaded) < 150  # about a tenth of a second; torch alone loads a thousand modules


def test_every_public_name_is_there() -> None:
    import optiscope

    assert set(optiscope.__all__) <= set(dir(optiscope))
    for name in optiscope.__all__:
        assert getattr(optiscope, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = optiscope.nothing


def test_the_map_names_what_is_there() -> None:
    text = DESIGN.read_text()
    table = text[text.index("## Where do I find") : text.index("## Contracts")]
    paths = re.findall(r"`([a-z_]+(?:/[a-z_]+)*(?:/|\.py))`", table)
    assert len(paths) > 20
    missing = [path for path in paths if not (PACKAGE / path).exists()]
    assert not missing
