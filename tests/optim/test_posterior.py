"""Inference on the Hessian against brute-force conditioning, closed forms and degenerate input."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from optiscope.linalg.low_rank import apply_low_rank, relative_power
from optiscope.linalg.orthonormal import orthonormalize
from optiscope.optim.preconditioner.posterior import (
    Observations,
    best_scale,
    curvature_with_noise,
    log_evidence,
    next_direction,
    observe,
    observed_pairs,
    posterior_mean_factor,
    posterior_product,
    posterior_solve,
    preconditioned_rate,
    predictive_statistic,
    remaining_curvature,
    symmetric_mean_factor,
    variance_share,
    whole_pairs,
)
from optiscope.optim.preconditioner.prior import (
    CurvatureSums,
    Prior,
    add_pair,
    construct_rate,
    estimate_prior,
    safe_dot,
)
from reference import preconditioner as dense

F64 = torch.float64
PRIOR = Prior(base=1.7, scale=0.8, noise=0.3)
NOISE_FREE = Prior(base=1.7, scale=0.8, noise=0.0)


def random_pairs(n: int, m: int, symmetric: bool = True) -> tuple[torch.Tensor, ...]:
    hessian = torch.randn(n, n, dtype=F64)
    hessian = hessian + hessian.mT if symmetric else hessian
    s = torch.randn(n, m, dtype=F64) * torch.logspace(-1, 1, m, dtype=F64)
    return hessian, s, hessian @ s


def seen_from(s: torch.Tensor, y: torch.Tensor) -> Observations:
    seen = Observations.none(s[:, 0])
    for i in range(s.shape[1]):
        seen = observe(seen, s[:, i], y[:, i])
    return seen


def dense_mean(prior: Prior, seen: Observations) -> torch.Tensor:
    n = seen.directions.shape[1]
    identity = torch.eye(n, dtype=seen.directions.dtype)
    return prior.base * identity + posterior_mean_factor(prior, seen) @ seen.directions


@pytest.mark.parametrize("prior", [PRIOR, NOISE_FREE])
def test_mean_equals_brute_force_conditioning(prior: Prior) -> None:
    _, s, y = random_pairs(6, 3)
    y = y + torch.randn_like(y)
    seen = seen_from(s, y)
    expected = dense.conditioned_mean(prior.base, prior.scale, prior.noise, s, y)
    torch.testing.assert_close(dense_mean(prior, seen), expected, rtol=0, atol=1e-12)
    v = torch.randn(6, dtype=F64)
    torch.testing.assert_close(posterior_product(prior, seen, v), expected @ v)


def test_noise_free_mean_reproduces_the_products() -> None:
    _, s, y = random_pairs(12, 4)
    mean = dense_mean(NOISE_FREE, seen_from(s, y))
    torch.testing.assert_close(mean @ s, y, rtol=0, atol=1e-12)


def test_as_many_directions_as_parameters_recover_the_hessian() -> None:
    hessian, s, y = random_pairs(8, 8)
    mean = dense_mean(NOISE_FREE, seen_from(s, y))
    torch.testing.assert_close(mean, hessian, rtol=0, atol=1e-10)


@pytest.mark.parametrize("prior", [PRIOR, NOISE_FREE])
def test_inverse_times_vector(prior: Prior) -> None:
    _, s, y = random_pairs(9, 4)
    seen = seen_from(s, y)
    g = torch.randn(9, dtype=F64)
    x = posterior_solve(prior, seen, g)
    torch.testing.assert_close(posterior_product(prior, seen, x), g, rtol=0, atol=1e-11)
    torch.testing.assert_close(x, torch.linalg.solve(dense_mean(prior, seen), g))


def test_inverse_without_observations_is_the_prior() -> None:
    g = torch.randn(4)
    torch.testing.assert_close(posterior_solve(PRIOR, Observations.none(g), g), g / 1.7)


@pytest.mark.parametrize("prior", [PRIOR, NOISE_FREE])
def test_symmetric_mean_equals_least_squares_over_symmetric_matrices(prior: Prior) -> None:
    hessian, _, _ = random_pairs(7, 1, symmetric=False)
    q = orthonormalize(torch.randn(7, 3, dtype=F64))
    y = hessian @ q  # products of an asymmetric matrix: noise
    left, right = symmetric_mean_factor(prior, seen_from(q, y))
    mean = prior.base * torch.eye(7, dtype=F64) + (left @ right.mT + right @ left.mT) / 2
    expected = dense.symmetric_mean(prior.base, prior.ratio, q, y)
    torch.testing.assert_close(mean, expected, rtol=0, atol=1e-12)


def test_symmetric_mean_of_any_directions_without_noise() -> None:
    _, s, y = random_pairs(7, 3)
    left, right = symmetric_mean_factor(NOISE_FREE, seen_from(s, y))
    mean = 1.7 * torch.eye(7, dtype=F64) + (left @ right.mT + right @ left.mT) / 2
    expected = dense.symmetric_mean(1.7, 0.0, s, y)
    torch.testing.assert_close(mean @ s, y, rtol=0, atol=1e-11)
    distance = torch.linalg.matrix_norm
    eye = 1.7 * torch.eye(7, dtype=F64)
    assert distance(mean - eye) <= distance(expected - eye) + 1e-9  # closest to the prior


def test_variance_equals_brute_force_covariance() -> None:
    n = 5
    _, s, y = random_pairs(n, 2)
    covariance = dense.conditioned_covariance(PRIOR.scale, PRIOR.noise, s)
    v = torch.randn(n, dtype=F64)
    map_v = torch.kron(torch.eye(n, dtype=F64), (v / v.norm()).unsqueeze(0))
    expected = (map_v @ covariance @ map_v.mT).diagonal() / PRIOR.scale**2
    share = variance_share(PRIOR, seen_from(s, y), v)
    torch.testing.assert_close(expected, torch.full((n,), share, dtype=F64), rtol=0, atol=1e-12)


def test_variance_share_is_one_outside_and_zero_inside_without_noise() -> None:
    s = torch.eye(6, dtype=F64)[:, :2]
    seen = seen_from(s, s)
    assert variance_share(NOISE_FREE, seen, torch.eye(6, dtype=F64)[5]) == 1
    assert variance_share(NOISE_FREE, seen, s[:, 0] - 3 * s[:, 1]) < 1e-12


def test_evidence_equals_the_density_of_all_entries() -> None:
    _, s, y = random_pairs(5, 3)
    s = s / s.norm(dim=0)
    y = y / 3
    expected = dense.log_density(PRIOR.base, PRIOR.scale, PRIOR.noise, s, y)
    assert log_evidence(PRIOR, seen_from(s, y)) == pytest.approx(float(expected), rel=1e-12)


def test_best_scale_maximises_the_evidence() -> None:
    _, s, y = random_pairs(8, 3)
    seen = seen_from(s, y)
    best = best_scale(PRIOR, seen)
    root_ratio = math.sqrt(PRIOR.ratio)

    def at(scale: float) -> float:
        return log_evidence(Prior(PRIOR.base, scale, root_ratio * scale), seen)

    assert at(best) >= max(at(best * 1.001), at(best / 1.001))


def test_predictive_statistic_is_chi_squared_under_the_model() -> None:
    n, draws = 20, 250
    statistics = []
    for _ in range(draws):
        hessian = PRIOR.base * torch.eye(n, dtype=F64) + PRIOR.scale * torch.randn(n, n, dtype=F64)
        s = torch.randn(n, 4, dtype=F64)
        y = hessian @ s + PRIOR.noise * s.norm(dim=0) * torch.randn(n, 4, dtype=F64)
        seen = seen_from(s[:, :3], y[:, :3])
        statistics.append(predictive_statistic(PRIOR, seen, s[:, 3], y[:, 3]))
    values = torch.tensor(statistics)
    assert float(values.mean()) == pytest.approx(n, abs=4 * math.sqrt(2 * n / draws))
    assert float(values.var()) == pytest.approx(2 * n, rel=0.35)


def test_directions_span_the_krylov_space_and_recover_the_hessian() -> None:
    n = 6
    root = torch.randn(n, n, dtype=F64)
    hessian, g = root @ root.mT + torch.eye(n, dtype=F64), torch.randn(n, dtype=F64)
    prior = Prior(float(hessian.trace() / n), 1.0, 0.0)
    seen = Observations.none(g)
    w = torch.zeros(n, dtype=F64)
    for m in range(1, n + 1):
        s = -posterior_solve(prior, seen, hessian @ w + g)
        w = w + 0.1 * s
        seen = observe(seen, s, hessian @ s)
        krylov = orthonormalize(
            torch.stack([torch.linalg.matrix_power(hessian, k) @ g for k in range(m)], dim=1)
        )
        outside = seen.directions.mT - krylov @ (krylov.mT @ seen.directions.mT)
        assert float(outside.norm()) < 1e-8
    torch.testing.assert_close(dense_mean(prior, seen), hessian, rtol=0, atol=1e-6)


@pytest.mark.parametrize("symmetric", [True, False])
def test_whole_pairs_are_those_of_the_dense_symmetrised_mean(symmetric: bool) -> None:
    _, s, y = random_pairs(20, 4)
    seen = seen_from(s, y)
    if symmetric:
        left, right = symmetric_mean_factor(NOISE_FREE, seen)
        mean = 1.7 * torch.eye(20, dtype=F64) + (left @ right.mT + right @ left.mT) / 2
    else:
        mean = dense_mean(NOISE_FREE, seen)
        mean = (mean + mean.mT) / 2
    pairs = whole_pairs(NOISE_FREE, seen, 3, symmetric)
    values = torch.linalg.eigvalsh(mean)
    order = values.abs().argsort(descending=True)[:3]
    torch.testing.assert_close(pairs.values, values[order])
    torch.testing.assert_close(mean @ pairs.basis, pairs.basis * pairs.values)


def test_observed_pairs_are_those_of_the_hessian_within_the_directions() -> None:
    hessian, s, y = random_pairs(20, 5)
    values, rows, deviations = observed_pairs(NOISE_FREE, seen_from(s, y), 5)
    q = orthonormalize(s)
    inside = torch.linalg.eigvalsh(q.mT @ hessian @ q)
    torch.testing.assert_close(values.sort().values, inside)
    torch.testing.assert_close(rows @ hessian @ rows.mT, values.diag())
    assert float(deviations.max()) < 1e-6


def test_deviations_of_observed_pairs_are_those_of_the_posterior() -> None:
    _, s, y = random_pairs(5, 2)
    covariance = dense.conditioned_covariance(PRIOR.scale, PRIOR.noise, s)
    _, rows, deviations = observed_pairs(PRIOR, seen_from(s, y), 2)
    for u, deviation in zip(rows, deviations, strict=True):
        form = torch.kron(u, u)
        torch.testing.assert_close(deviation**2, form @ covariance @ form)


@pytest.mark.parametrize("prior", [PRIOR, NOISE_FREE])
def test_the_next_direction_is_the_new_part_of_the_leading_eigenvectors_product(
    prior: Prior,
) -> None:
    _, s, y = random_pairs(12, 4)
    seen = seen_from(s, y)
    direction, share = next_direction(prior, seen)
    leading = observed_pairs(prior, seen, 1)[1][0]
    image = posterior_product(prior, seen, leading)
    inside = s @ torch.linalg.pinv(s)
    expected = image - inside @ image
    assert direction is not None
    torch.testing.assert_close(direction, expected / expected.norm())
    assert share == pytest.approx(variance_share(prior, seen, image), abs=1e-9)


def test_next_directions_span_the_krylov_space_without_noise_and_then_end() -> None:
    n = 7
    root = torch.randn(n, n, dtype=F64)
    hessian, g = root @ root.mT, torch.randn(n, dtype=F64)
    seen, krylov = observe(Observations.none(g), g, hessian @ g), [g]
    for m in range(1, n):
        direction, _ = next_direction(NOISE_FREE, seen)
        assert direction is not None
        krylov.append(hessian @ krylov[-1])
        basis = orthonormalize(torch.stack(krylov, dim=1))
        assert float((basis @ (basis.mT @ direction) - direction).norm()) < 1e-5, m
        seen = observe(seen, direction, hessian @ direction)
    values = observed_pairs(NOISE_FREE, seen, n)[0]
    torch.testing.assert_close(values.sort().values, torch.linalg.eigvalsh(hessian))
    assert next_direction(NOISE_FREE, seen)[0] is None


def test_the_next_direction_turns_to_another_pair_where_the_leading_one_is_exact() -> None:
    hessian = torch.diag(torch.tensor([9.0, 2.0, 1.0], dtype=F64))
    seen = Observations.none(hessian[0])
    for s in (torch.eye(3, dtype=F64)[0], torch.tensor([0.0, 1.0, 1.0], dtype=F64)):
        seen = observe(seen, s, hessian @ s)
    direction, _ = next_direction(NOISE_FREE, seen)
    assert direction is not None
    expected = torch.tensor([0.0, 1.0, -1.0], dtype=F64) / math.sqrt(2)
    assert float((direction @ expected).abs()) == pytest.approx(1)


def test_preconditioned_hessian_has_unit_eigenvalues_for_exact_pairs() -> None:
    q = orthonormalize(torch.randn(12, 12, dtype=F64))
    spectrum = torch.cat([torch.tensor([50.0, 20.0, 8.0]), torch.linspace(0.5, 2, 9)]).double()
    hessian = q @ (spectrum.unsqueeze(1) * q.mT)
    half = relative_power(spectrum[:3], 1.0, -0.5)
    p = apply_low_rank(q[:, :3], half, torch.eye(12, dtype=F64))
    values = torch.linalg.eigvalsh(p @ hessian @ p)
    assert int(((values - 1).abs() < 1e-12).sum()) == 3
    expected = torch.cat([torch.ones(3), torch.linspace(0.5, 2, 9)]).double().sort().values
    torch.testing.assert_close(values, expected)


def sums_of(pairs: list[tuple[torch.Tensor, torch.Tensor]]) -> CurvatureSums:
    sums = CurvatureSums()
    for s, y in pairs:
        sums = add_pair(sums, s, y)
    return sums


@pytest.mark.parametrize("c", [1e-20, 0.03, 1.0, 38.0, 1e15])
def test_multiple_of_the_identity_is_recovered(c: float) -> None:
    gradients = [torch.randn(30) for _ in range(4)]
    sums = sums_of([(g, c * g) for g in gradients])
    total = float(sum(gradients).square().sum())
    prior = estimate_prior(sums, total, 30)
    assert prior is not None
    assert prior.base == pytest.approx(c, rel=1e-5)
    assert prior.scale == pytest.approx(c, rel=1e-5)
    expected = float(torch.stack(gradients).var(dim=0).sum() / 30)
    assert prior.noise**2 == pytest.approx(expected, rel=1e-4)
    assert prior.spread < 1e-5


@example(n=1, m=1, exponent=-18, kind="rank one", noise=0.0, seed=65536)
@settings(max_examples=200, deadline=None)
@given(
    n=st.integers(1, 12),
    m=st.integers(1, 6),
    exponent=st.integers(-18, 18),
    kind=st.sampled_from(["positive", "indefinite", "zero", "rank one", "duplicate"]),
    noise=st.sampled_from([0.0, 0.1, 10.0]),
    seed=st.integers(0, 2**16),
)
def test_float32_is_finite_and_close_to_float64(
    n: int, m: int, exponent: int, kind: str, noise: float, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    root = torch.randn(n, n, dtype=F64, generator=generator)
    hessian = {
        "positive": root @ root.mT + torch.eye(n),
        "indefinite": root + root.mT,
        "zero": torch.zeros(n, n, dtype=F64),
        "rank one": root[:, :1] @ root[:, :1].mT,
        "duplicate": root @ root.mT + torch.eye(n),
    }[kind] * 10.0**exponent
    s = torch.randn(n, m, dtype=F64, generator=generator)
    if kind == "duplicate":
        s[:] = s[:, :1]
    s = s.float().double()
    y = (hessian @ s).float()
    seen = seen_from(s.float(), y)
    sums = sums_of([(s[:, i].float(), y[:, i]) for i in range(m)])
    rate = construct_rate(sums)
    assert (rate is None) == (kind == "zero")
    if rate is not None:
        assert rate > 0
        assert math.isfinite(rate)
    prior = estimate_prior(sums, 0.0, n) or Prior(1.0, 1.0, 0.0)
    prior = Prior(prior.base, prior.scale, noise * prior.scale)
    for found in (*observed_pairs(prior, seen, 2), whole_pairs(prior, seen, 2).basis):
        assert bool(found.isfinite().all())
    g = torch.randn(n, generator=generator)
    direction, share = next_direction(prior, seen)
    assert 0 <= share <= 1
    assert direction is None or float(direction.norm()) == pytest.approx(1, abs=1e-5)
    assert bool(posterior_solve(prior, seen, g).isfinite().all())
    assert 0 <= variance_share(prior, seen, g) <= 1
    if noise and kind == "positive":
        largest = float(observed_pairs(prior, seen_from(s, y.double()), 1)[0].abs())
        assert float(observed_pairs(prior, seen, 1)[0].abs()) == pytest.approx(largest, rel=2e-3)


def test_negative_curvature_gives_a_positive_rate() -> None:
    sums = sums_of([(torch.ones(3), torch.full((3,), -4.0))])
    assert construct_rate(sums) == pytest.approx(0.25)


def test_cross_batch_rate_is_not_shrunk_by_noise() -> None:
    generator = torch.Generator().manual_seed(3)
    n, true_rate = 2000, 0.0289
    sums = CurvatureSums()
    for _ in range(200):
        s = torch.randn(n, generator=generator)
        y1, y2 = (s / true_rate + 60 * torch.randn(n, generator=generator) for _ in range(2))
        sums = add_pair(sums, s, y1)
        sums = CurvatureSums(
            **{
                **sums.__dict__,
                "cross_sy": sums.cross_sy + safe_dot(s, y1),
                "cross_yy": sums.cross_yy + safe_dot(y1, y2),
            }
        )
    same = CurvatureSums(**{**sums.__dict__, "cross_sy": 0.0, "cross_yy": 0.0})
    assert construct_rate(sums) == pytest.approx(true_rate, rel=0.02)
    assert construct_rate(same) < 0.6 * true_rate


def test_preconditioned_rate_equals_the_dense_computation() -> None:
    _, s, y = random_pairs(10, 4)
    y = y + 20 * s
    basis = orthonormalize(torch.randn(10, 2, dtype=F64))
    c = torch.tensor([-0.5, -0.9], dtype=F64)
    squared = apply_low_rank(basis, c, torch.eye(10, dtype=F64))
    unit, image = s / s.norm(dim=0), y / s.norm(dim=0)
    expected = (unit * image).sum() / (image * (squared @ image)).sum()
    seen = seen_from(s, y)
    assert preconditioned_rate(seen, basis.mT, c, math.inf) == pytest.approx(float(expected))
    assert preconditioned_rate(seen, basis.mT, c, 1e-9) == 1e-9


def test_inner_products_survive_float32_range() -> None:
    assert safe_dot(torch.full((4,), 1e20), torch.full((4,), 1e20)) == pytest.approx(4e40, rel=1e-6)
    assert safe_dot(torch.full((4,), 1e-25), torch.full((4,), 1e-20)) == pytest.approx(
        4e-45, rel=1e-6
    )


def test_zero_direction_is_refused() -> None:
    with pytest.raises(ValueError, match="positive finite length"):
        observe(Observations.none(torch.zeros(3)), torch.zeros(3), torch.ones(3))


def preconditioned(n: int) -> tuple[torch.Tensor, ...]:
    hessian, _, _ = random_pairs(n, 1)
    hessian = hessian @ hessian.mT
    basis = orthonormalize(torch.randn(n, 2, dtype=F64))
    c = torch.tensor([-0.5, -0.9], dtype=F64)
    squared = apply_low_rank(basis, c, torch.eye(n, dtype=F64))
    return hessian, basis, c, squared


def test_power_iterations_near_the_largest_curvature_left_from_below() -> None:
    hessian, basis, c, squared = preconditioned(10)
    values, vectors = torch.linalg.eigh(squared)
    root = vectors @ torch.diag(values.sqrt()) @ vectors.mT
    largest = float(torch.linalg.eigvalsh(root @ hessian @ root)[-1])
    v, gains = torch.randn(10, dtype=F64), []
    for _ in range(200):
        gain, v = remaining_curvature(basis, c, v, hessian @ v)
        gains.append(gain)
    assert gains == sorted(gains) or max(gains) == pytest.approx(gains[-1], rel=1e-12)
    assert gains[-1] == pytest.approx(largest, rel=1e-6)
    assert remaining_curvature(basis, c, v, torch.zeros(10, dtype=F64))[0] == 0


def test_noise_between_batches_and_momentum_lower_the_rate() -> None:
    hessian, basis, c, squared = preconditioned(10)
    v = torch.randn(10, dtype=F64)
    y = hessian @ v
    clean = curvature_with_noise(basis, c, v, y, y, 0.9)
    assert clean == pytest.approx(float(y @ squared @ y / (v @ y)))
    gap = torch.randn(10, dtype=F64)
    gap = gap - v * (v @ gap) / (v @ v)
    expected = float((y - gap) @ squared @ (y + gap) + 20 * gap @ squared @ gap) / float(v @ y)
    assert curvature_with_noise(basis, c, v, y - gap, y + gap, 0.9) == pytest.approx(expected)
    assert curvature_with_noise(basis, c, v, -y, -y, 0.0) == 0
