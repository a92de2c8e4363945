"""Linux's control groups: the files of this process's own group and of those that hold it."""

from __future__ import annotations

from pathlib import Path

__all__ = ["group_files"]

GROUPS = Path("/sys/fs/cgroup")
OWN = Path("/proc/self/cgroup")


def group_files(name: str, *, controller: str = "", version_1: str = "") -> list[Path]:
    """A file of this process's group, then of each group above it; some may not exist.

    A batch system limits the group of a job, a container its own, so that a limit may stand in any
    of them. Empty where the system has no control groups.

    Args:
        name: of the file in version 2, where one tree serves all controllers.
        controller: whose tree of version 1 is looked at too, such as memory.
        version_1: the file's name there.
    """
    try:
        lines = [line.split(":", 2) for line in OWN.read_text().splitlines()]
    except OSError:
        return []
    unified = "".join(path for _, names, path in lines if not names)
    files = _upward(GROUPS, unified, name)
    if version_1:
        own = "".join(path for _, names, path in lines if controller in names.split(","))
        files += _upward(GROUPS / controller, own, version_1)
    return files


def _upward(root: Path, path: str, name: str) -> list[Path]:
    folder = root / path.lstrip("/")
    return [one / name for one in (folder, *folder.parents) if one.is_relative_to(root)]
