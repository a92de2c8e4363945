"""The root command: help, exit codes, and one line for every error a user can mend."""

from __future__ import annotations

import importlib
import io
import sys
from importlib import metadata
from typing import Any

import click

from optiscope.cli.current_folder import allow_current_folder, forbid_current_folder
from optiscope.cli.ending import Ending
from optiscope.errors import ExitCode, OptiscopeError, one_line, shorten

__all__ = ["ExitCode", "main", "root"]

COMMANDS = {
    "list": ("listing", "List problems, optimizers or studies."),
    "show": ("show", "Show a problem: definition, samples, layers, signal propagation."),
    "check": ("check", "Check model, loss, optimizer and data before training."),
    "doctor": ("doctor", "Score tools that look for faults in training."),
    "run": ("single", "Train one problem with one optimizer and print what happened."),
    "bench": ("bench", "Run a study: tune, train on fresh seeds, write the report."),
    "work": ("work", "Run one worker of a study, on any machine that sees its folder."),
    "status": ("status", "Show the progress of a study."),
    "report": ("report", "Write the page and figures of a study again."),
    "claim": ("claim", "Ask a study a question; it answers or refuses."),
    "log": ("log", "Say why a run was made."),
    "logbook": ("logbook", "Show what changed from run to run, and the effect."),
    "import": ("importing", "Import published results to show beside a study's own."),
    "export": ("export", "Write a study's results as a table, or to a tracking program."),
    "reproduce": ("reproduce", "Repeat a published experiment and compare the figures."),
    "watch": ("watch", "Run a training script and say what is wrong with it."),
    "landscape": ("landscape", "Look at the loss around and between solutions."),
    "spectrum": ("spectrum", "Show the Hessian's leading eigenvalues, density and parts."),
    "time": ("time", "Measure what a training step costs with several optimizers."),
    "compact": ("compact", "Pack the runs of a study into two files, or unpack them."),
    "data": ("data", "List, download and check data sets."),
}
READ_ONLY = frozenset(
    {"status", "report", "claim", "import", "export", "compact", "data", "log", "logbook"}
)
"""Commands that read folders, which may be anybody's, and train nothing: they import no code."""


EPILOG = """\b
Exit status:
  0    done
  1    the run diverged, crashed or timed out (optiscope run), a run crashed (bench, work,
       reproduce), worker processes cannot start, a check failed (data verify), findings of
       severity error (check), or the answer of a claim is no, undecided or refused
  2    wrong usage: an unknown name, a bad value, a study that cannot be run as declared
  3    a data set is missing, damaged or cannot be downloaded
  4    a folder cannot be written or read
  130  interrupted; run the same command again to continue
"""


class LazyGroup(click.Group):
    """A group whose subcommands are imported when used, so that help is instant."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order of a first session, not of the alphabet."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the module of a subcommand and return the command."""
        if cmd_name not in COMMANDS:
            return None
        if cmd_name in READ_ONLY:
            forbid_current_folder()
        else:
            allow_current_folder()
        module = importlib.import_module(f"optiscope.cli.{COMMANDS[cmd_name][0]}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the table of subcommands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


def _print_version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        click.echo(f"optiscope {metadata.version('optiscope')}")
        ctx.exit()


@click.command(
    cls=LazyGroup, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]}
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Print the version.",
)
def root() -> None:
    """Is this optimizer really better than that one, and why?"""


def _write_any_name() -> None:
    """Have names that are no text (bytes of a path that are not UTF-8) written as escapes."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")


def main(args: list[str] | None = None) -> None:
    """Run the command line; never returns."""
    _write_any_name()
    if args is not None:
        raise SystemExit(_status(args))
    ending = Ending()
    ending.guard()
    status = _status(None)
    ending.leave(status)
    raise SystemExit(status)  # not sys.exit, which is whatever imported code made of it


def _status(args: list[str] | None) -> int:
    """Run the command line, and its exit status; what there is to say has been said."""
    search = list(sys.path)
    try:
        status: Any = root.main(args=args, prog_name="optiscope", standalone_mode=False)
    except click.exceptions.Abort:
        click.echo("optiscope: interrupted", err=True)
        return ExitCode.INTERRUPTED
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(_short_help(error.ctx), err=True)
        return ExitCode.USAGE
    except click.ClickException as error:
        click.echo(f"optiscope: {_one_line(error)}", err=True)
        return ExitCode.USAGE
    except KeyboardInterrupt:
        click.echo("optiscope: interrupted", err=True)
        return ExitCode.INTERRUPTED
    except BrokenPipeError:
        sys.stderr.close()
        return ExitCode.OK
    except OSError as error:
        if error.filename is None:
            raise
        click.echo(f"optiscope: {one_line(explain_os_error(error))}", err=True)
        return ExitCode.STORE
    except OptiscopeError as error:
        click.echo("\n".join([f"optiscope: {error.lines[0]}", *error.lines[1:]]), err=True)
        return error.exit_code
    finally:
        sys.path[:] = search
    return status if isinstance(status, int) else ExitCode.OK


def _short_help(context: click.Context | None) -> str:
    """What a command without arguments says: its form, what it does and where to read more."""
    if context is None:
        return "optiscope: see `optiscope --help`"
    formatter = context.make_formatter()
    context.command.format_usage(context, formatter)
    if isinstance(context.command, click.Group):
        context.command.format_commands(context, formatter)
    more = " COMMAND" if isinstance(context.command, click.Group) else ""
    return f"{formatter.getvalue()}\nSee `{context.command_path}{more} --help`."


def explain_os_error(error: OSError) -> str:
    """What the system said of a file or folder that the user named."""
    path = error.filename.decode() if isinstance(error.filename, bytes) else str(error.filename)
    return f"cannot use {shorten(path)}: {error.strerror or error}"


def _one_line(error: click.ClickException) -> str:
    """What click has to say, with the help to ask for."""
    message = one_line(error.format_message()).rstrip(".")
    context = getattr(error, "ctx", None)
    return message if context is None else f"{message}; see `{context.command_path} --help`"
