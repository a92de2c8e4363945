"""``optiscope watch -- python train.py``: watch a script without a change to it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import click

from optiscope.cli.options import as_json, json_option
from optiscope.cli.terminal import terminal

__all__ = ["command"]


@contextmanager
def _served(folder: Path, port: int) -> Iterator[None]:
    """The folder's pages on the loopback interface, for as long as the block runs."""

    class Pages(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing: the terminal is the script's."""

        def end_headers(self) -> None:
            self.send_header("Cache-Control", "no-store")
            super().end_headers()

    try:
        server = ThreadingHTTPServer(("127.0.0.1", port), partial(Pages, directory=str(folder)))
    except OSError as error:
        raise click.UsageError(f"cannot serve on port {port}: {error.strerror or error}") from error
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    click.echo(f"optiscope: http://127.0.0.1:{server.server_address[1]}/", err=True)
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@click.command("watch", context_settings={"ignore_unknown_options": True})
@click.argument("script", nargs=-1, required=True, type=click.UNPROCESSED)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help="Keep the live page and the findings in this folder.",
)
@click.option(
    "--instruments",
    type=click.Choice(["light", "noise", "full"]),
    default="light",
    show_default=True,
    help="What to measure besides the rules.",
)
@click.option(
    "--serve",
    type=click.IntRange(0, 65535),
    metavar="PORT",
    help="Show the live page on this port of the loopback interface while the script runs; 0 takes "
    "a free one.",
)
@click.option("--expects", help="Rules whose findings are intended, separated by commas.")
@click.option(
    "--every", type=click.IntRange(min=1), default=10, show_default=True, help="Steps per look."
)
@click.option(
    "--live", is_flag=True, help="Show verdict and figures on the terminal while the script runs."
)
@json_option
def command(
    script: tuple[str, ...],
    out: Path | None,
    serve: int | None,
    instruments: str,
    expects: str | None,
    every: int,
    live: bool,
    wants_json: bool,
) -> int:
    """Run SCRIPT (such as `python train.py`) and say what is wrong with what it trains.

    Put -- before the script's command. The exit status is the script's own; 1 if it succeeded and
    a finding is an error.
    """
    from optiscope.integrations.automatic import FOLDER_VARIABLE, OPTIONS_VARIABLE
    from optiscope.integrations.startup import SITECUSTOMIZE
    from optiscope.report.cockpit.terminal import panel

    arguments = list(script)
    if arguments[0].endswith(".py"):
        arguments.insert(0, sys.executable)
    names = [name.strip() for name in (expects or "").split(",") if name.strip()]
    options = {"instruments": instruments, "expects": names, "every": every, "live": live}
    with tempfile.TemporaryDirectory(prefix="optiscope-watch-") as folder:
        start = Path(folder) / "start"
        start.mkdir()
        (start / "sitecustomize.py").write_text(SITECUSTOMIZE, "utf-8")
        results = out or Path(folder) / "results"
        results.mkdir(parents=True, exist_ok=True)
        for old in results.glob("watch-*.json"):
            old.unlink()
        paths = [str(start), os.environ.get("PYTHONPATH", "")]
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(path for path in paths if path),
            FOLDER_VARIABLE: str(results.resolve()),
            OPTIONS_VARIABLE: json.dumps(options),
        }
        try:
            with nullcontext() if serve is None else _served(results, serve):
                code = subprocess.run(arguments, env=environment, check=False).returncode
        except OSError as error:
            raise click.UsageError(
                f"cannot run {arguments[0]!r:.80}: {error.strerror or error}"
            ) from error
        watched: list[dict[str, Any]] = [
            json.loads(path.read_text("utf-8")) for path in sorted(results.glob("watch-*.json"))
        ]
    if wants_json:
        click.echo(as_json({"exit_status": code, "watches": watched}))
    elif not watched:
        click.echo("optiscope: the script trained nothing that could be watched", err=True)
    else:
        console = terminal(stderr=True)
        for data in watched if not (live and console.is_terminal) else ():
            console.print(panel(data))
        if out is not None:
            click.echo(f"optiscope: pages in {out}", err=True)
    errors = any(f["severity"] == "error" for data in watched for f in data["findings"])
    return code if code else int(errors)
