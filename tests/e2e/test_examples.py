"""Every example is run as a user would run it, in an empty folder; what it prints and what it leaves must agree."""

from __future__ import annotations

import csv
import importlib.util
import inspect
import math
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from runs import PATIENCE_S, ROOT

from keisei_lightning import (
    ActorCritic,
    PolicyPlayer,
    RandomPlayer,
    build_network,
    game_factory,
    load_policy,
    make_game,
    play_match,
)

EXAMPLES = ROOT / "examples"
SCORE = re.compile(
    r"(\S+) scores [\d.]+% against (\S+) \(95 % interval ([\d.]+)% to [\d.]+%; "
    r"(\d+) wins, (\d+) draws, (\d+) losses\)"
)


def run_example(name: str, *words: str, folder: Path) -> str:
    """Standard output of an example that ran in ``folder``, on one core."""
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / f"{name}.py"), *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert {path.name for path in folder.iterdir()} == {"results"}
    assert {path.name for path in (folder / "results").iterdir()} == {name}
    return done.stdout


def scores(output: str) -> list[tuple[str, str, float, int]]:
    """Player, opponent, lower end of the interval (%) and number of games of each match that an example prints."""
    return [
        (player, opponent, float(low), sum(map(int, games))) for player, opponent, low, *games in SCORE.findall(output)
    ]


