"""Options and values that several subcommands share."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import click

from optiscope.errors import shorten
from optiscope.records.trial import DEVICE

__all__ = [
    "as_json",
    "data_dir_option",
    "device_option",
    "json_option",
    "parse_rule",
    "parse_settings",
    "study_device_option",
]

data_dir_option = click.option(
    "--data-dir",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder with the data sets, in the layout of torchvision or of a data set hub "
    "[default: $OPTISCOPE_DATA_DIR, else the user's cache folder].",
)
DEVICE_WORDS = "cpu, cuda, cuda:1 (the second GPU), xpu or mps"


def _device(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    """The name of a device, or a usage error."""
    if value is None or re.fullmatch(DEVICE, value):
        return value
    raise click.BadParameter(f"expected {DEVICE_WORDS}, got {shorten(value)}")


device_option = click.option(
    "--device",
    default="cpu",
    show_default=True,
    metavar="DEVICE",
    callback=_device,
    help=f"Where to train: {DEVICE_WORDS}.",
)
study_device_option = click.option(
    "--device",
    metavar="DEVICE",
    callback=_device,
    help=f"Where to train, in place of the study's own device: {DEVICE_WORDS}.",
)
json_option = click.option("--json", "wants_json", is_flag=True, help="Print JSON for machines.")


def parse_settings(settings: tuple[str, ...], *, hint: str = "'--set'") -> dict[str, Any]:
    """``("lr=0.1", "nesterov=true")`` as values; what is no TOML value is a string.

    Raises:
        click.BadParameter: no ``=``, or a name given twice.
    """
    values: dict[str, Any] = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        name = name.strip()
        if not equals or not name:
            raise click.BadParameter(f"expected NAME=VALUE, got {setting!r}", param_hint=hint)
        if name in values:
            raise click.BadParameter(f"{name!r} is set twice", param_hint=hint)
        try:
            values[name] = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            values[name] = _number_or_word(text.strip())
    return values


def parse_rule(text: str) -> dict[str, Any]:
    """``"orthogonal,gain=1.4"`` as ``{"name": "orthogonal", "gain": 1.4}``.

    Raises:
        click.BadParameter: a part after the name without ``=``, or a setting given twice.
    """
    name, *settings = re.split(r",(?![^\[]*\])", text)  # commas outside of [lists]
    return {"name": name.strip(), **parse_settings(tuple(settings), hint="a rule's settings")}


def _number_or_word(text: str) -> Any:
    """Python's spelling of numbers and truth values (``1e-3``, ``.1``, ``True``), else a word."""
    if text in ("True", "False"):
        return text == "True"
    try:
        return float(text)
    except ValueError:
        return text


def as_json(values: Any) -> str:
    """JSON without NaN: numbers that are not finite become words. A list has a line per entry."""
    if isinstance(values, list):
        return "[\n" + ",\n".join(json.dumps(_plain(v), allow_nan=False) for v in values) + "\n]"
    return json.dumps(_plain(values), indent=1, allow_nan=False)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and (value != value or value in (float("inf"), -float("inf"))):
        return str(value)
    return value
