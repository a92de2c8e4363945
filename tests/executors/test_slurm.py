"""The batch script of a study's workers, and the files that describe machines."""

from __future__ import annotations

from pathlib import Path

import pytest

from optiscope.executors.slurm import (
    Machine,
    MachineError,
    ended_as,
    machine_file,
    script,
    submit,
)

FILE = """
on = "slurm"
partition = "day"
time = "3h"
gpus = 1
cpus = 4
memory = "12G"
array = 20
mail = { to = "me@uni.de", on = ["end", "fail"] }
setup = ["module load cuda"]
data_dir = "/data with spaces"
[slurm]
account = "x"
constraint = "gtx1080ti"
"""


def test_a_machine_file_is_a_script(tmp_path: Path) -> None:
    (tmp_path / "cluster.toml").write_text(FILE)
    machine = machine_file("cluster", tmp_path)
    assert machine == machine_file(str(tmp_path / "cluster.toml"), tmp_path)
    text = script(machine, Path("/runs/mine"), "mine")
    for line in (
        "#!/bin/bash",
        "#SBATCH --job-name=mine",
        "#SBATCH --requeue",
        "#SBATCH --signal=B:USR1@120",
        "#SBATCH --open-mode=append",
        "#SBATCH --array=0-19",
        "#SBATCH --partition=day",
        "#SBATCH --time=3:00:00",
        "#SBATCH --gpus-per-task=1",
        "#SBATCH --mem=12G",
        "#SBATCH --mail-user=me@uni.de",
        "#SBATCH --mail-type=END,FAIL",
        "#SBATCH --account=x",
        "#SBATCH --constraint=gtx1080ti",
        "module load cuda",
    ):
        assert line in text.splitlines()
    last = text.splitlines()[-1]
    assert last.startswith("exec ")
    assert last.endswith("work /runs/mine --data-dir '/data with spaces'")


def test_data_are_staged_before_the_worker_starts(tmp_path: Path) -> None:
    import subprocess

    machine = Machine(stage="/scratch/$SLURM_JOB_ID", data_dir="/data with spaces")
    lines = script(machine, Path("/runs/mine"), "mine").splitlines()
    assert lines[-3].startswith('DATA="$(')
    assert "data stage /runs/mine --data-dir '/data with spaces'" in lines[-3]
    assert lines[-3].endswith("""--to "/scratch/$SLURM_JOB_ID")" || DATA='/data with spaces'""")
    assert lines[-2] == '[ -z "$DATA" ] || export OPTISCOPE_DATA_DIR="$DATA"'
    assert lines[-1].endswith("work /runs/mine")
    path = tmp_path / "job.sh"
    path.write_text("\n".join(lines))
    subprocess.run(["bash", "-n", str(path)], check=True, timeout=60)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('partiton = "day"', "unknown word 'partiton'; did you mean 'partition'"),
        ("partition = ", "cannot read"),
    ],
)
def test_a_wrong_machine_file_is_one_line(text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(text)
    with pytest.raises(MachineError, match=words) as caught:
        machine_file("a", tmp_path)
    assert "\n" not in str(caught.value)


def test_an_unknown_machine_names_those_there_are(tmp_path: Path) -> None:
    (tmp_path / "uni.toml").write_text("")
    with pytest.raises(MachineError, match=r"got 'unni': no .*\(known: uni\)"):
        machine_file("unni", tmp_path)


def test_no_option_begins_another(tmp_path: Path) -> None:
    machine = Machine(slurm={"account": "x\n#SBATCH --wrap=rm"})
    with pytest.raises(MachineError, match="is one line"):
        script(machine, tmp_path, "mine")


def test_without_slurm_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MachineError, match="found no sbatch"):
        submit("#!/bin/bash\n", tmp_path)


@pytest.mark.parametrize(
    ("accounting", "controller", "end"),
    [
        ("PREEMPTED\nOUT_OF_MEMORY\n", "", "OUT_OF_MEMORY"),
        ("CANCELLED by 1000\n", "", "CANCELLED"),
        ("RUNNING\n", "", None),
        ("", "JobId=7 JobName=x\n   JobState=NODE_FAIL Reason=None\n", "NODE_FAIL"),
        ("", "slurm_load_jobs error: Invalid job id specified\n", None),
    ],
)
def test_slurm_is_asked_how_a_job_ended(
    accounting: str,
    controller: str,
    end: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, said in (("sacct", accounting), ("scontrol", controller)):
        (tmp_path / name).write_text(f"#!/bin/sh\nprintf '{said}'\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    assert ended_as("7") == end
    assert ended_as("7; rm") is None
    monkeypatch.setenv("PATH", "")
    assert ended_as("7") is None
