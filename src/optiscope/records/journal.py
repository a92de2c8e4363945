"""Why runs were made: an append-only journal beside the records of a folder.

``logbook.jsonl`` in the folder of the runs has one line per entry, each with the SHA-256 of its own
content and of the line before, so that a changed line is noticed. Texts of code are kept once, by
their digest, in ``logbook.code``. No record is ever changed.

A *plain run* is a folder of its own for runs of any script: ``settings.json``, ``metrics.jsonl``
(rows as in `Measurement`) and ``findings.json``.
"""

from __future__ import annotations

import getpass
import hashlib
import json
import os
import re
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from optiscope.atomic_file import write_json_atomically
from optiscope.errors import ExitCode, OptiscopeError, shorten
from optiscope.records.run import Measurement
from optiscope.records.trial import canonical_json

__all__ = [
    "Entry",
    "JournalError",
    "append_entry",
    "code_texts",
    "read_code",
    "read_entries",
    "write_plain_run",
]

JOURNAL = "logbook.jsonl"
CODE = "logbook.code"
CODE_KINDS = (".py", ".toml", ".yaml", ".yml", ".cfg", ".ini", ".sh")
MOST_FILES, MOST_BYTES = 60, 200_000
SECRET = re.compile(
    r"(?i)((?:api[_-]?key|token|passw(?:or)?d|secret|credential)\w*[\"']?\s*[=:]\s*)(\S.*)"
)


class JournalError(OptiscopeError):
    """A journal cannot be read or written; the message says which and why."""

    exit_code = ExitCode.STORE


@dataclass(frozen=True)
class Entry:
    """One line of a journal.

    Attributes:
        run: name of the run's folder within the folder of the journal.
        why: the reason, in one line.
        who: who made it.
        when: UTC time, ISO 8601.
        commit: commit of the code's checkout, with ``+`` where it was changed; None without one.
        code: digest of each file of code, by its path.
    """

    run: str
    why: str
    who: str
    when: str
    commit: str | None = None
    code: Mapping[str, str] = field(default_factory=dict)


def append_entry(
    run: str | Path,
    why: str,
    *,
    who: str | None = None,
    code: Sequence[str | Path] | None = None,
    when: str | None = None,
) -> Entry:
    """Add an entry for a run to the journal beside it.

    Args:
        run: folder of the run.
        why: the reason, in one line.
        who: default: the name that git knows, else that of the account.
        code: files to keep; default: files of code that git tracks in the current folder.
        when: default: now.

    Raises:
        JournalError: there is no such folder, the reason is empty or the journal cannot be written.
    """
    folder = Path(run)
    if not folder.is_dir():
        raise JournalError(f"no run in {folder}: give the folder of a run")
    reason = " ".join(why.split())
    if not reason:
        raise JournalError("expected a reason in one line, got an empty one")
    folder = folder.resolve()
    texts = code_texts(code)
    entry = Entry(
        folder.name,
        reason,
        who or _who(),
        when or datetime.now(UTC).isoformat(timespec="seconds"),
        _git("rev-parse", "HEAD") or None,
        {path: hashlib.sha256(text.encode()).hexdigest() for path, text in texts.items()},
    )
    home = folder.parent
    try:
        (home / CODE).mkdir(exist_ok=True)
        for path, text in texts.items():
            kept = home / CODE / f"{entry.code[path]}.txt"
            if not kept.exists():
                kept.write_text(text, encoding="utf-8")
        _append(home / JOURNAL, asdict(entry))
    except OSError as error:
        raise JournalError(f"cannot write the journal in {home}: {error.strerror}") from error
    return entry


def _append(path: Path, content: dict[str, Any]) -> None:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
    with os.fdopen(descriptor, "r+b") as file:
        try:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)
        except ImportError:  # no such locks on Windows
            pass
        lines = file.read().splitlines()
        before = hashlib.sha256(lines[-1]).hexdigest() if lines else ""
        content = content | {"before": before}
        content["digest"] = _digest(content)
        line = canonical_json(content).encode() + b"\n"
        torn = bool(lines) and not _ends_whole(file)
        file.write(b"\n" + line if torn else line)
        file.flush()
        os.fsync(file.fileno())


