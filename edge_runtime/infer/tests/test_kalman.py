"""Kalman smoothing: follows the drift, is causal, holds at the cap, and says what it refuses."""

from __future__ import annotations

import numpy as np
import pytest

from edge_runtime.infer.kalman import Noise, State, noise_of, smooth, step

NOISE = Noise(0.05, 100.0)


def test_it_scatters_less_than_the_answers_and_has_no_lag() -> None:
    rng = np.random.default_rng(0)
    truth = np.arange(100.0, 0.0, -1.0)
    answers = truth + rng.normal(0, 10, len(truth))
    smoothed = np.array(smooth(answers.tolist(), NOISE, 125.0), float)
    error = smoothed[30:] - truth[30:]
    assert np.sqrt((error**2).mean()) < 0.5 * np.sqrt(((answers - truth)[30:] ** 2).mean())
    assert abs(error.mean()) < 2.0


def test_the_noise_of_a_cap_steadies_the_steps() -> None:
    rng = np.random.default_rng(1)
    answers = np.arange(100.0, 0.0, -1.0) + rng.normal(0, 2, 100)
    smoothed = np.array(smooth(answers.tolist(), noise_of(125.0), 125.0), float)
    assert np.diff(smoothed).std() < 0.5 * np.diff(answers).std()


def test_at_the_cap_it_does_not_drift() -> None:
    assert smooth([125.0] * 200, NOISE, 125.0)[-1] == 125.0


def test_without_answers_the_life_runs_out_and_stops_at_zero() -> None:
    state: State | None = State(3.0, 1.0)
    lives = []
    for _ in range(5):
        state = step(state, None, NOISE, 125.0)
        assert state is not None
        lives.append(state.life)
    assert lives == [2.0, 1.0, 0.0, 0.0, 0.0]


def test_before_the_first_answer_there_is_nothing() -> None:
    assert smooth([None, None, 50.0], NOISE, 125.0) == [None, None, 50.0]


def test_later_answers_change_nothing_before() -> None:
    first = smooth([80.0, 70.0, 75.0, 10.0], NOISE, 125.0)
    second = smooth([80.0, 70.0, 75.0, 120.0], NOISE, 125.0)
    assert first[:3] == second[:3]


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match="variances > 0"):
        step(None, 1.0, Noise(0.0, 1.0), 125.0)
    with pytest.raises(ValueError, match="finite"):
        step(None, float("nan"), NOISE, 125.0)
