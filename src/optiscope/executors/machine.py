"""Machine files: what belongs to a cluster and never to a study."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from optiscope.errors import ExitCode, OptiscopeError, shorten
from optiscope.hints import did_you_mean

__all__ = ["Machine", "MachineError", "machine_file"]


class MachineError(OptiscopeError, ValueError):
    """A machine file that cannot be, or a batch system that refuses; one line."""

    exit_code = ExitCode.USAGE


@dataclass(frozen=True)
class Machine:
    """Where workers run; never part of a study, whose hashes do not depend on it.

    Attributes:
        partition: Slurm's.
        time: limit of each job, in Slurm's form (``3:00:00``) or as ``3h``.
        gpus, cpus, memory: of each worker.
        array: workers at a time.
        mail: ``{to = "me@uni.de", on = ["end", "fail"]}``.
        container: an Apptainer image in which the worker runs.
        setup: lines of shell before it, such as ``module load cuda``.
        data_dir: where the data sets are.
        stage: a folder on a node's own disk, such as ``/scratch/$SLURM_JOB_ID``, to which the data
            sets are copied first.
        slurm: any other option of ``sbatch``.
    """

    partition: str | None = None
    time: str | None = None
    gpus: int | None = None
    cpus: int | None = None
    memory: str | None = None
    array: int = 1
    mail: Mapping[str, Any] | None = None
    container: str | None = None
    setup: Sequence[str] = ()
    data_dir: str | None = None
    stage: str | None = None
    slurm: Mapping[str, Any] = field(default_factory=dict)


def machine_file(name: str, folder: Path) -> Machine:
    """The machine that a TOML file describes, by its path or its name in ``folder``.

    Raises:
        MachineError: no such file, or words that it does not know.
    """
    path = Path(name) if name.endswith(".toml") else folder / f"{name}.toml"
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        known = ", ".join(sorted(p.stem for p in folder.glob("*.toml"))) or "none"
        raise MachineError(
            f"expected slurm, or a machine file, got {shorten(name)}: no {path} (known: {known})"
        ) from None
    except (OSError, ValueError) as error:
        raise MachineError(f"cannot read {path}: {' '.join(str(error).split())}") from None
    values.pop("on", None)
    known_words = [f.name for f in fields(Machine)]
    for word in values:
        if word not in known_words:
            hint = did_you_mean(word, known_words)
            raise MachineError(f"{path}: unknown word {shorten(word)}; {hint}")
    return Machine(**values)