def _ends_whole(file: Any) -> bool:
    file.seek(-1, os.SEEK_END)
    return bool(file.read(1) == b"\n")


def read_entries(folder: str | Path) -> list[Entry]:
    """Entries of a folder's journal in the order they were made; empty without a journal.

    Raises:
        JournalError: a line was changed, or is no entry.
    """
    path = Path(folder) / JOURNAL
    if not path.exists():
        return []
    entries: list[Entry] = []
    before = ""
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise JournalError(f"cannot read {path}: {error.strerror}") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            content = json.loads(line)
            digest, previous = content.pop("digest"), content.pop("before")
            whole = digest == _digest(content | {"before": previous}) and previous == before
            entry = Entry(**content)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise JournalError(f"{path}, line {number}, is no entry ({error})") from None
        if not whole:
            raise JournalError(f"{path}, line {number}, was changed after it was written")
        before = hashlib.sha256(line).hexdigest()
        entries.append(entry)
    return entries


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(canonical_json(content).encode()).hexdigest()


def read_code(folder: str | Path, entry: Entry) -> dict[str, str]:
    """Texts of an entry's code by path; files that are gone are left out."""
    texts = {}
    for path, digest in entry.code.items():
        kept = Path(folder) / CODE / f"{digest}.txt"
        if re.fullmatch(r"[0-9a-f]{64}", digest) and kept.is_file():
            texts[path] = kept.read_text(encoding="utf-8")
    return texts


def code_texts(files: Sequence[str | Path] | None = None) -> dict[str, str]:
    """Texts of code by path, secrets and the home folder left out.

    Default: files of code that git tracks (or that are new) in the current folder.

    Raises:
        JournalError: a named file cannot be read.
    """
    if files is None:
        listed = _git("ls-files", "--cached", "--others", "--exclude-standard", ".").splitlines()
        paths = [Path(p) for p in listed if p.endswith(CODE_KINDS)][:MOST_FILES]
        paths = [p for p in paths if p.is_file() and p.stat().st_size <= MOST_BYTES]
    else:
        paths = [Path(p) for p in files]
    texts = {}
    for path in paths:
        try:
            texts[path.name if path.is_absolute() else path.as_posix()] = _without_secrets(
                path.read_text(encoding="utf-8")
            )
        except (OSError, UnicodeDecodeError) as error:
            if files is not None:
                raise JournalError(f"cannot read {path}: {error}") from error
    return texts


def _without_secrets(text: str) -> str:
    text = SECRET.sub(r"\1[left out]", text)
    home = str(Path.home())
    return text.replace(home, "~") if len(home) > 3 else text


def _git(*arguments: str) -> str:
    """What git prints in the current folder; nothing where it cannot be asked."""
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _who() -> str:
    try:
        return _git("config", "user.name") or getpass.getuser()
    except (OSError, KeyError):
        return "unknown"


def write_plain_run(
    folder: str | Path,
    settings: Mapping[str, Any],
    metrics: Iterable[Measurement | tuple[int, float, str, str, float]],
    findings: Iterable[Mapping[str, Any]] = (),
) -> Path:
    """Keep a run of any script in a new folder, so that the logbook can show it.

    Args:
        folder: new.
        settings: what was chosen, as plain values.
        metrics: rows (step, epoch, split, name, value).
        findings: as ``Finding.to_dict`` gives them.

    Raises:
        JournalError: the folder exists or cannot be written.
    """
    path = Path(folder)
    try:
        path.mkdir(parents=True)
        write_json_atomically(path / "settings.json", dict(settings))
        rows = [json.dumps(Measurement(*row)._asdict()) for row in metrics]
        (path / "metrics.jsonl").write_text("".join(f"{row}\n" for row in rows))
        write_json_atomically(path / "findings.json", [dict(f) for f in findings])
    except FileExistsError:
        raise JournalError(f"{path} exists: runs are not overwritten, give a new folder") from None
    except OSError as error:
        raise JournalError(f"cannot write {path}: {error.strerror}") from error
    except (TypeError, ValueError) as error:
        raise JournalError(f"settings are no plain values: {shorten(str(error))}") from error
    return path
