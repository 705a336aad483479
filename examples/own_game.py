"""A game of your own, from its rules to a trained player: domineering.

    python examples/own_game.py                           # a quarter of a minute
    python examples/own_game.py --size 8 --epochs 10 100  # a larger board, for longer

Two players lay dominoes on a square board, seat 0 upright ones, seat 1 lying ones; who finds no room has lost.
``check_game`` checks the class, PPO trains a player by self-play and is stopped, a second run resumes from its
checkpoint, and each player is evaluated against random play. Checkpoints and a picture of the last game are in
``results/own_game/``. :class:`keisei_lightning.Game` says what each method must do.
"""

import argparse
import logging
import re
from pathlib import Path

import numpy as np
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.callbacks import LambdaCallback
from numpy.typing import NDArray

from keisei_lightning import (
    NO_MOVE,
    ActorCritic,
    GameError,
    GameFactory,
    GameSpec,
    IllegalActionError,
    PolicyPlayer,
    PPOModule,
    RandomPlayer,
    SelfPlayCollector,
    SelfPlayDataModule,
    StepResult,
    build_network,
    check_game,
    game_factory,
    play_match,
    register_game,
)
from keisei_lightning.games import RenderFormat, as_actions, as_indices, grid_svg

SQUARES = ".|-"  # empty, seat 0's domino, seat 1's domino


class Domineering:
    """G boards; each is kept as its mover sees it: transposed for seat 1, so that he too lays upright dominoes."""

    def __init__(self, num_games: int, *, size: int = 6) -> None:
        self.spec = GameSpec(
            name="domineering",
            num_actions=(size - 1) * size,  # the upper square of the domino
            observation_shape=(1, size, size),
            max_plies=size * size // 2,
            board_shape=(size, size),
        )
        self.num_games, self.size = num_games, size
        self.view = np.zeros((num_games, size, size), np.uint8)  # 0 empty, 1 seat 0's domino, 2 seat 1's
        self.mover = np.zeros(num_games, np.int8)
        self.moves = [["0:" + "." * size**2] for _ in range(num_games)]  # the first position, then the moves

    def seed(self, seed: int) -> None: ...  # nothing is random in this game

    def reset(self, indices: NDArray[np.int64] | None = None) -> None:
        for index in as_indices(indices, self.num_games):
            self.set_position(index, "0:" + "." * self.size**2)

    def legal(self, view: NDArray[np.uint8]) -> NDArray[np.bool_]:
        return np.asarray(view[:, :-1] + view[:, 1:] == 0).reshape(len(view), -1)

    def observe(self, observation: NDArray[np.uint8], legal: NDArray[np.uint8], mover: NDArray[np.int8]) -> None:
        observation[:, 0], mover[:] = self.view != 0, self.mover
        legal[:] = np.packbits(self.legal(self.view), axis=1)

    def step(self, actions: NDArray[np.int64]) -> StepResult:
        boards, chosen = as_actions(actions, self.num_games)
        is_label = (chosen >= 0) & (chosen < self.spec.num_actions)
        is_legal = is_label & self.legal(self.view)[boards, chosen * is_label]
        for i, action in zip(boards[~is_legal], chosen[~is_legal], strict=True):
            ply, position = len(self.moves[i]) - 1, self.position(i)
            raise IllegalActionError(game="domineering", ply=ply, position=position, move=str(action))
        for index, action in zip(boards.tolist(), chosen.tolist(), strict=True):
            self.moves[index].append(self.action_name(index, action))
        row, column = chosen // self.size, chosen % self.size
        self.view[boards, row, column] = self.view[boards, row + 1, column] = self.mover[boards] + 1
        self.view[boards], self.mover[boards] = self.view[boards].transpose(0, 2, 1), 1 - self.mover[boards]
        over = self.legal(self.view).sum(axis=1) == 0
        return StepResult((over & (actions != NO_MOVE)).astype(np.float32), over, np.zeros_like(over))

    def board(self, index: int) -> NDArray[np.uint8]:
        view: NDArray[np.uint8] = self.view[index]
        return view.T if self.mover[index] else view

    def position(self, index: int) -> str:
        return f"{self.mover[index]}:" + "".join(SQUARES[square] for square in self.board(index).flat)

    def set_position(self, index: int, position: str) -> None:
        if not re.fullmatch(rf"[01]:[.|-]{{{self.size**2}}}", position):
            raise GameError(f"{position!r} is no position of domineering on {self.size} x {self.size}")
        board = np.array([SQUARES.index(square) for square in position[2:]], np.uint8).reshape(self.size, self.size)
        view = board.T if position[0] == "1" else board
        if not self.legal(view[None]).any():
            raise GameError(f"the game is over in {position!r}")
        self.view[index], self.mover[index], self.moves[index] = view, int(position[0]), [position]

    def action_name(self, index: int, action: int) -> str:
        row, column = divmod(action, self.size)[:: -1 if self.mover[index] else 1]
        return f"{chr(ord('a') + column)}{row + 1}{'|-'[self.mover[index]]}"

    def outcome(self, index: int) -> str:
        return "" if self.legal(self.view[[index]]).any() else "no room"

    def render(self, index: int, format: RenderFormat = "text") -> str:
        board = self.board(index).astype(np.int64)
        return grid_svg(board) if format == "svg" else "\n".join(" ".join(SQUARES[s] for s in row) for row in board)

    def record(self, index: int) -> str:
        return " ".join(self.moves[index])