def saved(path: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = torch.load(path, weights_only=True)
    return loaded


@pytest.fixture
def module(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """An example as a module of this process; it does nothing but define and register."""
    monkeypatch.setattr("keisei_lightning.games.registry.GAMES._registered", {})
    spec = importlib.util.spec_from_file_location(request.param, EXAMPLES / f"{request.param}.py")
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, request.param, loaded)
    spec.loader.exec_module(loaded)
    return loaded


def test_the_list_of_examples_is_complete_and_narrow() -> None:
    text = (EXAMPLES / "README.md").read_text()
    scripts = {path.name for path in EXAMPLES.glob("*.py")}
    assert scripts == {
        *("own_encoder.py", "own_game.py", "own_network.py", "own_trainer.py", "ray_tune.py", "torchrl_loop.py")
    }
    page_of = {"ray_tune.py": "sweep"}
    pages = {f"../docs/how-to/{page_of.get(name, name.removesuffix('.py'))}.md" for name in (*scripts, "own_hydra_app")}
    assert set(re.findall(r"\]\((\S+?)\)", text)) == {*scripts, "own_hydra_app"} | pages
    assert max(map(len, text.splitlines())) <= 140


@pytest.mark.parametrize("module", ["own_game"], indirect=True)
def test_the_own_game_has_at_most_60_lines(module: ModuleType) -> None:
    lines = inspect.getsource(module.Domineering).splitlines()
    assert len([line for line in lines if line.strip()]) <= 60


@pytest.mark.parametrize("module", ["own_game"], indirect=True)
@pytest.mark.parametrize(
    ("position", "wins"),
    [
        ("0:" + "." * 4, True),
        ("0:" + "." * 9, True),
        ("0:" + "." * 16, True),
        ("1:.|..|....", False),  # seat 1 has room for one domino, in the last row; seat 0 for more
        ("1:|..|.....", True),  # room in every row
    ],
)
def test_perfect_play_of_the_own_game_ends_as_it_is_known_to(module: ModuleType, position: str, wins: bool) -> None:
    # Square boards up to 4 x 4 are won by whoever begins: D. M. Breuker, J. W. H. M. Uiterwijk, H. J. van den Herik
    # (2000), "Solving 8 x 8 Domineering", Theoretical Computer Science 230.
    size = math.isqrt(len(position) - 2)
    game = make_game("domineering", 1, size=size)
    legal, squares = np.zeros((1, game.spec.mask_bytes), dtype=np.uint8), np.zeros((1, 1, size, size), dtype=np.uint8)
    known: dict[bytes, bool] = {}

    def mover_wins(position: str) -> bool:
        game.set_position(0, position)
        game.observe(squares, legal, np.zeros(1, dtype=np.int8))
        seen = squares.tobytes()  # all that matters to the mover
        if seen not in known:
            known[seen] = any(
                move_wins(position, action) for action in np.flatnonzero(np.unpackbits(legal[0])).tolist()
            )
        return known[seen]

    def move_wins(position: str, action: int) -> bool:
        game.set_position(0, position)
        result = game.step(np.array([action]))
        assert result.reward[0] == result.terminated[0]
        return bool(result.terminated[0]) or not mover_wins(game.position(0))

    assert mover_wins(position) is wins


@pytest.mark.process
@pytest.mark.slow
def test_the_own_game_is_learned_and_resumes_at_the_step_where_it_stopped(tmp_path: Path) -> None:
    output = run_example("own_game", "--size=5", "--epochs", "2", "6", "--games=200", folder=tmp_path)
    starts, stops = (list(map(int, re.findall(rf"{word} at step (\d+)", output))) for word in ("starts", "stops"))
    assert starts == [0, stops[0]]
    assert stops[1] == 3 * stops[0] > 0  # 2 and 6 epochs of as many steps each

    folder = tmp_path / "results" / "own_game"
    for epochs, step in zip((2, 6), stops, strict=True):
        checkpoint = saved(folder / f"after_{epochs}_epochs.ckpt")
        assert (checkpoint["epoch"], checkpoint["global_step"]) == (epochs, step)

    first, last = scores(output)
    assert (first[0], last[0]) == ("after_2_epochs", "after_6_epochs")
    assert last[1:2] == ("random",)
    assert last[2] > 50  # even the lower end of the interval
    assert last[3] == 200

    record = re.search(r"^[01]:([.|-]{25}) (.+)$", output, flags=re.MULTILINE)
    assert record is not None
    opening, moves = record[1], record[2].split()
    svg = (folder / "last_game.svg").read_text()
    assert svg.count("<rect") == 25
    assert svg.count("<circle") == 25 - opening.count(".") + 2 * len(moves)


@pytest.mark.process
@pytest.mark.slow
def test_the_own_encoder_gives_the_network_the_same_numbers(tmp_path: Path) -> None:
    output = run_example("own_encoder", "--size=4", "--epochs=2", "--games=20", folder=tmp_path)
    assert re.findall(r"^(\w+): (\d+) bytes a position$", output, flags=re.MULTILINE) == [
        *(("domineering", "16"), ("compact_domineering", "2"))
    ]
    assert "\nlargest difference of weights 0.0\n" in output
    assert scores(output)[0][0::3] == ("policy", 20)


OWN_GAME = """
[keisei_lightning.games]
domineering = own_game:Domineering
compact_domineering = own_encoder:CompactDomineering
[keisei_lightning.encoders]
domineering_bits = own_encoder:make_encoder
"""


@pytest.mark.process
@pytest.mark.slow
@pytest.mark.parametrize("game", ["domineering", "compact_domineering"])
def test_the_command_trains_resumes_and_evaluates_a_game_that_follows_the_protocol_alone(
    game: str, tmp_path: Path
) -> None:
    info = tmp_path / "site" / "own_game-1.0.dist-info"  # as pip would install it
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: own_game\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(OWN_GAME)
    path = os.pathsep.join(map(str, (ROOT, EXAMPLES, tmp_path / "site")))

    def keisei(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "keisei_lightning", *words],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )

    given = keisei("train", f"env.game={game}")
    assert (given.returncode, given.stderr.splitlines()) == (
        2,
        [
            f"keisei: env.opening_plies=10: must be 0, as with env=own ({game} has no such option)",
            f"keisei: env.max_plies=256: must be null, as with env=own ({game} has no such option)",
        ],
    )

    size = {"parallel.num_workers": 1, "parallel.games_per_worker": 16, "parallel.plies_per_rollout": 8}
    words = [
        "env=own",
        f"env.game={game}",
        "+env.options.size=4",
        "model=mlp",
        "evaluation=brief",
        "ppo.minibatch_size=64",
    ]
    words += [f"{key}={value}" for key, value in size.items()]
    for epochs, start in ((1, "null"), (2, "last")):
        trained = keisei("train", *words, f"ckpt_path={start}", f"trainer.max_epochs={epochs}")
        assert trained.returncode == 0, trained.stderr
    checkpoint = sorted((tmp_path / "results" / game).glob("*/checkpoints/last.ckpt"))[-1]
    assert saved(checkpoint)["epoch"] == 2
    run = checkpoint.parent.parent
    assert (run / "last_game.svg").read_text().count("<rect") == 16
    assert re.fullmatch(r"[01]:[.|-]{16}( [a-d][1-4][|-])+", (run / "last_game.txt").read_text())

    evaluated = keisei("eval", f"checkpoint={checkpoint}", "games=4", "opponents=[random]", "output_dir=evaluated")
    assert evaluated.returncode == 0, evaluated.stderr
    (folder,) = (tmp_path / "evaluated" / "records").iterdir()
    assert (folder / "game_0001.txt").read_text().splitlines()[0] == f"game: {game}"


