"""Labels: classes that never come, labels that have nothing to do with the inputs, leaks."""

from __future__ import annotations

import math
from collections import Counter

import torch
from torch import Tensor

from optiscope.doctor.rule import Rule
from optiscope.doctor.rules.data import label_counts, labels_of
from optiscope.monitor.events import Forward, WatchedStep
from optiscope.monitor.outputs import main_output
from optiscope.monitor.probe import output_at, rows_of

__all__ = ["RULES"]


class NeverALabel(Rule):
    """An output of the classifier that is never a label."""

    name = "output_never_a_label"
    family = "labels"
    MAX_CLASSES = 64

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[int] = Counter()
        self.batches = 0
        self.pure = 0
        self.classes = 0

    def output_gradient(self, forward: Forward, gradient: Tensor) -> None:
        """Count labels of classifiers (language models have rare tokens)."""
        out = forward.output
        if out is None or out.ndim != 2 or not 3 <= out.shape[1] <= self.MAX_CLASSES:
            return
        first = forward.input
        if first is None or not first.is_floating_point():
            return
        labels = labels_of(self.session, forward, gradient)
        if labels is None or len(labels) < 2:
            return
        self.classes = out.shape[1]
        counts = label_counts(forward, labels)
        self.counts.update(counts)
        self.batches += 1
        self.pure += max(counts.values()) > 0.6 * len(labels) and len(labels) >= 8
        n = self.counts.total()
        if self.batches < 40 or n < 160 * self.classes or self.batches % 10 or self.pure > 4:
            return
        missing = [c for c in range(self.classes) if self.counts[c] == 0]
        if not missing or (len(missing) > self.classes / 2 and self.classes > 3):
            return
        self.report(
            f"The model has {self.classes} outputs, but "
            + ("class " if len(missing) == 1 else "classes ")
            + ", ".join(map(str, missing[:8]))
            + f" never came among {n} labels.",
            "Check the coding of the labels (they start at 0) and the number of outputs.",
            measured={"labels": n, "missing": len(missing)},
            threshold={"missing": 0},
            confidence=0.95,
        )