register_game("domineering", Domineering)  # a package does it by the entry-point group keisei_lightning.games


def fit(game: GameFactory, max_epochs: int, *, resume_from: Path | None, save_to: Path) -> ActorCritic:
    """Train a new policy, or resume from a checkpoint.

    Args:
        game: makes the boards.
        max_epochs: PPO iterations, those before the checkpoint included.
        resume_from: a checkpoint; None: start anew.
        save_to: the checkpoint of this fit.
    """
    policy = ActorCritic(build_network(game(1).spec, kind="mlp", num_blocks=2, channels=128))
    collector = SelfPlayCollector(game, policy, games_per_worker=64, plies_per_rollout=16)
    trainer = Trainer(
        max_epochs=max_epochs,
        accelerator="cpu",
        callbacks=[LambdaCallback(on_train_start=lambda trainer, _: print(f"starts at step {trainer.global_step}"))],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    module = PPOModule(policy, learning_rate=2e-3, entropy_coeff=0.02)
    trainer.fit(module, SelfPlayDataModule(collector, minibatch_size=256), ckpt_path=resume_from)
    trainer.save_checkpoint(save_to)
    print(f"stops at step {trainer.global_step}, after {collector.stats()['games']} games")
    return policy


def main() -> None:
    """Check the game, train, resume, and play against random play after each of the two."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=6, help="rows and columns of the board")
    parser.add_argument("--epochs", type=int, nargs=2, default=(4, 40), help="PPO iterations after which a run stops")
    parser.add_argument("--games", type=int, default=400, help="games against random play, an even number")
    arguments = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    seed_everything(1, verbose=False)

    game = game_factory("domineering", size=arguments.size)
    check_game(game)
    print("check_game: domineering keeps its promises")

    folder = Path("results", "own_game")
    opponent = RandomPlayer(game(1).spec.num_actions)
    checkpoint: Path | None = None
    for epochs in arguments.epochs:
        resume_from, checkpoint = checkpoint, folder / f"after_{epochs}_epochs.ckpt"
        policy = fit(game, epochs, resume_from=resume_from, save_to=checkpoint)
        player = PolicyPlayer(policy, name=checkpoint.stem)
        match = play_match(game, player, opponent, num_games=arguments.games, opening_plies=4)
        print(match)

    (folder / "last_game.svg").write_text(match.last_svg, encoding="utf-8")
    print(f"{match.last_title}\n{match.last_record}\n{folder / 'last_game.svg'} shows how it ended")


if __name__ == "__main__":
    main()
