"""Problems on anybody's data and models: data sets, several inputs, ragged batches, own losses."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, Dataset, IterableDataset

import optiscope
from optiscope.data import Batch, DatasetSamples, SamplesError, Splits, TensorSamples, as_samples
from optiscope.problems import Metric, Problem
from optiscope.problems.registry import UnknownProblemError, get
from optiscope.records import Run, Status

SIZES = {"train": 96, "valid": 24, "test": 25}


class Sums(Dataset[Any]):
    """Five numbers and their sum; ``jitter`` draws noise from torch's generator."""

    def __init__(self, count: int, seed: int, jitter: bool = False) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.x, self.jitter = torch.randn(count, 5, generator=generator), jitter
        self.y = self.x.sum(1, keepdim=True)

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        noise = torch.randn(()) if self.jitter else 0.0
        return self.x[index] + 0.01 * noise, self.y[index]


def linear() -> nn.Module:
    return nn.Linear(5, 1)


def per_sample(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs - targets).square().mean(-1)


def splits_of(make: Callable[[int, int], Any]) -> Callable[[Any], Splits]:
    def data(data_dir: Any) -> Splits:
        return Splits.of(*(make(count, seed) for seed, count in enumerate(SIZES.values())))

    return data


def tensors(count: int, seed: int) -> TensorSamples:
    sums = Sums(count, seed)
    return TensorSamples(sums.x, sums.y)


def train(problem: Problem, **options: Any) -> Run:
    run = optiscope.run(problem, "sgd", hyperparameters={"lr": 0.05}, epochs=2, **options)
    assert run.status is Status.FINISHED, run.reason
    return run


REFERENCE = Problem("sums", linear, per_sample, splits_of(tensors), batch_size=16)


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(Sums, id="dataset"),
        pytest.param(lambda n, s: DataLoader(Sums(n, s), batch_size=7, shuffle=True), id="loader"),
        pytest.param(lambda n, s: (Sums(n, s).x, Sums(n, s).y), id="pair"),
        pytest.param(lambda n, s: (Sums(n, s).x.numpy(), Sums(n, s).y.numpy()), id="arrays"),
        pytest.param(lambda n, s: DatasetSamples(Sums(n, s), workers=1), id="workers"),
    ],
)
def test_however_the_data_come_the_run_is_the_same(make: Callable[[int, int], Any]) -> None:
    problem = Problem("sums", linear, per_sample, splits_of(make), batch_size=16)
    assert train(problem).metrics == train(REFERENCE).metrics


@pytest.mark.parametrize("loss", [nn.MSELoss(), nn.MSELoss(reduction="none"), per_sample])
def test_a_mean_loss_and_a_loss_of_each_entry_are_the_loss_of_each_sample(loss: Any) -> None:
    values = train(Problem("sums", linear, loss, splits_of(tensors), batch_size=16)).final
    expected = train(REFERENCE).final
    assert values == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("make_model", "convert", "words"),
    [
        (linear, Tensor.double, "the inputs are float64 and the model's weights float32: convert"),
        (linear, lambda x: x.to(torch.uint8), "the inputs are uint8 and the model's weights float"),
        (lambda: linear().double(), Tensor.clone, "the inputs are float32 and the model's weights"),
    ],
    ids=["double data", "bytes", "double model"],
)
def test_data_of_another_type_than_the_model_are_named(
    make_model: Any, convert: Any, words: str
) -> None:
    def make(count: int, seed: int) -> TensorSamples:
        sums = Sums(count, seed)
        return TensorSamples(convert(sums.x), sums.y)

    problem = Problem("typed", make_model, per_sample, splits_of(make), batch_size=16)
    run = optiscope.run(problem, "sgd", hyperparameters={"lr": 0.05}, epochs=1)
    assert run.status is Status.CRASHED
    assert words in run.reason