class Unrelated(Rule):
    """A loss that stays where guessing by frequency would put it."""

    name = "loss_at_prior"
    family = "labels"
    also = ("labels_unrelated_to_inputs", "target_leaks_into_input", "targets_unrelated")
    SAMPLES = 800
    WIDTH = 1024
    STEPS = 100

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[Tensor] = []
        self.labels: list[Tensor] = []
        self.kept = 0
        self.agreement: tuple[float, float] | None = None
        self.entries: Tensor | None = None
        self.done = False
        self.real = False

    def output_gradient(self, forward: Forward, gradient: Tensor) -> None:
        """Keep the first samples with their labels."""
        x = forward.input
        if self.kept >= self.SAMPLES or x is None or not x.is_floating_point() or x.ndim < 2:
            return
        out, target = forward.output, forward.target
        if out is None or out.ndim > 2 or out.shape[0] != x.shape[0]:
            return
        if target is not None and target.is_floating_point():
            if target.numel() != x.shape[0]:
                return
            labels = target.reshape(-1).double().cpu()
            self.real = True
        else:
            whole = target if target is not None else None
            if whole is None:
                whole = self.session.labels(forward, gradient)
                if whole is None or len(whole) != x.shape[0]:
                    return
            if whole.ndim != 1 or whole.shape[0] != x.shape[0]:
                return
            labels = whole.detach().to("cpu", torch.float64)
        flat = x.detach().reshape(x.shape[0], -1)
        if self.entries is None:
            generator = torch.Generator().manual_seed(5)
            chosen = torch.randperm(flat.shape[1], generator=generator, device="cpu")[: self.WIDTH]
            self.entries = chosen.sort().values.to(flat.device)
        if int(self.entries[-1]) >= flat.shape[1]:
            return
        self.rows.append(flat.index_select(1, self.entries).float().cpu())
        self.labels.append(labels)
        self.kept += len(labels)

    def after_step(self, view: WatchedStep) -> None:
        """Judge once enough has been seen."""
        if self.done or view.index or not view.tick:
            return
        if view.number == 30:
            self._leak()
        if view.number < self.STEPS or self.kept < 300 or view.number > 2000:
            self.done |= view.number > 2000
            return
        values = [v for _, v in self.session.loss_values if math.isfinite(v)]
        if len(values) < 60:
            return
        recent = sum(values[-30:]) / 30
        labels = torch.cat(self.labels)
        if self.real:
            self._regression(recent, labels, values)
            return
        frequency = Counter(labels.tolist())
        n = len(labels)
        entropy = -sum(c / n * math.log(c / n) for c in frequency.values())
        if not 0.93 * entropy <= recent <= 1.25 * entropy or entropy < 0.2:
            self.done |= recent < 0.5 * entropy
            return
        if self.agreement is None:
            self.agreement = _neighbours(torch.cat(self.rows), labels)
        share, z = self.agreement
        chance = sum((c / n) ** 2 for c in frequency.values())
        if abs(z) < 3 and not _few_values(torch.cat(self.rows)):
            self.report(
                f"The labels have nothing to do with the inputs: nearest neighbors share a label "
                f"in {share:.0%} of cases (chance {chance:.0%}), and the loss stays at the "
                f"entropy of the labels ({recent:.3g} against {entropy:.3g}).",
                "Look at how inputs and labels are paired: one was shuffled, sorted or indexed "
                "without the other.",
                rule="labels_unrelated_to_inputs",
                severity="error",
                measured={"loss": recent, "z": z},
                threshold={"loss": 0.93 * entropy, "z": 3.0},
            )
        elif 0.985 * entropy < recent < 1.1 * entropy and view.number >= 150 and z > 6:
            self.report(
                f"After {view.number} steps the loss is {recent:.3g}, that of guessing by "
                f"frequency ({entropy:.3g}), although neighbors share labels ({share:.0%}).",
                "Look at the findings above; overfit one batch to see whether the model can learn "
                "at all.",
                measured={"loss": recent},
                threshold={"loss": 0.985 * entropy},
            )

    def _regression(self, recent: float, targets: Tensor, values: list[float]) -> None:
        call = self.session.loss_function
        name = getattr(call, "__name__", type(call).__name__)
        if name not in ("MSELoss", "mse_loss"):
            self.done = True
            return
        variance = float(targets.var())
        if recent < 0.9 * variance or variance < 1e-12:
            self.done |= recent < 0.5 * variance
            return
        x = torch.cat(self.rows).double()
        gain, z = _explained(x, targets)
        if abs(z) < 3 and gain < 0.05 and not _few_values(x):
            self.report(
                f"The targets have nothing to do with the inputs: neighbors explain {gain:.0%} of "
                f"their variance, and the loss stays at the variance ({recent:.3g} against "
                f"{variance:.3g}).",
                "Look at how inputs and targets are paired, and at their shapes.",
                rule="targets_unrelated",
                severity="error",
                measured={"explained": gain, "z": z},
                threshold={"z": 3.0},
                confidence=0.85,
            )

    def _leak(self) -> None:
        """One entry of the input that alone determines the label."""
        if self.kept < 200:
            return
        x, y = torch.cat(self.rows)[:400].double(), torch.cat(self.labels)[:400]
        if x.shape[1] < 2:
            return
        if self.real:
            if float(y.std()) < 1e-9:
                return
            centered = x - x.mean(0)
            scale = centered.square().sum(0).sqrt() * (y - y.mean()).square().sum().sqrt()
            correlation = (
                (centered * (y - y.mean())[:, None]).sum(0) / scale.clamp_min(1e-12)
            ).abs()
            best = int(correlation.argmax())
            measured, limit = float(correlation[best]), 0.9999
            leaks = measured > limit
        else:
            classes = y.unique()
            if len(classes) < 2:
                return
            within = torch.zeros(x.shape[1], dtype=torch.float64)
            means = []
            for c in classes:
                members = x[y == c]
                if len(members) < 3:
                    continue
                within += (members - members.mean(0)).square().sum(0)
                means.append(members.mean(0))
            if len(means) < 2:
                return
            total = (x - x.mean(0)).square().sum(0)
            share = torch.where(total > 1e-9 * len(x), within / total.clamp_min(1e-12), 1.0)
            best = int(share.argmin())
            measured, limit = 1 - float(share[best]), 1 - 1e-9
            leaks = measured > limit
        if leaks:
            assert self.entries is not None
            self.report(
                f"Entry {int(self.entries[best])} of the input determines the label by itself.",
                "Remove the column: the target (or something made from it) is among the inputs.",
                rule="target_leaks_into_input",
                severity="error",
                measured={"explained": measured},
                threshold={"explained": limit},
                confidence=0.97,
            )


