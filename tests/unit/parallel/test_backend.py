"""A policy that cannot be pickled, or a process that may have no children, is refused before a process is started."""

from __future__ import annotations

import multiprocessing
from multiprocessing.process import BaseProcess

import pytest
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from keisei_lightning.errors import ConfigError
from keisei_lightning.games import game_factory, make_game
from keisei_lightning.models import ActorCritic, build_network
from keisei_lightning.parallel import SelfPlayCollector
from keisei_lightning.system.limits import WorkerDemand, worker_errors


@pytest.fixture(autouse=True)
def no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: object) -> None:
        raise AssertionError("a process was started")

    monkeypatch.setattr(BaseProcess, "start", refuse)


def collector(network: nn.Module, mode: str) -> SelfPlayCollector:
    return SelfPlayCollector(
        game_factory("tic_tac_toe"),
        ActorCritic(network),
        mode=mode,  # type: ignore[arg-type]
        num_workers=1,
        games_per_worker=2,
        plies_per_rollout=4,
    )


def network() -> nn.Module:
    return build_network(make_game("tic_tac_toe", 1).spec, kind="mlp", num_blocks=1, channels=8)


@pytest.mark.parametrize("mode", ["workers", "central"])
def test_a_parametrised_network_cannot_be_sent_to_worker_processes(mode: str) -> None:
    parametrised = network()
    weight_norm(next(layer for layer in parametrised.modules() if isinstance(layer, nn.Linear)))
    with (
        collector(parametrised, mode) as played,
        pytest.raises(
            ConfigError,
            match=r"^the game or the policy cannot be sent to worker processes, since it cannot be pickled "
            r"\(RuntimeError: Serialization of parametrized modules .*\); must be picklable by cloudpickle, or ",
        ),
    ):
        next(iter(played))


def test_it_can_be_played_with_in_this_process() -> None:
    parametrised = network()
    weight_norm(next(layer for layer in parametrised.modules() if isinstance(layer, nn.Linear)))
    with collector(parametrised, "serial") as played:
        assert next(iter(played)).shape == (2, 4)


class TestDaemonicProcess:
    """A worker of multiprocessing.Pool, say."""

    @pytest.fixture(autouse=True)
    def daemonic(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(multiprocessing.current_process()._config, "daemon", True)  # type: ignore[attr-defined]

    @pytest.mark.parametrize("mode", ["workers", "central"])
    def test_it_may_have_no_workers(self, mode: str) -> None:
        with pytest.raises(ConfigError, match=rf"^mode={mode}: must be serial here: a daemonic process, such as a wor"):
            collector(network(), mode)
        (line,) = worker_errors(WorkerDemand(num_workers=1, is_central=mode == "central"), prefix="parallel.")
        assert line.startswith(f"parallel.mode={mode}: must be serial here")

    def test_it_may_play_by_itself(self) -> None:
        assert worker_errors(WorkerDemand(num_workers=1, in_processes=False)) == []
        with collector(network(), "serial") as played:
            assert next(iter(played)).shape == (2, 4)
