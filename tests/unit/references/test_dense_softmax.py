"""The policy over legal moves against a softmax over all labels, written out in NumPy and double precision."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from keisei_lightning.models import LegalCategorical, pack_mask

CASES = 60
Array = NDArray[np.float64]


def softmax(logits: Array, legal: NDArray[np.bool_]) -> Array:
    """Probabilities [R, A]; 0 for what is not legal, and in a row where nothing is."""
    with np.errstate(invalid="ignore"):
        weights = np.where(legal, np.exp(logits - np.where(legal, logits, -np.inf).max(1, keepdims=True)), 0.0)
    total = weights.sum(1, keepdims=True)
    return np.divide(weights, total, out=np.zeros_like(weights), where=total > 0)


def log_prob_and_gradient(probability: Array, action: NDArray[np.int64]) -> tuple[Array, Array]:
    """log p[a] of each row, and its gradient in the row's logits, ``(label == a) - p``."""
    rows = np.arange(len(action))
    sits_out = probability.sum(1) == 0
    chosen = np.where(sits_out, 1.0, probability[rows, action])
    gradient = -probability
    gradient[rows, action] += 1.0
    gradient[sits_out] = 0.0
    return np.log(chosen), gradient


def entropy_and_gradient(probability: Array) -> tuple[Array, Array]:
    """H = -sum p log p of each row, and its gradient in the row's logits, ``-p (log p + H)``."""
    log_probability = np.log(np.where(probability > 0, probability, 1.0))
    entropy = -(probability * log_probability).sum(1)
    return entropy, -probability * (log_probability + entropy[:, None])


def random_rows(rng: np.random.Generator) -> tuple[Array, NDArray[np.bool_], NDArray[np.int64]]:
    """Logits, legal moves (none at all in some rows) and a legal action of each row."""
    num_rows, num_actions = int(rng.integers(1, 40)), int(rng.integers(1, 120))
    logits = rng.normal(scale=rng.choice([0.1, 1.0, 5.0]), size=(num_rows, num_actions)).astype(np.float32)
    legal = rng.random((num_rows, num_actions)) < rng.choice([0.05, 0.3, 1.0])
    legal[rng.random(num_rows) < 0.1] = False
    legal[0, 0] = True
    action = np.array([rng.choice(np.flatnonzero(row)) if row.any() else 0 for row in legal])
    return logits.astype(np.float64), legal, action


@pytest.mark.parametrize("dense", [False, True], ids=["legal moves alone", "all labels"])
@pytest.mark.parametrize("packed", [False, True], ids=["bool mask", "packed mask"])
def test_log_probabilities_entropies_and_their_gradients_are_those_of_a_dense_softmax(
    dense: bool, packed: bool
) -> None:
    rng = np.random.default_rng(20)
    for _ in range(CASES):
        logits, legal, action = random_rows(rng)
        probability = softmax(logits, legal)
        mask = torch.from_numpy(legal)
        for expected, gradient, name in (
            (*log_prob_and_gradient(probability, action), "log_prob"),
            (*entropy_and_gradient(probability), "entropy"),
        ):
            leaf = torch.from_numpy(logits).float().requires_grad_()
            distribution = LegalCategorical(leaf, pack_mask(mask) if packed else mask, dense=dense)
            ours = distribution.log_prob(torch.from_numpy(action)) if name == "log_prob" else distribution.entropy()
            ours.sum().backward()
            assert leaf.grad is not None
            np.testing.assert_allclose(ours.detach().numpy(), expected, atol=2e-6, rtol=2e-6, err_msg=name)
            np.testing.assert_allclose(leaf.grad.numpy(), gradient, atol=2e-6, rtol=2e-6, err_msg=name)
            assert not leaf.grad[~mask].any()


@pytest.mark.parametrize("dense", [False, True], ids=["legal moves alone", "all labels"])
def test_the_probabilities_of_all_legal_actions_are_those_of_a_dense_softmax(dense: bool) -> None:
    rng = np.random.default_rng(21)
    for _ in range(CASES):
        logits, legal, _ = random_rows(rng)
        distribution = LegalCategorical(torch.from_numpy(logits).float(), torch.from_numpy(legal), dense=dense)
        labels = torch.arange(legal.shape[1]).unsqueeze(1).expand(-1, len(legal))
        ours = distribution.log_prob(labels).exp().T.double().numpy()
        plays = legal.any(1)
        np.testing.assert_allclose(ours[plays], softmax(logits, legal)[plays], atol=1e-6)
        greedy = distribution.mode.numpy()
        assert (greedy[~plays] == -1).all()
        best = np.where(legal, logits, -np.inf).argmax(1)
        assert (greedy[plays] == best[plays]).all()


def test_the_gradients_of_the_reference_are_those_of_finite_differences() -> None:
    rng, step = np.random.default_rng(22), 1e-6
    logits, legal = rng.normal(size=(3, 5)), rng.random((3, 5)) < 0.7
    legal[:, 0] = True
    action = np.zeros(3, np.int64)
    for value, gradient in (
        (lambda p: log_prob_and_gradient(p, action)[0].sum(), log_prob_and_gradient(softmax(logits, legal), action)[1]),
        (lambda p: entropy_and_gradient(p)[0].sum(), entropy_and_gradient(softmax(logits, legal))[1]),
    ):
        for place in np.ndindex(logits.shape):
            change = np.zeros_like(logits)
            change[place] = step
            slope = (value(softmax(logits + change, legal)) - value(softmax(logits - change, legal))) / (2 * step)
            assert slope == pytest.approx(gradient[place], abs=1e-8)