def test_a_model_of_two_arguments_is_told_what_to_do() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(8, 1)

        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            outputs: Tensor = self.layer(torch.cat([a, b], 1))
            return outputs

    def make(count: int, seed: int) -> TensorSamples:
        sums = Sums(count, seed)
        return TensorSamples((sums.x, sums.x[:, :3]), sums.y)

    data = splits_of(make)
    run = optiscope.run(
        Problem("two", Two, per_sample, data, batch_size=16), "sgd", hyperparameters={"lr": 0.05}
    )
    assert run.status is Status.CRASHED
    assert "2 inputs come as one argument" in run.reason
    hook = Problem(
        "two",
        Two,
        data=data,
        batch_size=16,
        training_loss=lambda model, batch: per_sample(model(*batch.inputs), batch.targets),
    )
    assert train(hook).final["test_loss"] < 10


def test_a_loss_and_logits_in_a_tuple_have_a_metric() -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(5, 1)

        def forward(self, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
            outputs = self.layer(x)
            return per_sample(outputs, labels).mean(), outputs

    def make(count: int, seed: int) -> list[dict[str, Tensor]]:
        sums = Sums(count, seed)
        return [{"x": x, "labels": y} for x, y in zip(sums.x, sums.y, strict=True)]

    run = train(Problem("both", Both, data=splits_of(make), batch_size=16, metric="mae"))
    assert run.final["test_mae"] < 3


def test_data_that_are_no_splits_are_refused() -> None:
    problem = Problem("loose", linear, per_sample, lambda _: (1, 2, 3), batch_size=16)
    with pytest.raises(ValueError, match=r"must return Splits, got tuple: use Splits\.of"):
        optiscope.run(problem, "sgd", hyperparameters={"lr": 0.05})
    with pytest.raises(SamplesError, match="got lists: make them tensors"):
        as_samples(([[1.0, 2.0]] * 3, [0, 1, 0]))


def test_a_summed_loss_is_refused() -> None:
    with pytest.raises(ValueError, match="reduction='sum'"):
        Problem("sums", linear, nn.MSELoss(reduction="sum"), splits_of(tensors))
    summed = Problem("sums", linear, lambda o, t: (o - t).square().sum(), splits_of(tensors))
    run = optiscope.run(summed, "sgd", hyperparameters={"lr": 1e-4}, epochs=1)
    assert run.status is Status.CRASHED
    assert "got a sum over the batch" in run.reason


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(5, 1), nn.Linear(3, 1)

    def forward(self, inputs: Any) -> Tensor:
        if isinstance(inputs, Mapping):
            inputs = (inputs["a"], inputs["b"])
        first: Tensor = self.first(inputs[0]) + self.second(inputs[1])
        return first


@pytest.mark.parametrize("kind", ["tuple", "dictionary", "dataset"])
def test_several_inputs(kind: str) -> None:
    def make(count: int, seed: int) -> Any:
        sums, more = Sums(count, seed), torch.zeros(count, 3)
        if kind == "dataset":
            return [(sums.x[i], more[i], sums.y[i]) for i in range(count)]
        inputs = (sums.x, more) if kind == "tuple" else {"a": sums.x, "b": more}
        return TensorSamples(inputs, sums.y)

    problem = Problem("two", TwoInputs, per_sample, splits_of(make), batch_size=16, metric="mae")
    run = train(problem)
    assert run.final["test_mae"] < 2.0
    losses = [
        value for _, _, split, name, value in run.metrics if (split, name) == ("valid", "loss")
    ]
    assert losses[-1] < losses[0]


class MeanOfRagged(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(1, 4)
        self.out = nn.Linear(4, 2)

    def forward(self, inputs: tuple[Tensor, Tensor]) -> Tensor:
        padded, lengths = inputs
        mask = torch.arange(padded.shape[1]) < lengths[:, None]
        hidden = self.embed(padded.unsqueeze(-1)).tanh() * mask.unsqueeze(-1)
        logits: Tensor = self.out(hidden.sum(1) / lengths[:, None])
        return logits


def ragged(count: int, seed: int) -> DatasetSamples:
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for _ in range(count):
        length = int(torch.randint(1, 9, (), generator=generator))
        row = torch.randn(length, generator=generator)
        rows.append((row, int(row.mean() > 0)))

    def collate(samples: list[tuple[Tensor, int]]) -> Any:
        texts, labels = zip(*samples, strict=True)
        lengths = torch.tensor([len(text) for text in texts])
        return (pad_sequence(list(texts), batch_first=True), lengths), torch.tensor(labels)

    return DatasetSamples(rows, collate)


def test_ragged_batches_are_padded_by_the_users_function() -> None:
    problem = Problem(
        "ragged",
        MeanOfRagged,
        nn.CrossEntropyLoss(),
        splits_of(ragged),
        batch_size=16,
        metric="accuracy",
    )
    run = train(problem)
    assert 0.0 <= run.final["test_accuracy"] <= 1.0


def test_ragged_samples_without_a_collate_fn_are_told_how() -> None:
    samples = as_samples([(torch.zeros(k), 0) for k in (2, 3)])
    with pytest.raises(SamplesError, match="collate_fn that pads"):
        samples.select(torch.tensor([0, 1]))


class OwnLoss(nn.Module):
    """As the models of Hugging Face: labels among the inputs, a loss among the outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(5, 3)

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Any:
        logits = self.body(x)
        loss = None if labels is None else nn.functional.cross_entropy(logits, labels)
        return SimpleNamespace(loss=loss, logits=logits)


def classified(count: int, seed: int) -> list[dict[str, Tensor]]:
    sums = Sums(count, seed)
    labels = (sums.y[:, 0] > 0).long() + (sums.y[:, 0] > 1)
    return [{"x": x, "labels": y} for x, y in zip(sums.x, labels, strict=True)]


def test_a_model_that_returns_its_loss_trains_as_with_the_loss_outside() -> None:
    inside = Problem("own", OwnLoss, data=splits_of(classified), batch_size=16, metric="accuracy")

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        outputs = model(batch.inputs["x"])
        return nn.functional.cross_entropy(outputs.logits, batch.targets, reduction="none")

    outside = Problem("own", OwnLoss, data=splits_of(classified), batch_size=16, training_loss=loss)
    assert train(inside).final["test_loss"] == pytest.approx(
        train(outside).final["test_loss"], rel=1e-5
    )
    assert train(inside).final["test_accuracy"] > 0.4


def test_a_model_without_a_loss_is_told_what_is_missing() -> None:
    problem = Problem("none", linear, data=splits_of(tensors))
    run = optiscope.run(problem, "sgd", hyperparameters={"lr": 0.1}, epochs=1)
    assert run.status is Status.CRASHED
    assert "a problem without a loss needs a model that returns its own" in run.reason


def test_segmentation_has_a_loss_and_an_accuracy_of_each_pixel() -> None:
    def make(count: int, seed: int) -> TensorSamples:
        images = torch.randn(count, 1, 6, 6, generator=torch.Generator().manual_seed(seed))
        return TensorSamples(images, (images[:, 0] > 0).long())

    problem = Problem(
        "pixels",
        lambda: nn.Conv2d(1, 2, 1),
        nn.CrossEntropyLoss(),
        splits_of(make),
        batch_size=16,
        metric="accuracy",
    )
    run = train(problem)
    assert 0.0 <= run.final["test_accuracy"] <= 1.0
    assert run.final["test_loss"] < 1.0


def test_noise_of_a_data_set_comes_from_the_trials_seed() -> None:
    def jittered(count: int, seed: int) -> Sums:
        return Sums(count, seed, jitter=True)

    problem = Problem("noise", linear, per_sample, splits_of(jittered), batch_size=16)
    runs = []
    for seed in (1, 1, 2):
        torch.manual_seed(len(runs))
        runs.append(train(problem, seed=seed).final["train_loss"])
    assert runs[0] != runs[2]
    assert runs[0] == runs[1]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (5, "expected Samples, a pair"),
        ({"train": 1}, "expected Samples, a pair"),
        ((torch.zeros(3), torch.zeros(4)), "as many targets as inputs"),
        (type("Stream", (IterableDataset,), {"__iter__": iter})(), "IterableDataset"),
    ],
)
def test_what_holds_no_samples_is_one_line(data: Any, message: str) -> None:
    with pytest.raises(SamplesError, match=message) as error:
        as_samples(data)
    assert "\n" not in str(error.value)
    with pytest.raises(SamplesError, match="split 'valid'"):
        Splits(tensors(4, 0), tensors(4, 0), data, tensors(4, 0))


def test_the_training_loss_is_measured_on_training_samples() -> None:
    splits = Splits.of(tensors(96, 0), tensors(24, 1), tensors(25, 2))
    assert len(splits.train_eval) == 24
    known = {tuple(row.tolist()) for row in tensors(96, 0).inputs}
    assert {tuple(r.tolist()) for r in splits.train_eval.select(torch.arange(24)).inputs} <= known


def test_a_metric_may_be_a_name_or_a_function() -> None:
    def half_error(outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs - targets).abs().mean(1) / 2

    metric = Metric.of(half_error)
    assert (metric.name, metric.higher_is_better) == ("half_error", False)
    assert Metric.of("accuracy").higher_is_better
    with pytest.raises(ValueError, match="did you mean 'accuracy'"):
        Metric.of("acuracy")
    with pytest.raises(ValueError, match="a function with a name"):
        Metric.of(lambda outputs, targets: outputs)


@pytest.mark.parametrize(("shape", "targets"), [((4, 3), (4,)), ((4, 3, 5, 5), (4, 5, 5))])
def test_accuracy_counts_classes_wherever_they_stand(
    shape: tuple[int, ...], targets: tuple[int, ...]
) -> None:
    generator = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(shape, generator=generator), torch.randint(3, targets)
    expected = (
        (logits.argmax(1) == labels).float().flatten(1).mean(1)
        if len(shape) > 2
        else ((logits.argmax(1) == labels).float())
    )
    assert torch.equal(Metric.of("accuracy").compute(logits, labels), expected)
    assert Metric.of("top5_accuracy").compute(logits, labels).tolist() == [1.0] * 4


def test_a_difference_does_not_broadcast() -> None:
    with pytest.raises(ValueError, match="would broadcast"):
        Metric.of("mse").compute(torch.zeros(4, 1), torch.zeros(4))


def test_a_problem_with_fewer_training_samples() -> None:
    fewer = get("digits_logreg@200")
    whole = get("digits_logreg").data(None)
    splits = fewer.data(None)
    assert fewer.name == "digits_logreg@200"
    assert len(splits.train) == 200
    assert len(splits.valid) == len(whole.valid)
    assert torch.equal(splits.train.inputs, get("digits_logreg@200").data(None).train.inputs)
    known = {tuple(row.flatten().tolist()) for row in whole.train.inputs}
    assert {tuple(row.flatten().tolist()) for row in splits.train.inputs} <= known
    run = optiscope.run("digits_logreg@200", "sgd", hyperparameters={"lr": 0.1}, epochs=1)
    assert run.trial.problem == "digits_logreg@200"
    assert run.steps == 200 // run.trial.batch_size


@pytest.mark.parametrize("name", ["digits_logreg@", "digits_logreg@0", "digits_logreg@1e3", "x@-1"])
def test_a_subset_needs_a_number(name: str) -> None:
    with pytest.raises(UnknownProblemError, match="number of training samples"):
        get(name)


def test_more_samples_than_there_are_is_one_line() -> None:
    with pytest.raises(ValueError, match=r"at most the \d+ training samples of digits_logreg"):
        get("digits_logreg@5000").data(None)


def test_a_problem_needs_a_model_and_data() -> None:
    with pytest.raises(ValueError, match="a problem needs make_model"):
        Problem("nothing", data=splits_of(tensors))
    with pytest.raises(ValueError, match="a problem needs data"):
        Problem("nothing", linear)
    with pytest.raises(ValueError, match="make_model of problem 'nothing' must be a function"):
        Problem("nothing", nn.Linear(1, 1)(torch.zeros(1)), per_sample, splits_of(tensors))