def _few_values(x: Tensor) -> bool:
    """Whether most columns hold codes (signs, bits), of which neighbors need not be alike."""
    chosen = x[:, :: 1 + x.shape[1] // 64]
    varied = [len(column.unique()) for column in chosen.T]
    coded = sum(2 <= n <= 3 for n in varied)
    return coded > 0.5 * sum(n >= 2 for n in varied)


def _neighbours(x: Tensor, labels: Tensor) -> tuple[float, float]:
    """Share of samples whose nearest other sample has their label, and z against chance."""
    x = (x - x.mean(0)) / x.std(0).clamp_min(1e-6)
    distance = torch.cdist(x, x)
    distance.fill_diagonal_(float("inf"))
    # the same sample again, in a later epoch (cdist is exact to a thousandth at best)
    same_sample = distance < 0.01 * distance.median()
    distance[same_sample] = float("inf")
    nearest = labels[distance.argmin(1)]
    share = float((nearest == labels).double().mean())
    n = len(labels)
    frequency = torch.bincount(labels.long()).double() / n
    chance = float(frequency.square().sum())
    return share, (share - chance) / max((chance * (1 - chance) / n) ** 0.5, 1e-9)


def _explained(x: Tensor, y: Tensor) -> tuple[float, float]:
    """Variance of the targets explained by nearest neighbours and by a line, with z."""
    x = (x - x.mean(0)) / x.std(0).clamp_min(1e-6)
    n = len(y)
    half = n // 2
    centered = y - y.mean()
    distance = torch.cdist(x, x)
    distance.fill_diagonal_(float("inf"))
    distance[distance < 0.01 * distance.median()] = float("inf")
    near = centered[distance.argmin(1)]
    correlation = float((near * centered).mean() / centered.square().mean())
    a = torch.cat([x[:half], torch.ones(half, 1, dtype=x.dtype)], 1)
    gram = a.T @ a + 0.1 * half * torch.eye(a.shape[1], dtype=x.dtype)
    weights = torch.linalg.solve(gram, a.T @ y[:half])
    rest = torch.cat([x[half:], torch.ones(n - half, 1, dtype=x.dtype)], 1) @ weights
    other = y[half:] - y[half:].mean()
    fit = rest - rest.mean()
    linear = float((fit * other).sum() / (fit.norm() * other.norm()).clamp_min(1e-12))
    return max(correlation, linear), max(correlation * n**0.5, linear * (n - half) ** 0.5)


class Tokens(Rule):
    """Language models whose labels are the inputs."""

    name = "target_is_input"
    family = "labels"
    severity = "error"
    exact = True

    def __init__(self) -> None:
        super().__init__()
        self.same = 0
        self.looked = 0

    def output_gradient(self, forward: Forward, gradient: Tensor) -> None:
        """Compare recovered labels with the input tokens of the same position."""
        x = forward.input
        if x is None or x.is_floating_point() or x.ndim != 2 or self.looked >= 6:
            return
        out = forward.output
        if out is None or x.shape[1] < 4 or x.dtype == torch.bool:
            return
        labels = self._labels(forward, gradient, x)
        if labels is None:
            return
        self.looked += 1
        tokens = x.cpu()
        used = labels >= 0
        if int(used.sum()) < 32 or len(tokens.unique()) < 3:
            return
        same = float((labels == tokens)[used].double().mean())
        self.same = self.same + 1 if same > 0.99 else 0
        if self.same >= 3 and float(used.double().mean()) > 0.5:
            self.report(
                "The label of every position is the token at that position: there is nothing to "
                "predict.",
                "Shift the labels by one: inputs tokens[:, :-1], labels tokens[:, 1:].",
                measured={"equal": same},
                threshold={"equal": 0.99},
            )

    def _labels(self, forward: Forward, gradient: Tensor, x: Tensor) -> Tensor | None:
        target = forward.target
        if target is not None and target.numel() == x.numel() and not target.is_floating_point():
            return target.reshape(x.shape).cpu()
        out = forward.output
        assert out is not None
        if out.ndim == 3 and out.shape[:2] == x.shape:
            classes = out.shape[2]
        elif out.ndim == 2 and out.shape[0] == x.numel():
            classes = out.shape[1]
        else:
            return None
        flat = gradient.detach().reshape(-1, classes)
        if self.session.form(forward, gradient).kind not in ("cross_entropy", "nll"):
            return None
        labels = flat.argmin(1).cpu()
        labels[(flat.abs().sum(1) == 0).cpu()] = -1
        return labels.reshape(x.shape)


class SamplesMix(Rule):
    """Outputs of a sample that depend on the other samples of the batch, in evaluation mode."""

    name = "samples_mix"
    family = "loss_form"
    severity = "error"
    exact = True

    def __init__(self) -> None:
        super().__init__()
        self.done = False
        self.first: Tensor | None = None
        self.varied = False

    def after_step(self, view: WatchedStep) -> None:
        """Change one sample at the sixth step and look at the outputs of the others."""
        if self.done or view.index:
            return
        forwards = [f for f in view.forwards if f.grad and f.args and f.output is not None]
        if not forwards:
            return
        forward = forwards[-1]
        if forward.rows is not None:
            if self.first is not None and not torch.equal(self.first, forward.rows):
                self.varied = True
            self.first = forward.rows
        if view.number < 5 or not view.look:
            return
        self.done = True
        x, out = forward.input, forward.output
        many = [t for t in forward.inputs if t.ndim and t.numel() > 1]
        if (
            not self.varied
            or x is None
            or out is None
            or len(many) > 1
            or not x.is_floating_point()
            or x.ndim < 2
            or out.ndim > 2
            or out.shape[0] != x.shape[0]
            or x.shape[0] < 3
        ):
            return
        if forward.target is not None and (
            forward.target.ndim == 0 or forward.target.shape[0] != x.shape[0]
        ):
            return
        small = rows_of(forward, 8)
        if small is None:
            return
        base = main_output(output_at(self.session, small, evaluation=True))
        if base is None or base.shape[0] < 3:
            return
        for index in (0, -1):

            def changed(values: Tensor, index: int = index) -> Tensor:
                other = values.clone()
                other[index] = other[index].flip(-1) + 0.5 * float(values.std())
                return other

            moved = main_output(output_at(self.session, small, inputs=changed, evaluation=True))
            if moved is None or moved.shape != base.shape:
                return
            rest = slice(1, None) if index == 0 else slice(None, -1)
            scale = max(float(base.abs().max()), 1e-6)
            change = float((moved - base)[rest].abs().max()) / scale
            if change > 1e-3:
                self.report(
                    f"The output of a sample depends on the other samples of its batch, in "
                    f"evaluation mode too (change {change:.1e}).",
                    "Look for a softmax, a normalization, a view or an attention over the batch "
                    "dimension (batch_first=True).",
                    measured={"change": change},
                    threshold={"change": 1e-3},
                )
                return


RULES: tuple[type[Rule], ...] = (NeverALabel, Unrelated, Tokens, SamplesMix)