@pytest.mark.process
@pytest.mark.slow
@pytest.mark.parametrize("module", ["own_network"], indirect=True)
def test_the_own_network_is_the_same_after_it_was_loaded(module: ModuleType, tmp_path: Path) -> None:
    output = run_example("own_network", "--width=16", "--epochs=1", "--games=20", folder=tmp_path)
    assert "largest difference of logits 0.0, of state values 0.0\n" in output
    assert scores(output)[0][0::3] == ("DenseNetwork", 20)

    path = tmp_path / "results" / "own_network" / "last.ckpt"
    loaded = load_policy(path, model={"_target_": "own_network.DenseNetwork", "width": 16})
    assert loaded.recipe.model == {"_target_": "own_network.DenseNetwork", "width": 16}
    by_hand = ActorCritic(module.DenseNetwork(loaded.game(1).spec, width=16))
    weights = saved(path)["state_dict"]
    by_hand.load_state_dict({name.removeprefix("actor_critic."): weight for name, weight in weights.items()})
    observation = torch.randint(2, (64, *loaded.game(1).spec.observation_shape), dtype=torch.uint8)
    with torch.inference_mode():
        for ours, theirs in zip(loaded.actor_critic(observation), by_hand.eval()(observation), strict=True):
            assert torch.equal(ours, theirs)
    match = play_match(
        loaded.game,
        PolicyPlayer(by_hand, name="DenseNetwork"),
        RandomPlayer(9),
        num_games=20,
        opening_plies=2,
    )
    assert str(match) == output.splitlines()[-1]


@pytest.mark.process
@pytest.mark.slow
def test_the_own_trainer_logs_evaluates_and_keeps_the_best_checkpoint(tmp_path: Path) -> None:
    output = run_example("own_trainer", "--epochs=2", "--games=4", folder=tmp_path)
    assert [(opponent, games) for _, opponent, _, games in scores(output)] == [
        *(("random", 4), ("tactics", 4)),  # the last evaluation
        ("random", 4),  # the final match of the best checkpoint
    ]
    folder = tmp_path / "results" / "own_trainer"
    with (folder / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    by_epoch = [row for row in rows if row["self_play/plies"]]
    assert [float(row["self_play/plies"]) for row in by_epoch] == [2048, 4096]
    evaluated = [row for row in rows if row["eval/score_vs_random"]]
    assert [row["epoch"] for row in evaluated] == ["1"]
    played = re.search(r"(\d+) games played", output)
    assert played is not None
    assert float(by_epoch[-1]["self_play/games"]) == int(played[1])

    best, last = saved(folder / "best.ckpt"), saved(folder / "last.ckpt")
    assert best["global_step"] == last["global_step"] == 2 * 2 * 2048 / 256  # epochs x passes x minibatches
    monitored = next(
        state["best_model_score"] for name, state in last["callbacks"].items() if name.startswith("ModelCheckpoint")
    )
    assert float(monitored) == pytest.approx(float(evaluated[0]["eval/score_vs_random"]))
    assert (folder / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (folder / "last_game.svg").read_text()


@pytest.mark.process
@pytest.mark.slow
def test_the_torchrl_loop_publishes_once_for_each_batch_and_saves_what_it_learned(tmp_path: Path) -> None:
    output = run_example("torchrl_loop", "--plies=10240", "--games=20", folder=tmp_path)
    assert re.findall(r"version (\d+):", output) == ["0", "5", "5"]  # before, in the fifth batch's turn, after
    assert "10240 plies, " in output
    assert "weights of version 5 in " in output
    game = game_factory("tic_tac_toe")
    policy = ActorCritic(build_network(game(1).spec, kind="mlp", num_blocks=2, channels=128))
    policy.load_state_dict(saved(tmp_path / "results" / "torchrl_loop" / "policy.pt"))
    match = play_match(game, PolicyPlayer(policy), RandomPlayer(9), num_games=20, opening_plies=2)
    assert str(match) in output.splitlines()[-2]  # what was saved is what played


@pytest.mark.process
@pytest.mark.slow
def test_ray_tune_ends_bad_trials_early_and_shows_the_best(tmp_path: Path) -> None:
    pytest.importorskip("ray.tune", reason="ray[tune] is not installed", exc_type=ImportError)
    output = run_example("ray_tune", "--trials=4", "--epochs=4", "--concurrent=1", folder=tmp_path)
    trials = re.findall(r"^(\d+) epochs  score ([\d.]+)  ppo.learning_rate=", output, flags=re.MULTILINE)
    epochs = [int(each) for each, _ in trials]
    assert len(trials) == 4
    assert max(epochs) == 4
    assert min(epochs) < 4
    best = re.search(r"^best: score ([\d.]+), ", output, flags=re.MULTILINE)
    assert best is not None
    assert float(best[1]) == max(float(score) for _, score in trials)
