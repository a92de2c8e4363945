"""Initialisation as a hyperparameter: rules that redraw the weights of any model.

A rule is a plain value, such as ``{"name": "orthogonal", "gain": 1.4, "output_bias": "marginal"}``.
It acts on linear, convolutional and recurrent layers. Embeddings, normalisation layers and bare
parameters stay as the model made them: no rule here has a meaning for them.

Index legend: U units of a layer, M = fan-in, the incoming weights of a unit, N samples, K outputs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from optiscope.data.samples import Samples
from optiscope.errors import shorten
from optiscope.hints import did_you_mean
from optiscope.problems.marginals import output_bias_of

__all__ = ["RULES", "check_rule", "drawable_layers", "initialise", "with_defaults"]

CUT_STD = 0.8796256610342398
"""Standard deviation of a standard normal cut at two standard deviations."""

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
DRAWABLE = (nn.Linear, *CONVOLUTIONS, *TRANSPOSED, nn.RNNBase)


@dataclass(frozen=True)
class _Fans:
    """Incoming weights of a unit, and outgoing weights of one of its inputs."""

    units: int
    fan_in: int
    fan_out: int


Draw = Callable[[_Fans, Mapping[str, Any], torch.Generator | None], Tensor]
"""Freshly drawn weights [U, M]."""


def _uniform_within(bound: float, fans: _Fans, generator: torch.Generator | None) -> Tensor:
    weights = torch.empty(fans.units, fans.fan_in)
    return weights.uniform_(-bound, bound, generator=generator)


def _normal_with(std: float, fans: _Fans, generator: torch.Generator | None) -> Tensor:
    return torch.empty(fans.units, fans.fan_in).normal_(0.0, std, generator=generator)


def _uniform(fans: _Fans, rule: Mapping[str, Any], generator: torch.Generator | None) -> Tensor:
    return _uniform_within(fans.fan_in**-0.5, fans, generator)


def _glorot_std(fans: _Fans, rule: Mapping[str, Any]) -> float:
    return float(rule["gain"] * math.sqrt(2.0 / (fans.fan_in + fans.fan_out)))


def _glorot_uniform(
    fans: _Fans, rule: Mapping[str, Any], generator: torch.Generator | None
) -> Tensor:
    return _uniform_within(math.sqrt(3.0) * _glorot_std(fans, rule), fans, generator)


def _glorot_normal(
    fans: _Fans, rule: Mapping[str, Any], generator: torch.Generator | None
) -> Tensor:
    return _normal_with(_glorot_std(fans, rule), fans, generator)


def _he_uniform(fans: _Fans, rule: Mapping[str, Any], generator: torch.Generator | None) -> Tensor:
    return _uniform_within(math.sqrt(6.0 / fans.fan_in), fans, generator)


def _he_normal(fans: _Fans, rule: Mapping[str, Any], generator: torch.Generator | None) -> Tensor:
    return _normal_with(math.sqrt(2.0 / fans.fan_in), fans, generator)


def _orthogonal(fans: _Fans, rule: Mapping[str, Any], generator: torch.Generator | None) -> Tensor:
    weights = torch.empty(fans.units, fans.fan_in)
    return nn.init.orthogonal_(weights, gain=rule["gain"], generator=generator)


def _sparse(fans: _Fans, rule: Mapping[str, Any], generator: torch.Generator | None) -> Tensor:
    kept = min(int(rule["nonzero"]), fans.fan_in)
    order = torch.rand(fans.units, fans.fan_in, generator=generator).argsort(1)
    drawn = torch.empty(fans.units, kept).normal_(0.0, rule["std"], generator=generator)
    return torch.zeros(fans.units, fans.fan_in).scatter_(1, order[:, :kept], drawn)


def _truncated_normal(
    fans: _Fans, rule: Mapping[str, Any], generator: torch.Generator | None
) -> Tensor:
    std = fans.fan_in**-0.5 / CUT_STD if rule["std"] is None else float(rule["std"])
    weights = torch.empty(fans.units, fans.fan_in)
    return nn.init.trunc_normal_(weights, std=std, a=-2 * std, b=2 * std, generator=generator)


@dataclass(frozen=True)
class Rule:
    """A way to draw weights: what it is, its settings with their defaults, and its source."""

    meaning: str
    draw: Draw | None
    settings: Mapping[str, Any]
    source: str


RULES: Mapping[str, Rule] = {
    "uniform": Rule("uniform within ±1/sqrt(m)", _uniform, {}, "LeCun et al. 1998"),
    "glorot_uniform": Rule(
        "uniform with variance 2 gain² / (fan-in + fan-out)",
        _glorot_uniform,
        {"gain": 1.0},
        "Glorot & Bengio 2010",
    ),
    "glorot_normal": Rule(
        "normal with variance 2 gain² / (fan-in + fan-out)",
        _glorot_normal,
        {"gain": 1.0},
        "Glorot & Bengio 2010",
    ),
    "he_uniform": Rule("uniform with variance 2/m", _he_uniform, {}, "He et al. 2015"),
    "he_normal": Rule("normal with variance 2/m", _he_normal, {}, "He et al. 2015"),
    "orthogonal": Rule(
        "gain times a matrix with orthonormal rows or columns",
        _orthogonal,
        {"gain": 1.0},
        "Saxe et al. 2014",
    ),
    "sparse": Rule(
        "normal on a random choice of incoming weights of each unit, zero elsewhere",
        _sparse,
        {"nonzero": 15, "std": 1.0},
        "Martens 2010",
    ),
    "truncated_normal": Rule(
        "normal cut at two standard deviations; without std, what is drawn has 1/sqrt(m)",
        _truncated_normal,
        {"std": None},
        "Abadi et al. 2016",
    ),
    "framework": Rule("as PyTorch draws each kind of layer, biases included", None, {}, "PyTorch"),
}
"""Rules by name; m is the fan-in. All take ``bias`` and ``output_bias`` besides."""


def with_defaults(rule: Mapping[str, Any]) -> dict[str, Any]:
    """The rule with every setting it takes; ``bias`` None means "as the framework draws it"."""
    own = RULES[rule["name"]]
    bias = None if own.draw is None else 0.0
    return {**own.settings, "bias": bias, "output_bias": None, **rule}


def check_rule(rule: Mapping[str, Any]) -> None:
    """Raise ValueError, in one line, where ``rule`` is not one that `initialise` takes."""
    name = rule.get("name")
    if not isinstance(name, str) or name not in RULES:
        hint = did_you_mean(name, RULES)
        raise ValueError(f"initialisation needs the name of a rule, got {shorten(name)}: {hint}")
    known = ("name", *RULES[str(name)].settings, "bias", "output_bias")
    for key, value in rule.items():
        if key not in known:
            hint = did_you_mean(key, known, otherwise=f"it has {', '.join(known[1:])}")
            raise ValueError(f"initialisation {name} has no setting {key!r}: {hint}")
        if key == "name" or (key == "output_bias" and value == "marginal"):
            continue
        if (
            not isinstance(value, int | float)
            or isinstance(value, bool)
            or not math.isfinite(value)
        ):
            also = " or 'marginal'" if key == "output_bias" else ""
            raise ValueError(f"{key} of initialisation must be a number{also}, got {value!r}")
        if key in ("gain", "std") and not value > 0:
            raise ValueError(f"{key} of initialisation must be positive, got {value}")
        if key == "nonzero" and (value != int(value) or value < 1):
            raise ValueError(f"nonzero of initialisation must be a positive integer, got {value}")


def drawable_layers(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """Names and layers of ``model`` that a rule acts on, in the model's order.

    Raises:
        ValueError: there are none.
    """
    found: list[tuple[str, nn.Module]] = [
        (name, layer) for name, layer in model.named_modules() if isinstance(layer, DRAWABLE)
    ]
    if not found:
        raise ValueError(
            "initialisation needs a model with linear, convolutional or recurrent layers, "
            f"got {type(model).__name__} without any: leave initialisation out for this problem"
        )
    return found


@torch.no_grad()
def initialise(
    model: nn.Module,
    rule: Mapping[str, Any],
    *,
    targets: Samples | Tensor | None = None,
    generator: torch.Generator | None = None,
) -> None:
    """Draw the weights of ``model`` anew by ``rule`` and set its biases, in place.

    Every gate of a recurrent layer is drawn by itself. Numbers are drawn on the CPU in single
    precision, so that they do not depend on the model's device and type.

    Args:
        model: with linear, convolutional or recurrent layers.
        rule: ``name`` (one of `RULES`) and its settings. ``bias`` is the value of all biases
            (default 0; ``framework`` keeps its own). ``output_bias``, for the last of these
            layers, is a number or ``"marginal"``: the outputs then start at the marginal
            statistics of the targets, log frequencies of integer classes or the mean of real
            targets (through the inverse of a sigmoid that follows).
        targets: of the training split, for ``"marginal"``: samples, or a tensor [N, ...].
        generator: on the CPU; torch's global one when None.

    Raises:
        ValueError: no such rule or setting, nothing to draw, or targets that do not fit.
    """
    check_rule(rule)
    settings = with_defaults(rule)
    layers = drawable_layers(model)
    draw = RULES[settings["name"]].draw
    if draw is None:
        _reset([layer for _, layer in layers], generator)
    for _, layer in layers:
        if draw is not None:
            for block, fans in _weights(layer):
                _store(layer, block, draw(fans, settings, generator))
        if settings["bias"] is not None:
            _fill_bias(layer, float(settings["bias"]))
    name, output = layers[-1]
    if settings["output_bias"] == "marginal":
        if targets is None:
            raise ValueError("output_bias 'marginal' needs the training targets: pass targets=")
        bias = _bias_of(name, output)
        bias.copy_(
            output_bias_of(targets, len(bias), after_sigmoid=_ends_in_sigmoid(model, output))
        )
    elif settings["output_bias"] is not None:
        _bias_of(name, output).fill_(float(settings["output_bias"]))


def _reset(layers: list[nn.Module], generator: torch.Generator | None) -> None:
    """The layers as the framework draws them, from ``generator`` where it is given."""
    if generator is None:
        for layer in layers:
            reset: Any = layer.reset_parameters
            reset()
        return
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(2**62, (), generator=generator)))
        _reset(layers, None)


def _weights(layer: nn.Module) -> Iterator[tuple[Tensor, _Fans]]:
    """Weights of a layer with their fans; those of a recurrent layer gate by gate."""
    if isinstance(layer, nn.RNNBase):
        for name, gates in layer.named_parameters():
            if not name.startswith("weight"):
                continue
            count = 1 if "weight_hr" in name else len(gates) // layer.hidden_size
            for block in gates.chunk(count):
                yield block, _Fans(len(block), block.shape[1], len(block))
        return
    weight = layer.weight
    assert isinstance(weight, Tensor)
    window = weight[0, 0].numel()
    if isinstance(layer, nn.Linear):
        yield weight, _Fans(layer.out_features, layer.in_features, layer.out_features)
        return
    assert isinstance(layer, (*CONVOLUTIONS, *TRANSPOSED))
    inputs = layer.in_channels // layer.groups * window
    outputs = layer.out_channels // layer.groups * window
    yield weight, _Fans(layer.out_channels, inputs, outputs)


def _store(layer: nn.Module, weight: Tensor, drawn: Tensor) -> None:
    """Copy weights [U, M] into a layer's own order of axes."""
    if isinstance(layer, TRANSPOSED):  # [in, out / groups, ...]
        per_group = drawn.view(layer.groups, weight.shape[1], -1, *weight.shape[2:])
        drawn = per_group.transpose(1, 2)
    weight.copy_(drawn.reshape(weight.shape))


def _fill_bias(layer: nn.Module, value: float) -> None:
    """Set the biases; of a recurrent layer's two biases, which add up, the second becomes 0."""
    for name, parameter in layer.named_parameters(recurse=False):
        if name.startswith("bias"):
            parameter.fill_(0.0 if name.startswith("bias_hh") else value)


def _bias_of(name: str, layer: nn.Module) -> Tensor:
    bias = getattr(layer, "bias", None)
    if not isinstance(bias, Tensor):
        raise ValueError(
            f"output_bias needs an output layer with a bias, got {name!r} "
            f"({type(layer).__name__}) without one: leave output_bias out"
        )
    return bias


def _ends_in_sigmoid(model: nn.Module, output: nn.Module) -> bool:
    after = list(model.modules())
    following = after[next(i for i, m in enumerate(after) if m is output) + 1 :]
    return any(isinstance(module, nn.Sigmoid) for module in following)
