"""A Slurm of one node under a folder: own key, own socket, free ports; ended by process id.

Nothing of it waits without a limit, reads standard input or outlives the tests: its daemons end
with the process that started them, and what jobs leave behind is ended by ``down``.
"""

from __future__ import annotations

import os
import platform
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

CONF = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
SlurmctldPort={controller}
SlurmdPort={daemon}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SchedulerType=sched/builtin
SchedulerParameters=sched_interval=1,batch_sched_delay=0,sched_min_interval=0
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
KillWait=5
MpiDefault=none
SlurmdTimeout=300
MessageTimeout=60
BatchStartTimeout=300
UnkillableStepTimeout=300
InactiveLimit=0
JobRequeue=1
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} State=UNKNOWN
PartitionName=day Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> str | None:
    """Why no Slurm can be brought up here, in words; None where it can."""
    if os.geteuid() != 0:
        return "a Slurm for the test needs root"
    for program in ("setpriv", "munged", "slurmctld", "slurmd", "sbatch"):
        if shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin") is None:
            return f"no {program} here: apt-get install slurm-wlm munge"
    return None


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("", 0))
        return int(one.getsockname()[1])


class OneNodeSlurm:
    """Comes up in about a second; ``environment`` is for the commands that talk to it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.node = folder, platform.node().split(".")[0]
        self.processes: list[subprocess.Popen[bytes]] = []
        self.environment = {
            **os.environ,
            "SLURM_CONF": str(folder / "slurm.conf"),
            "PATH": f"{os.environ['PATH']}:/usr/sbin",
        }

    def up(self) -> None:
        """Start its three daemons and wait until the node is idle; raises TimeoutError."""
        for name in ("state", "spool", "munge"):
            (self.folder / name).mkdir(parents=True)
        os.chmod(self.folder / "munge", 0o700)
        key = self.folder / "munge" / "key"
        key.write_bytes(os.urandom(1024))
        os.chmod(key, 0o400)
        values = {
            "host": self.node,
            "folder": self.folder,
            "controller": _free_port(),
            "daemon": _free_port(),
            "cpus": os.cpu_count(),
        }
        (self.folder / "slurm.conf").write_text(CONF.format(**values))
        munge = self.folder / "munge"
        self._start(
            "munged", "--foreground", "--force", f"--key-file={key}",
            f"--socket={self.folder}/munge.socket", f"--pid-file={munge}/pid",
            f"--log-file={munge}/log", f"--seed-file={munge}/seed",
        )  # fmt: skip
        self._wait(lambda: (self.folder / "munge.socket").exists())
        self._start("slurmctld", "-D")
        self._start("slurmd", "-D", "-N", self.node)
        self._wait(lambda: "idle" in self.call("sinfo", "-h", "-o", "%t"))

    def down(self) -> None:
        """End its daemons, and whatever of its jobs still runs; at most some seconds."""
        for process in reversed(self.processes):
            process.send_signal(signal.SIGTERM)
        for process in reversed(self.processes):
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for number in self._left():
            os.kill(number, signal.SIGKILL)

    def call(self, *words: str) -> str:
        """What a command printed; it is asked again where the controller does not answer."""
        for last in (False, False, True):
            try:
                done = subprocess.run(
                    words, env=self.environment, stdin=subprocess.DEVNULL, capture_output=True,
                    text=True, timeout=90,
                )  # fmt: skip
            except subprocess.TimeoutExpired:
                if last:
                    raise
                continue
            if done.returncode == 0 or last:
                break
            time.sleep(0.5)
        return done.stdout

    def jobs(self) -> dict[str, str]:
        """States of the jobs that are pending or run, by number."""
        lines = self.call("squeue", "-h", "-r", "-o", "%i %T").splitlines()
        return dict(line.split(" ", 1) for line in lines)

    def hasten(self) -> None:
        """Start jobs that wait though nothing is in their way: requeued, or held by a node."""
        if "drain" in self.call("sinfo", "-h", "-o", "%t"):
            self.call("scontrol", "update", f"nodename={self.node}", "state=resume")
        for number, state in self.jobs().items():
            if state == "PENDING":
                self.call("scontrol", "release", number)
                self.call("scontrol", "update", f"jobid={number}", "starttime=now")

    def said(self) -> str:
        """The ends of its daemons' logs."""
        return "\n".join(path.read_text()[-2000:] for path in sorted(self.folder.glob("*.log")))

    def _left(self) -> list[int]:
        """Processes that know this Slurm's configuration, but for those that ask."""
        mark, left = f"SLURM_CONF={self.folder / 'slurm.conf'}".encode(), []
        for place in Path("/proc").glob("[0-9]*"):
            try:
                if mark in (place / "environ").read_bytes().split(b"\0"):
                    left.append(int(place.name))
            except OSError:  # it has ended, or is not ours to look at
                continue
        return [number for number in left if number != os.getpid()]

    def _start(self, *words: str) -> None:
        follow = ["setpriv", "--pdeathsig", "TERM"]  # the tests may be killed
        with (self.folder / f"{words[0]}.out").open("wb") as log:
            self.processes.append(
                subprocess.Popen(
                    [*follow, *words], env=self.environment, stdin=subprocess.DEVNULL,
                    stdout=log, stderr=log,
                )
            )  # fmt: skip

    def _wait(self, ready: Callable[[], bool], seconds: float = 60.0) -> None:
        end = time.monotonic() + seconds
        while not ready():
            if time.monotonic() > end or any(p.poll() is not None for p in self.processes):
                logs = [p.read_text()[-500:] for p in self.folder.glob("*.out")]
                raise TimeoutError(f"Slurm did not come up: {logs}")
            time.sleep(0.1)
