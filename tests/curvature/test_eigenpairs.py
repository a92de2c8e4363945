"""Leading eigenpairs against dense spectra; copies, ghosts, residuals, budgets, restarts."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from networks import dense, risk_of_network
from sklearn.datasets import load_digits
from torch import Tensor, nn

from optiscope import EmpiricalRisk
from optiscope.curvature import count_outliers, top_eigenpairs
from optiscope.curvature.eigenpairs import EigenpairsError, verification_steps
from optiscope.curvature.linear_map import OperatorError


def random_matrix(values: Tensor, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    q = torch.linalg.qr(torch.randn(len(values), len(values), generator=generator).double())[0]
    return (q * values) @ q.T


@pytest.mark.parametrize("seed", range(24))
def test_each_outlier_once(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    bulk = torch.rand(396, generator=generator, dtype=torch.float64) / 2
    values = torch.cat([torch.tensor([5.0, 8.0, 20.0, 50.0]).double(), bulk])
    pairs = top_eigenpairs(torch.diag(values), k=10, seed=seed)
    gaps = pairs.values - values.sort(descending=True).values[:10]
    assert float(gaps[:4].abs().max()) < 1e-6
    assert float(values.sort(descending=True).values[9]) <= pairs.missed_above
    assert pairs.missed_above < 0.6
    assert pairs.converged.all()
    assert int((pairs.values > 4).sum()) == 4


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("k", [4, 8, 14])
def test_nothing_beyond_the_bound_is_missed_next_to_copies(k: int, sign: int) -> None:
    for seed in range(4):
        generator = torch.Generator().manual_seed(seed)
        bulk = torch.rand(183, generator=generator, dtype=torch.float64)
        values = torch.cat([torch.tensor([3.0] * 12 + [2.9] * 5).double(), bulk])
        which: Any = "largest" if sign == 1 else "smallest"
        pairs = top_eigenpairs(torch.diag(sign * values), k=k, which=which, seed=seed, tol=1e-2)
        assert float(values.sort(descending=True).values[k - 1]) <= sign * pairs.missed_above


def softmax_at_zero(dtype: torch.dtype) -> EmpiricalRisk:
    images, labels = load_digits(return_X_y=True)
    x = torch.as_tensor(images[:1197] / 16, dtype=dtype)
    model = nn.Linear(64, 10).to(dtype)
    nn.init.zeros_(model.weight)
    nn.init.zeros_(model.bias)
    return EmpiricalRisk(model, F.cross_entropy, (x, torch.as_tensor(labels[:1197])))


@pytest.mark.parametrize(("dtype", "accuracy"), [(torch.float64, 1e-7), (torch.float32, 1e-4)])
def test_nine_copies(dtype: torch.dtype, accuracy: float) -> None:
    operator = softmax_at_zero(dtype).hessian()
    matrix = dense(operator)
    right = torch.linalg.eigvalsh(matrix.double()).flip(0)[:10]
    assert float(right[0] - right[8]) < accuracy
    assert float(right[8] - right[9]) > 1
    for seed in range(21):
        pairs = top_eigenpairs(operator if seed < 1 else matrix, k=10, seed=seed)
        assert float((pairs.values.double() - right).abs().max()) < accuracy, seed
        assert pairs.converged.all()
        assert pairs.multiplicity_checked
        if seed % 4:
            continue
        loose = top_eigenpairs(matrix, k=10, seed=seed, tol=1e-2)
        assert loose.converged.all()
        assert float((loose.values.double() - right).abs().max()) < 1e-2


SOFTMAX = dense(softmax_at_zero(torch.float32).hessian())


@pytest.mark.parametrize("budget", [1, 5, 12, 16, 20, 25, 30, 40, 50, 60])
def test_a_list_that_misses_a_copy_is_never_converged(budget: int) -> None:
    operator = SOFTMAX
    for seed in range(3):
        for words in ({"budget": budget}, {"verify": False}):
            pairs = top_eigenpairs(operator, k=10, seed=seed, tol=1e-2, **words)
            assert pairs.cost.products <= max(budget, words.get("budget", 10**9))
            if int((pairs.values > 1).sum()) < 9:
                assert not pairs.converged.any()
            if "verify" in words:
                assert not pairs.converged.any()
                assert not pairs.multiplicity_checked
                assert pairs.within_tolerance.all()


CASES: dict[str, Any] = {
    "tanh": {},
    "relu": {"activation": nn.ReLU},
    "deep": {"activation": nn.ELU, "sizes": (8, 6, 6, 6, 10)},
    "one batch": {"batches": (60,)},
    "softplus": {"activation": nn.Softplus, "sizes": (12, 10, 10)},
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize(
    ("kind", "which"),
    [("hessian", "largest"), ("hessian", "smallest"), ("residual", "magnitude"),
     ("gauss_newton", "largest")],
)  # fmt: skip
def test_residuals_bound_the_error(name: str, kind: str, which: Any) -> None:
    operator = getattr(risk_of_network(**CASES[name]), kind)()
    values = torch.linalg.eigvalsh(dense(operator))
    order = {"largest": -values, "smallest": values, "magnitude": -values.abs()}[which].argsort()
    right = values[order][:6]
    for tol in (1e-2, 1e-6):
        pairs = top_eigenpairs(operator, k=6, which=which, tol=tol)
        assert pairs.converged.all()
        gap = (pairs.values.unsqueeze(1) - values).abs().min(1).values
        assert bool((gap <= pairs.residuals + 1e-12).all())
        u = pairs.vectors
        assert u is not None
        true = (operator @ u.T - u.T * pairs.values).norm(dim=0)
        torch.testing.assert_close(pairs.residuals, true, atol=1e-12, rtol=1e-6)
        torch.testing.assert_close(u @ u.T, torch.eye(6, dtype=u.dtype), atol=1e-12, rtol=0)
    if which == "magnitude":
        pairs_keys, right = pairs.values.abs(), right.abs()
    else:
        pairs_keys = pairs.values
    torch.testing.assert_close(pairs_keys, right, atol=1e-5 * float(values.abs().max()), rtol=0)


def test_restarts_bound_the_memory_and_change_nothing() -> None:
    values = torch.cat([torch.linspace(1, 2, 8), torch.rand(292)]).double()
    matrix = random_matrix(values)
    right = values.sort(descending=True).values[:8]
    free = top_eigenpairs(matrix, k=8, tol=1e-6)
    tight = top_eigenpairs(matrix, k=8, tol=1e-6, max_vectors=20, budget=2000)
    for pairs in (free, tight):
        assert pairs.converged.all()
        torch.testing.assert_close(pairs.values, right, atol=1e-6, rtol=0)
        u = pairs.vectors
        assert u is not None
        true = (matrix @ u.T - u.T * pairs.values).norm(dim=0)
        torch.testing.assert_close(pairs.residuals, true, atol=1e-10, rtol=1e-3)
    assert tight.cost.products > free.cost.products
    copies = torch.cat([torch.ones(6), torch.rand(200) / 2]).double()
    pairs = top_eigenpairs(random_matrix(copies), k=8, max_vectors=17, budget=2000)
    assert int((pairs.values > 0.99).sum()) == 6
    assert pairs.converged.all()


@pytest.mark.parametrize("values", [
    torch.zeros(30), torch.ones(30), torch.tensor([1.0]), torch.arange(4.0),
    torch.cat([torch.ones(5), torch.zeros(25)]), torch.cat([-torch.ones(5), torch.zeros(25)]),
    torch.tensor([3.0] * 3 + [2.0] * 4 + [1.0] * 5 + [0.0] * 40),
])  # fmt: skip
@pytest.mark.parametrize("which", ["largest", "smallest", "magnitude"])
def test_degenerate_matrices(values: Tensor, which: Any) -> None:
    values = values.double()
    order = {"largest": -values, "smallest": values, "magnitude": -values.abs()}[which].argsort()
    pairs = top_eigenpairs(torch.diag(values), k=10, which=which)
    torch.testing.assert_close(pairs.values, values[order][:10], atol=1e-7, rtol=0)
    assert pairs.converged.all()


def test_errors_from_the_data_are_those_of_rayleigh_quotients_over_batches() -> None:
    x, y = torch.randn(80, 5).double(), torch.randn(80).double()
    model = nn.Linear(5, 1, bias=False).double()

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs.squeeze(1) - targets).square().mean() / 2

    sizes = [10, 30, 25, 15]
    batches = list(zip(x.split(sizes), y.split(sizes), strict=True))
    pairs = top_eigenpairs(EmpiricalRisk(model, loss, batches).hessian(), k=5)
    assert pairs.vectors is not None
    assert pairs.data_errors is not None
    values, vectors = torch.linalg.eigh(x.T @ x / 80)
    torch.testing.assert_close(pairs.values, values.flip(0))
    for i, u in enumerate(vectors.T.flip(0)):
        parts = torch.stack([(b @ u).square().mean() for b, _ in batches])
        weights = torch.tensor(sizes).double() / 80
        error = (4 / 3 * (weights * (parts - pairs.values[i])).square().sum()).sqrt()
        assert float(pairs.data_errors[i]) == pytest.approx(float(error), rel=1e-6)
    alone = EmpiricalRisk(model, loss, [(x, y)])
    assert top_eigenpairs(alone.hessian(), k=2).data_errors is None


def test_the_error_from_the_data_is_the_spread_over_samples() -> None:
    """Standard errors of one sample against the spread over thirty."""
    generator = torch.Generator().manual_seed(0)
    scale = torch.tensor([3.0, 1.5, 1.0, 0.5]).double()
    model = nn.Linear(4, 1, bias=False).double()
    tops, errors = [], []
    for _ in range(30):
        x = torch.randn(400, 4, generator=generator, dtype=torch.float64) * scale
        risk = EmpiricalRisk(model, lambda o, t: o.square().mean() / 2, (x, x[:, 0]), batch_size=25,
                             check_deterministic=False)  # fmt: skip
        pairs = top_eigenpairs(risk.hessian(), k=1)
        tops.append(pairs.value)
        errors.append(pairs.standard_error)
    spread = float(torch.tensor(tops).std())
    assert spread == pytest.approx(float(torch.tensor(errors).mean()), rel=0.4)


def test_products_on_a_preconditioned_matrix() -> None:
    generator = torch.Generator().manual_seed(0)
    a = random_matrix(torch.linspace(-1, 10, 40).double())
    root = torch.randn(40, 40, generator=generator).double()
    p = root @ root.T + torch.eye(40).double()
    inverse = torch.linalg.inv(p)
    right = torch.linalg.eigvals(inverse @ a).real.sort(descending=True).values
    pairs = top_eigenpairs(a, k=6, inverse=lambda v: inverse @ v, tol=1e-8)
    torch.testing.assert_close(pairs.values, right[:6], atol=1e-6, rtol=1e-6)
    assert pairs.converged.all()


@pytest.mark.parametrize(
    ("scale", "dtype"),
    [(s, torch.float32) for s in (1e-30, 1e30)] + [(s, torch.float64) for s in (1e-200, 1e200)],
)
def test_squares_may_leave_the_range_of_numbers(scale: float, dtype: torch.dtype) -> None:
    """Two copies, so that there is a second round, and an outlier count at the same scale."""
    generator = torch.Generator().manual_seed(0)
    bulk = torch.rand(40, generator=generator) / 2
    values = torch.cat([torch.tensor([50.0, 50.0, 8.0, 5.0]), bulk]).to(dtype) * scale
    pairs = top_eigenpairs(torch.diag(values), k=10)
    right = values.sort(descending=True).values[:10]
    torch.testing.assert_close(pairs.values / scale, right / scale, rtol=1e-3, atol=0)
    assert pairs.converged.all()
    assert count_outliers(pairs).count == 4


def test_products_of_no_symmetric_matrix_are_refused() -> None:
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(30, 30, generator=generator).double()
    with pytest.raises(EigenpairsError, match="symmetric"):
        top_eigenpairs(lambda v: matrix @ v, k=3, size=30)


def test_a_function_needs_a_size_and_wrong_words_are_refused() -> None:
    matrix = torch.diag(torch.arange(1.0, 21).double())
    assert top_eigenpairs(lambda v: matrix @ v, k=3, size=20).values.tolist() == pytest.approx(
        [20, 19, 18]
    )
    for operator, match in [(lambda v: v, "size"), (3, "int"), (torch.zeros(3, 4), "square"),
                            (torch.triu(torch.ones(4, 4)), "symmetric")]:  # fmt: skip
        with pytest.raises(OperatorError, match=match):
            top_eigenpairs(operator)
    for words, match in [({"k": 0}, "k to be"), ({"tol": 0}, "tol"), ({"which": "larges"}, "large"),
                         ({"budget": 0}, "budget"),
                         ({"max_vectors": 5}, "max_vectors")]:  # fmt: skip
        with pytest.raises(EigenpairsError, match=match):
            top_eigenpairs(matrix, **words)
    with pytest.raises(EigenpairsError, match="diverged"):
        top_eigenpairs(matrix * float("nan"))


def test_at_least_sixteen_steps_of_verification() -> None:
    assert verification_steps(10) == 16
    assert verification_steps(12_060) == 17
    assert verification_steps(1_300_000) == 21
    operator = risk_of_network().hessian()
    seen = []
    pairs = top_eigenpairs(operator, k=5, progress=seen.append)
    assert pairs.cost.products >= pairs.search_products + 16
    assert len(seen) == pairs.cost.products
    assert [p.products for p in seen] == list(range(1, len(seen) + 1))
    assert pairs.missed_above > float(pairs.values[-1])


def test_random_generators_do_not_move_and_one_seed_gives_the_same() -> None:
    operator = risk_of_network().hessian()
    state = torch.get_rng_state()
    a, b = (top_eigenpairs(operator, k=3, seed=7) for _ in range(2))
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(a.values, b.values)
