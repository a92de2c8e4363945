"""Values, JSON texts and bytes made wrong on purpose, by a seeded generator."""

from __future__ import annotations

import copy
import json
import random
from typing import Any

__all__ = ["mutated_bytes", "mutated_json", "mutated_values", "odd_value"]

RAW = "__raw__"
"""Marks a text that stands in the JSON as it is, because Python's writer refuses it."""


def odd_value(draws: random.Random) -> Any:
    """A value that is seldom what is expected."""
    return copy.deepcopy(
        draws.choice(
            [
                None,
                True,
                False,
                0,
                5,
                -1,
                2**63,
                10**20,
                1.5,
                -0.0,
                1e308,
                5e-324,
                "",
                "x",
                "nan",
                "inf",
                "lr",
                "test_loss",
                "a\nb\r\u2028c",
                "\x1b[31m",
                "\x00",
                "é" * 50,
                "[bold]{x}%s</script><svg onload=alert(1)>",
                "../../../etc/passwd",
                "y" * 5000,
                [],
                {},
                [[]],
                [None],
                {"": None},
                {"a": {"b": {"c": []}}},
                {"choice": []},
                {"low": 1, "high": 0},
                list(range(50)),
                RAW + "1" * 400,
                RAW + "9" * 5000,
                RAW + "1e999",
                RAW + "NaN",
                RAW + "-Infinity",
                RAW + '"\\ud800"',
                RAW + "[" * 70 + "]" * 70,
                RAW + "[" * 100_000,
                RAW + '{"a":' * 500 + "1" + "}" * 500,
            ]
        )
    )


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else ()
    inner = enumerate(value) if isinstance(value, list) else inner
    return [path] + [place for key, item in inner for place in _places(item, (*path, key))]


def mutated_values(values: Any, draws: random.Random, times: int = 1) -> Any:
    """A copy of plain values in which keys are gone, doubled, renamed, or values are odd."""
    values = copy.deepcopy(values)
    for _ in range(times):
        place = draws.choice(_places(values))
        if not place:
            if draws.random() < 0.1:
                values = odd_value(draws)
            continue
        above = values
        for key in place[:-1]:
            above = above[key]
        key, kind = place[-1], draws.randrange(6)
        if kind == 0:
            del above[key]
        elif kind == 1 and isinstance(above, list):
            above.insert(draws.randrange(len(above) + 1), copy.deepcopy(above[key]))
        elif kind == 1:
            above[str(odd_value(draws))[:100]] = above.pop(key)
        elif kind == 2:
            other = values
            for step in draws.choice(_places(values)):
                other = other[step]
            above[key] = copy.deepcopy(other)
        else:
            above[key] = odd_value(draws)
    return values


def mutated_json(values: Any, draws: random.Random) -> bytes:
    """JSON text of mutated values; now and then text that is no JSON at all."""
    kind = draws.randrange(12)
    text = json.dumps(values)
    if kind == 0:
        return mutated_bytes(text.encode(), draws)
    if kind == 1:
        return draws.choice(
            [b"", b"[" * 100_000, b"\xff\xfe\x00", b"null", b"0", b"9" * 5000, b'{"a":' * 1000]
        )
    times = draws.choice([1, 1, 1, 2, 5])
    text = json.dumps(mutated_values(values, draws, times))
    while f'"{RAW}' in text:
        begin = text.index(f'"{RAW}')
        end = json.decoder.scanstring(text, begin + 1)[1]  # type: ignore[attr-defined]
        word = json.loads(text[begin:end]).removeprefix(RAW)
        after = text[end:]
        text = text[:begin] + (json.dumps(word) if after.startswith(":") else word) + after
    return text.encode("utf-8", "surrogatepass")


def mutated_bytes(content: bytes, draws: random.Random) -> bytes:
    """Cut short, a few bytes changed, a piece repeated, removed or put in."""
    if not content:
        return bytes(draws.randrange(256) for _ in range(draws.randrange(20)))
    array = bytearray(content)
    first, last = sorted(draws.randrange(len(array)) for _ in range(2))
    kind = draws.randrange(6)
    if kind == 0:
        return bytes(array[:first])
    if kind == 1:
        return bytes(array[:last] + array[first:])
    if kind == 2:
        return bytes(array[:first] + array[last:])
    if kind == 3:
        more = bytes(draws.randrange(256) for _ in range(draws.randrange(1, 40)))
        return bytes(array[:first] + more + array[first:])
    head = min(len(array), 400) if kind == 4 else len(array)  # headers deserve more blows
    for _ in range(3):
        array[draws.randrange(head)] = draws.randrange(256)
    return bytes(array)
