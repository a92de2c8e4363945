"""Workers as a Slurm job array: the script, and handing it over with one call of ``sbatch``.

Slurm distributes, starts again and sends mail; a worker (``optiscope work``) takes its trials from
the study's folder. Nothing polls the queue, and no process of ours lives on the login node.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

from optiscope.errors import shorten
from optiscope.executors.machine import Machine, MachineError, machine_file

__all__ = ["Machine", "MachineError", "ended_as", "machine_file", "requeue", "script", "submit"]

SUBMIT_SECONDS = 120
LEAVE_SECONDS = 120  # before its time limit a job is sent USR1
ANSWER_SECONDS = 60
ENDS = (
    *("BOOT_FAIL", "CANCELLED", "DEADLINE", "FAILED"),
    *("NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "TIMEOUT"),
)
"""States in which Slurm says that a job's worker was ended."""


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
            ["sbatch", str(path)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SUBMIT_SECONDS,
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


def requeue() -> str | None:
    """Ask Slurm to start this job again; what it answered where it refused."""
    job = os.environ.get("SLURM_JOB_ID")
    if job is None:
        return None
    refused, _ = _ask("scontrol", "requeue", job)
    return refused


def ended_as(job: str) -> str | None:
    """How Slurm says that a job ended, such as ``OUT_OF_MEMORY``; None where it does not say.

    Accounting is asked first, of every start of the job; else the controller, which forgets.
    """
    if not re.fullmatch(r"[0-9]+(_[0-9]+)?", job):
        return None
    _, said = _ask("sacct", "-X", "-D", "-n", "-P", "-o", "State", "-j", job)
    if not said:
        said = " ".join(re.findall(r"JobState=(\S+)", _ask("scontrol", "show", "job", job)[1]))
    ends = [word for word in said.split() if word in ENDS]
    return ends[-1] if ends else None


def _ask(*words: str) -> tuple[str | None, str]:
    """Why a command of Slurm's failed, None where it did not, and what it printed."""
    try:
        done = subprocess.run(
            words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=ANSWER_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return " ".join(str(error).split()), ""
    return done.stderr.strip() or None if done.returncode else None, done.stdout


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
