"""The example files for clusters: the machine file becomes the script, the recipe's test passes."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

from optiscope.executors.slurm import machine_file, script

ROOT = Path(__file__).parents[2]
CLUSTER = ROOT / "examples" / "cluster"


def sections() -> dict[str, str]:
    """A recipe's header and sections, by name."""
    parts = re.split(r"^%(\w+)$", (CLUSTER / "optiscope.def").read_text(), flags=re.MULTILINE)
    return {"header": parts[0]} | dict(zip(parts[1::2], parts[2::2], strict=True))


def test_the_machine_file_becomes_the_script() -> None:
    machine = machine_file(str(CLUSTER / "uni.toml"), CLUSTER)
    text = script(machine, Path("/home/me/runs/mine"), "mine")
    assert text == (CLUSTER / "job.sh").read_text()
    subprocess.run(["bash", "-n", str(CLUSTER / "job.sh")], check=True, timeout=60)
    assert "#SBATCH --mail-type=END,FAIL" in text


def test_the_recipe_has_what_apptainer_needs() -> None:
    recipe = sections()
    assert "Bootstrap: docker\nFrom: python:3.12-slim\n" in recipe["header"]
    assert set(recipe) == {"header", "files", "post", "environment", "runscript", "test"}
    for line in recipe["files"].split("\n"):
        if line.strip():
            assert (ROOT / line.split()[0]).is_file()
    for name in ("post", "environment", "runscript", "test"):
        subprocess.run(["bash", "-n"], input=recipe[name], text=True, check=True, timeout=60)


def test_the_recipes_test_section_passes(tmp_path: Path) -> None:
    start = "from optiscope.cli import main; main()"
    program = tmp_path / "optiscope"
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -c "{start}" "$@"\n')
    program.chmod(0o755)
    recipe = sections()
    done = subprocess.run(
        ["bash"], input=recipe["environment"] + recipe["test"], text=True, cwd=tmp_path,
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}",
             "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        capture_output=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
