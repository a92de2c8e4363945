"""Workers as a Slurm job array: the script, and handing it over with one call of ``sbatch``.

Slurm distributes, starts again and sends mail; a worker (``optiscope work``) takes its trials from
the study's folder. Nothing polls the queue, and no process of ours lives on the login node.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from optiscope.errors import ExitCode, OptiscopeError, shorten
from optiscope.hints import did_you_mean

__all__ = ["Machine", "MachineError", "machine_file", "script", "submit"]

SUBMIT_SECONDS = 120
LEAVE_SECONDS = 120  # before its time limit a job is sent USR1


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


def script(machine: Machine, folder: Path, name: str) -> str:
    """The batch script of a study's workers."""
    options: dict[str, Any] = {
        "job-name": name,
        "output": str(folder / "logs" / "%A_%a.out"),
        "open-mode": "append",
        "requeue": True,
        "signal": f"B:USR1@{LEAVE_SECONDS}",
        "array": f"0-{machine.array - 1}",
        "partition": machine.partition,
        "time": None if machine.time is None else _slurm_time(machine.time),
        "gpus-per-task": machine.gpus,
        "cpus-per-task": machine.cpus,
        "mem": machine.memory,
    }
    if machine.mail is not None:
        options["mail-user"] = machine.mail.get("to")
        options["mail-type"] = ",".join(str(w).upper() for w in machine.mail.get("on", ["end"]))
    options |= {str(key).replace("_", "-"): value for key, value in machine.slurm.items()}
    lines = ["#!/bin/bash"]
    for key, value in options.items():
        if value is True:
            lines.append(f"#SBATCH --{key}")
        elif value not in (None, False):
            lines.append(f"#SBATCH --{key}={_one_word(value)}")
    lines += ["", *machine.setup]
    command = [sys.executable, "-c", "from optiscope.cli import main; main()"]
    if machine.container is not None:
        command = ["apptainer", "exec", "--nv", machine.container, "optiscope"]
    data_dir = machine.data_dir or ""
    data = ["--data-dir", data_dir] if data_dir else []
    if machine.stage is not None:
        copy = shlex.join([*command, "data", "stage", str(folder), *data])
        place = _one_word(machine.stage).replace("\\", "\\\\").replace('"', '\\"')
        lines.append(
            f'DATA="$({copy} --to "{place}")" || DATA={shlex.quote(machine.data_dir or "")}'
        )
        lines.append('[ -z "$DATA" ] || export OPTISCOPE_DATA_DIR="$DATA"')
        data = []
    lines.append("exec " + shlex.join([*command, "work", str(folder), *data]))
    return "\n".join(lines) + "\n"


def submit(text: str, folder: Path) -> str:
    """Hand a script over to Slurm; what ``sbatch`` printed.

    Raises:
        MachineError: there is no ``sbatch``, or it refuses.
    """
    (folder / "logs").mkdir(parents=True, exist_ok=True)
    path = folder / "job.sh"
    path.write_text(text)
    try:
        done = subprocess.run(
            ["sbatch", str(path)], capture_output=True, text=True, timeout=SUBMIT_SECONDS
        )
    except subprocess.TimeoutExpired:
        raise MachineError(
            f"sbatch did not answer in {SUBMIT_SECONDS} s: see `squeue --me` before you try again"
        ) from None
    except FileNotFoundError:
        raise MachineError(
            "expected Slurm on this machine, found no sbatch: use --dry-run, or `optiscope work`"
        ) from None
    if done.returncode:
        raise MachineError(f"sbatch refuses {path}: {' '.join(done.stderr.split())[:300]}")
    return done.stdout.strip()


def _slurm_time(text: str) -> str:
    """``3h`` or ``90m`` in Slurm's form; its own form as it is."""
    number, unit = text[:-1], text[-1:]
    if unit in "dhms" and number.isdigit():
        seconds = int(number) * {"d": 86400, "h": 3600, "m": 60, "s": 1}[unit]
        return f"{seconds // 3600}:{seconds % 3600 // 60:02}:{seconds % 60:02}"
    return text


def _one_word(value: Any) -> str:
    """A value on one line; a new line would begin another option."""
    text = str(value)
    if "\n" in text or "\r" in text:
        raise MachineError(f"an option of sbatch is one line, got {shorten(text)}")
    return text
