"""Weights, data order, and augmentation and dropout have generators of their own."""

from __future__ import annotations

import dataclasses
from functools import partial

import pytest
import torch
from small_problems import STEPS, TRAIN, Linear, Watched, noisy_splits, small, train
from torch import Tensor

from optiscope.problems import Problem
from optiscope.train import loop

noisy = dataclasses.replace(small, data=noisy_splits)
dropping = dataclasses.replace(small, make_model=partial(Linear, 0.5))


def equal(these: list[Tensor], those: list[Tensor]) -> bool:
    return len(these) == len(those) and all(map(torch.equal, these, those))


def watch(problem: Problem, *arguments: object, **fields: object) -> Watched:
    watched = Watched(problem)
    train(watched.problem, *arguments, **fields)  # type: ignore[arg-type]
    return watched


@pytest.mark.parametrize("problem", [small, noisy, dropping], ids=["plain", "augmented", "dropout"])
def test_two_algorithms_with_one_seed_start_alike_and_see_the_same_batches(
    problem: Problem,
) -> None:
    sgd = watch(problem, "sgd", {"lr": 0.5}, schedule={"name": "linear_decay"})
    adam = watch(problem, "adam", {"lr": 0.01}, clip={"norm": 0.1})
    assert equal(sgd.initial[0], adam.initial[0])
    assert equal(sgd.inputs, adam.inputs)
    assert not equal(sgd.parameters, adam.parameters)


def test_a_run_is_repeated_bit_for_bit() -> None:
    assert equal(watch(dropping).parameters, watch(dropping).parameters)


def test_another_seed_changes_weights_order_and_augmentation() -> None:
    one, other = watch(noisy, seed=5), watch(noisy, seed=6)
    assert not equal(one.initial[0], other.initial[0])
    assert one.batches != other.batches
    noise = [
        watched.inputs[0][:, 1]
        - noisy_splits(None).train.select(torch.tensor(watched.batches[0])).inputs[:, 1]
        for watched in (one, other)
    ]
    assert not torch.allclose(noise[0], noise[1])


def test_augmentation_and_dropout_leave_weights_and_order_alone() -> None:
    plain = watch(small)
    for other in (watch(noisy), watch(dropping)):
        assert equal(other.initial[0], plain.initial[0])
        assert other.batches == plain.batches
        assert not equal(other.parameters, plain.parameters)


def test_a_bigger_model_sees_the_same_batches() -> None:
    wide = dataclasses.replace(
        small, make_model=lambda: torch.nn.Sequential(Linear(), torch.nn.Linear(3, 3))
    )
    assert watch(wide).batches == watch(small).batches


def test_each_epoch_is_a_fresh_order_without_repeats_and_drops_the_rest() -> None:
    batches = watch(small).batches
    assert len(batches) == 3 * STEPS
    epochs = [[n for b in batches[i * STEPS : (i + 1) * STEPS] for n in b] for i in range(3)]
    for epoch in epochs:
        assert len(set(epoch)) == len(epoch) == STEPS * small.batch_size
        assert set(epoch) <= set(range(TRAIN))
    assert epochs[0] != epochs[1]
    assert set(epochs[0]) != set(epochs[1])


@pytest.mark.parametrize("problem", [small, noisy, dropping], ids=["plain", "augmented", "dropout"])
def test_evaluation_does_not_disturb_the_run(
    problem: Problem, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed = watch(problem)

    def greedy(*_: object) -> dict[str, float]:
        torch.rand(1000)
        return {"loss": 1.0, "accuracy": 0.5}

    monkeypatch.setattr(loop, "evaluate", greedy)
    assert equal(watch(problem).parameters, undisturbed.parameters)


def test_a_model_with_noise_in_evaluation_is_evaluated_with_the_same_noise_each_time() -> None:
    class Noisy(Linear):
        def forward(self, inputs: Tensor) -> Tensor:
            outputs = super().forward(inputs)
            return outputs if self.training else outputs + torch.randn(outputs.shape)

    problem = dataclasses.replace(small, make_model=Noisy)
    run = train(problem, "sgd", {"lr": 0.0})
    for split in ("train", "valid", "test"):
        assert len(set(run.curve(split, "loss")[1])) == 1


def test_global_generator_and_threads_are_restored() -> None:
    torch.manual_seed(11)
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    train(dropping, threads=threads + 1)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads


def test_threads_are_those_of_the_trial_while_it_runs() -> None:
    found: list[int] = []

    def make_model() -> Linear:
        found.append(torch.get_num_threads())
        return Linear()

    run = train(dataclasses.replace(small, make_model=make_model), threads=2)
    assert found == [2]
    assert run.environment["threads"] == 2


def test_generator_and_threads_are_restored_after_a_trial_that_cannot_begin() -> None:
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    with pytest.raises(loop.TrialError):
        train(small, batch_size=TRAIN + 1, threads=threads + 1)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads
