"""Initialisation rules against their definitions, and through the loop, a study and the command."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from optiscope.data.samples import TensorSamples
from optiscope.optim.registry import BadSettingsError
from optiscope.problems import get
from optiscope.problems.initialisation import RULES, check_rule, initialise
from optiscope.problems.marginals import class_counts, output_bias_of
from optiscope.study import StudyError, load_study
from optiscope.study.single import run

U, M = 400, 300  # units, fan-in


def _linear(rule: dict[str, object], seed: int = 0) -> Tensor:
    layer = nn.Linear(M, U)
    initialise(layer, rule, generator=torch.Generator().manual_seed(seed))
    return layer.weight.detach()


# Standard deviation and largest absolute value (None where unbounded) of each rule's weights.
MOMENTS = [
    ({"name": "uniform"}, 1 / math.sqrt(3 * M), 1 / math.sqrt(M)),
    ({"name": "glorot_uniform"}, math.sqrt(2 / (U + M)), math.sqrt(6 / (U + M))),
    ({"name": "glorot_uniform", "gain": 2}, 2 * math.sqrt(2 / (U + M)), 2 * math.sqrt(6 / (U + M))),
    ({"name": "glorot_normal"}, math.sqrt(2 / (U + M)), None),
    ({"name": "he_uniform"}, math.sqrt(2 / M), math.sqrt(6 / M)),
    ({"name": "he_normal"}, math.sqrt(2 / M), None),
    ({"name": "truncated_normal"}, 1 / math.sqrt(M), 2 / math.sqrt(M) / 0.8796),
    ({"name": "truncated_normal", "std": 0.1}, 0.08796, 0.2),
    ({"name": "framework"}, 1 / math.sqrt(3 * M), 1 / math.sqrt(M)),
    ({"name": "sparse", "nonzero": 30, "std": 2.0}, 2 * math.sqrt(30 / M), None),
]


@pytest.mark.parametrize(
    ("rule", "std", "bound"), MOMENTS, ids=[" ".join(map(str, m[0].values())) for m in MOMENTS]
)
def test_moments_of_a_rule(rule: dict[str, object], std: float, bound: float | None) -> None:
    weight = _linear(rule)
    assert abs(weight.mean()) < 4 * std / math.sqrt(U * M)
    assert weight.std().item() == pytest.approx(std, rel=0.015)
    if bound is not None:
        assert 0.99 * bound < weight.abs().max() <= bound * (1 + 1e-4)


def test_sparse_keeps_a_count_of_incoming_weights() -> None:
    weight = _linear({"name": "sparse", "nonzero": 15})
    assert torch.equal((weight != 0).sum(1), torch.full((U,), 15))
    assert ((weight != 0).sum(0) > 0).all(), "every input should reach some of 400 units"
    narrow = nn.Linear(4, 3)
    initialise(narrow, {"name": "sparse", "nonzero": 15})
    assert (narrow.weight != 0).all()


@pytest.mark.parametrize("shape", [(300, 200), (200, 300)])
def test_orthogonal_preserves_lengths(shape: tuple[int, int]) -> None:
    layer = nn.Linear(*shape)
    initialise(layer, {"name": "orthogonal", "gain": 1.5})
    singular = torch.linalg.svdvals(layer.weight.detach())
    torch.testing.assert_close(singular, torch.full_like(singular, 1.5))


def test_fans_of_convolutions_are_incoming_and_outgoing_weights() -> None:
    plain = nn.Conv2d(6, 64, 5, groups=2)  # 3 · 25 in, 32 · 25 out
    initialise(plain, {"name": "uniform"})
    assert 0.97 / math.sqrt(75) < plain.weight.abs().max() <= 1 / math.sqrt(75)
    transposed = nn.ConvTranspose2d(64, 6, 5, groups=2)  # 32 · 25 in, 3 · 25 out
    initialise(transposed, {"name": "uniform"})
    assert 0.97 / math.sqrt(800) < transposed.weight.abs().max() <= 1 / math.sqrt(800)
    for layer in (plain, transposed):
        initialise(layer, {"name": "glorot_normal"})
        assert layer.weight.std().item() == pytest.approx(math.sqrt(2 / 875), rel=0.06)


def test_a_transposed_kernel_is_sparse_by_output_unit() -> None:
    layer = nn.ConvTranspose2d(8, 6, 3, groups=2)
    initialise(layer, {"name": "sparse", "nonzero": 5})
    weight = layer.weight.detach().view(2, 4, 3, 9)  # groups, in, out, window
    assert torch.equal((weight != 0).sum((1, 3)), torch.full((2, 3), 5))


@pytest.mark.parametrize(("kind", "gates"), [(nn.RNN, 1), (nn.GRU, 3), (nn.LSTM, 4)])
def test_gates_of_a_recurrent_layer_are_drawn_one_by_one(kind: type[nn.RNN], gates: int) -> None:
    layer = kind(12, 20, num_layers=2, bidirectional=True)
    initialise(layer, {"name": "orthogonal", "bias": 0.5})
    for gate in layer.weight_hh_l1_reverse.detach().chunk(gates):
        torch.testing.assert_close(gate @ gate.T, torch.eye(20))
    assert (layer.bias_ih_l0 == 0.5).all()
    assert (layer.bias_hh_l0 == 0).all(), "the two biases add up to the one asked for"


@pytest.mark.parametrize("name", RULES)
def test_a_generator_determines_all_weights(name: str) -> None:
    def drawn(seed: int) -> Tensor:
        model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.LSTM(5, 4), nn.Linear(4, 3))
        initialise(model, {"name": name}, generator=torch.Generator().manual_seed(seed))
        return nn.utils.parameters_to_vector(model.parameters()).detach()

    torch.manual_seed(1)
    first = drawn(7)
    layer, state = nn.Linear(3, 3), torch.random.get_rng_state()
    initialise(layer, {"name": name}, generator=torch.Generator())
    assert torch.equal(state, torch.random.get_rng_state()), "the global generator is left alone"
    torch.manual_seed(2)
    assert torch.equal(first, drawn(7))
    assert not torch.equal(first, drawn(8))


def test_double_weights_are_the_single_ones() -> None:
    single, double = nn.Linear(5, 4), nn.Linear(5, 4).double()
    for layer in (single, double):
        initialise(layer, {"name": "orthogonal"}, generator=torch.Generator().manual_seed(0))
    assert torch.equal(single.weight.double(), double.weight)


def test_biases_are_zero_constant_or_the_frameworks_own() -> None:
    model = nn.Sequential(nn.Linear(30, 20), nn.ReLU(), nn.Linear(20, 10))
    hidden, output = model[0], model[2]
    initialise(model, {"name": "he_normal"})
    assert not hidden.bias.any()
    assert not output.bias.any()
    initialise(model, {"name": "he_normal", "bias": 0.1, "output_bias": -1})
    assert (hidden.bias == 0.1).all()
    assert (output.bias == -1).all()
    initialise(model, {"name": "framework"})
    assert len(hidden.bias.unique()) == 20
    assert hidden.bias.abs().max() <= 1 / math.sqrt(30)


def test_normalisation_and_embeddings_are_left_alone() -> None:
    model = nn.Sequential(nn.Embedding(5, 4), nn.LayerNorm(4), nn.Linear(4, 2))
    before = [p.clone() for p in model[:2].parameters()]
    initialise(model, {"name": "he_normal"})
    for old, new in zip(before, model[:2].parameters(), strict=True):
        assert torch.equal(old, new)


def test_marginal_output_bias_makes_the_first_loss_the_entropy_of_the_classes() -> None:
    labels = torch.tensor([0] * 6 + [1] * 3 + [2])
    model = nn.Linear(4, 3)
    initialise(model, {"name": "he_normal", "output_bias": "marginal"}, targets=labels)
    nn.init.zeros_(model.weight)
    loss = nn.functional.cross_entropy(model(torch.randn(10, 4)), labels)
    p = torch.tensor([0.6, 0.3, 0.1])
    torch.testing.assert_close(loss, -(p * p.log()).sum())


def test_marginal_output_bias_of_real_targets_is_their_mean() -> None:
    targets = torch.randn(50, 3) + torch.tensor([1.0, 2.0, 3.0])
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
    samples = TensorSamples(torch.randn(50, 4), targets)
    initialise(model, {"name": "sparse", "output_bias": "marginal"}, targets=samples)
    torch.testing.assert_close(model[2].bias.detach(), targets.mean(0))
    pixels = torch.rand(20, 2, 4, 4)
    decoder = nn.Sequential(nn.ConvTranspose2d(3, 2, 1), nn.Sigmoid())
    initialise(decoder, {"name": "uniform", "output_bias": "marginal"}, targets=pixels)
    torch.testing.assert_close(decoder[0].bias.sigmoid().detach(), pixels.mean((0, 2, 3)))


def test_a_class_that_does_not_occur_keeps_a_finite_bias() -> None:
    bias = output_bias_of(torch.tensor([0, 0, 1]), 3)
    torch.testing.assert_close(bias.exp(), torch.tensor([2.0, 1.0, 0.5]).double() / 3.5)
    assert class_counts(torch.tensor([[0, 2], [2, 2]]), 4).tolist() == [1, 0, 3, 0]


REFUSED = [
    ({"name": "he_norml"}, "did you mean 'he_normal'"),
    ({}, "needs the name of a rule"),
    ({"name": "orthogonal", "gian": 2}, "did you mean 'gain'"),
    ({"name": "orthogonal", "gain": 0}, "gain of initialisation must be positive, got 0"),
    ({"name": "sparse", "nonzero": 1.5}, "positive integer, got 1.5"),
    ({"name": "he_normal", "bias": "marginal"}, "bias of initialisation must be a number"),
    ({"name": "he_normal", "bias": math.inf}, "must be a number, got inf"),
    ({"name": "he_normal", "output_bias": "mean"}, "a number or 'marginal', got 'mean'"),
]


@pytest.mark.parametrize(("rule", "message"), REFUSED)
def test_what_is_no_rule_is_refused_in_one_line(rule: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match="initialisation") as caught:
        check_rule(rule)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_a_rule_cannot_act_on_is_refused() -> None:
    with pytest.raises(ValueError, match="leave initialisation out"):
        initialise(nn.LayerNorm(3), {"name": "he_normal"})
    marginal = {"name": "he_normal", "output_bias": "marginal"}
    with pytest.raises(ValueError, match="needs the training targets"):
        initialise(nn.Linear(2, 2), marginal)
    with pytest.raises(ValueError, match="an output layer with a bias"):
        initialise(nn.Linear(2, 2, bias=False), marginal, targets=torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="an output for each class, got 2 outputs and class 4"):
        initialise(nn.Linear(2, 2), marginal, targets=torch.tensor([0, 4]))
    with pytest.raises(ValueError, match="as many outputs as a target has values"):
        initialise(nn.Linear(2, 2), marginal, targets=torch.randn(5, 3))


def _first(initialisation: dict[str, object] | None, seed: int = 0) -> tuple[str, float]:
    settings = {"lr": 1e-3}
    done = run(
        "digits_mlp", "sgd", hyperparameters=settings, seed=seed, epochs=1, threads=1,
        initialization=initialisation,
    )  # fmt: skip
    losses = [m.value for m in done.metrics if (m.step, m.split, m.name) == (0, "train", "loss")]
    return done.trial.hash, losses[0]


def test_a_run_starts_from_the_rule_and_its_hash_says_so() -> None:
    own, he, again = _first(None), _first({"name": "he_normal"}), _first({"name": "he_normal"})
    assert he == again
    assert own[0] != he[0]
    assert own[1] != he[1]
    assert _first({"name": "he_normal"}, seed=1)[1] != he[1]
    small = _first({"name": "truncated_normal", "std": 1e-4, "output_bias": "marginal"})
    data = get("digits_mlp").data(None)
    counts = class_counts(data.train.targets).double()
    evaluated = class_counts(data.train_eval.targets).double()
    entropy = -(evaluated / evaluated.sum() * (counts / counts.sum()).log()).sum().item()
    assert small[1] == pytest.approx(entropy, abs=1e-5)


def test_a_problem_without_such_layers_is_refused() -> None:
    with pytest.raises(ValueError, match="got NoisyQuadratic without any"):
        run("quadratic_deep", "sgd", hyperparameters={"lr": 0.01}, epochs=1,
            initialization={"name": "he_normal"})  # fmt: skip


def test_the_old_spelling_is_accepted_with_one_line() -> None:
    rule, settings = {"name": "he_normal"}, {"lr": 1e-3}
    with pytest.warns(DeprecationWarning, match="now called initialization") as said:
        done = run("digits_mlp", "sgd", hyperparameters=settings, epochs=1, threads=1,
                   initialisation=rule)  # fmt: skip
    assert [one.filename for one in said] == [__file__]
    assert done.trial.hash == _first(rule)[0]
    with pytest.raises(BadSettingsError, match="keep one"):
        run("digits_mlp", "sgd", initialisation=rule, initialization=rule)


STUDY = """
name = "rules"
question = "Does the rule matter?"
problems = ["digits_mlp"]
seeds = [1]
initialisation = {{ name = "he_normal" }}
[[algorithms]]
optimizer = "sgd"
[[algorithms]]
label = "sgd, orthogonal"
optimizer = "sgd"
initialisation = {own}
"""


def test_a_study_sets_the_rule_for_all_or_for_one_algorithm(tmp_path: object) -> None:
    path = tmp_path / "rules.toml"  # type: ignore[operator]
    path.write_text(STUDY.format(own='{ name = "orthogonal", gain = 2 }'))
    study = load_study(path)
    problem = study.problems[0]
    rules = [study.trial(a, problem, {"lr": 0.1}, 1).initialisation for a in study.algorithms]
    assert rules == [{"name": "he_normal"}, {"name": "orthogonal", "gain": 2}]
    path.write_text(STUDY.format(own='{ name = "orthogonl" }'))
    with pytest.raises(StudyError, match=r"line 12: .* did you mean 'orthogonal'"):
        load_study(path)
    path.write_text(STUDY.format(own='{ name = "uniform" }').replace("digits_mlp", "two_d_beale"))
    with pytest.raises(StudyError, match=r"line 6: two_d_beale: .* without any"):
        load_study(path)
