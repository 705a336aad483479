"""Make a published policy from a run's checkpoint: its file, its card, and the page of all cards.

    python tests/publish.py results/hex/RUN/checkpoints/last.ckpt --name hex --beside "two cores shared with other work"

writes ``NAME.ckpt`` (the weights in fewer bits, and no optimiser) and ``NAME.json`` (the card) into the package, and
``docs/published_policies.md`` from all cards. Nothing is typed by hand: how it was trained is read from the run's own
records, and how strong it is comes from games that are played here by the file that is published. Publish on the
machine that trained: the card says that both are the same.

    python tests/publish.py --again hex     # measures anew what is published
    python tests/publish.py --page          # writes the page anew
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from rich.console import Console
from strength import GAMES, OPENING_SEED, POSITIONS, SHOGI_LADDER, greedy_player

from keisei_lightning import published
from keisei_lightning.commands.bench.report import describe_machine
from keisei_lightning.evaluation import MatchResult, play_match
from keisei_lightning.evaluation.ladder import load_ladder
from keisei_lightning.evaluation.positions import load_positions, share_optimal
from keisei_lightning.evaluation.ratings import rate_against
from keisei_lightning.evaluation.registry import closing_player, make_player
from keisei_lightning.models import LegalCategorical, num_parameters, unpack_mask
from keisei_lightning.policies import LoadedPolicy, load_policy
from keisei_lightning.system.openmp import governed_spinning
from keisei_lightning.training.checkpoint import AtomicCheckpointIO
from keisei_lightning.training.checkpoint_header import HEADER_KEY, RECIPE_KEY
from keisei_lightning.training.report import HISTORY_KEY
from keisei_lightning.training.saved_weights import SCALES_KEY, compact_weights

ROOT = Path(__file__).resolve().parents[1]
FOLDER = Path(published.__file__).parent
PAGE = ROOT / "docs" / "published_policies.md"
MARK = "<!-- below: made by tests/publish.py from the cards -->"
LICENCE = "MIT, as the package; trained by this project from self-play alone, without games or weights of others"
KEPT = ("epoch", "global_step", "pytorch-lightning_version", "hyper_parameters", HEADER_KEY, RECIPE_KEY)
"""Entries of a checkpoint that a published file has too, beside the weights."""


@dataclass(frozen=True, kw_only=True)
class Measure:
    """What is measured of a game's policy, playing greedily.

    Attributes:
        opponents: games against each player by name.
        opening_plies: each opening is 0 to this many random plies.
        positions: sets of labelled positions by name.
        ladder: on which the matches give a rating.
    """

    opponents: Mapping[str, int]
    opening_plies: int
    positions: tuple[str, ...] = ()
    ladder: str | None = None


MEASURES = {
    "connect_four": Measure(
        opponents=dict.fromkeys(("random", "tactics", "alpha_beta(depth=5)"), GAMES),
        opening_plies=8,
        positions=("random", "tactical"),
    ),
    "othello": Measure(  # its games are long, and random ones play out to the end of the board
        opponents={"random": GAMES, "alpha_beta(depth=3)": GAMES // 4, "mcts(simulations=100)": GAMES // 4},
        opening_plies=8,
    ),
    "shogi": Measure(opponents=SHOGI_LADDER, opening_plies=10, ladder="shogi"),
}
"""By the name of the game, as in ``strength.py``."""

OTHERWISE = Measure(
    opponents=dict.fromkeys(("random", "alpha_beta(depth=3)", "mcts(simulations=1000)"), GAMES), opening_plies=4
)


# ---- the file


def write_policy(checkpoint: Path, file: Path) -> None:
    """Write the weights of a run's checkpoint in fewer bits, with what makes game and network.

    Args:
        checkpoint: of the run.
        file: that is written.
    """
    content = AtomicCheckpointIO().load_checkpoint(checkpoint, map_location="cpu")
    weights, scales = compact_weights(content["state_dict"])
    kept = {key: content[key] for key in KEPT if key in content}
    AtomicCheckpointIO().save_checkpoint({**kept, "state_dict": weights, SCALES_KEY: scales}, file)


def likeness(trained: LoadedPolicy, compact: LoadedPolicy, games: int) -> dict[str, Any]:
    """How far the published weights play as the trained ones do: on positions of self-play, and in a match.

    Args:
        trained: the policy with the run's own weights.
        compact: the one with those of the published file.
        games: of the match.
    """
    logits, values, same = [], [], []
    with torch.inference_mode():
        for observation, legal in positions_of_play(trained):
            (one, one_value), (other, other_value) = (
                policy.actor_critic(observation)[:2] for policy in (trained, compact)
            )
            mask = unpack_mask(legal, one.shape[-1])
            logits.append((one - other).abs()[mask].max())
            values.append((one_value - other_value).abs().max())
            same.append(LegalCategorical(one, legal).mode == LegalCategorical(other, legal).mode)
    moves = torch.cat(same)
    match = play_match(
        trained.game,
        greedy_player(compact),
        greedy_player(trained),
        num_games=games,
        opening_plies=8,
        seed=OPENING_SEED,
    )
    return {
        "positions": len(moves),
        "max_logit_difference": float(f"{float(torch.stack(logits).max()):.3g}"),
        "max_value_difference": float(f"{float(torch.stack(values).max()):.3g}"),
        "same_move": round(float(moves.float().mean()), 5),
        "match": row_of(match, opponent="the trained weights", opening_plies=8),
    }


def positions_of_play(
    policy: LoadedPolicy, num_games: int = 64, plies: int = 64
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Positions of games that a policy plays against itself by sampling: observations and bit-packed legal moves."""
    game, generator = policy.game(num_games), torch.Generator().manual_seed(OPENING_SEED)
    spec = game.spec
    observation = np.zeros((num_games, *spec.observation_shape), dtype=np.uint8)
    legal = np.zeros((num_games, spec.mask_bytes), dtype=np.uint8)
    game.seed(OPENING_SEED)
    game.reset()
    for _ in range(plies):
        game.observe(observation, legal, np.zeros(num_games, dtype=np.int8))
        seen = torch.from_numpy(observation.copy()), torch.from_numpy(legal.copy())
        yield seen
        actions = LegalCategorical(policy.actor_critic(seen[0])[0], seen[1]).sample_with(generator)
        step = game.step(actions.numpy())
        game.reset(np.flatnonzero(step.terminated | step.truncated))


# ---- the card


def trainings(training: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """A training, and those before it that made the policy which it began with, the newest first."""
    return [training, *(trainings(training["began_with"]) if "began_with" in training else [])]


def training_of(checkpoint: Path, beside: str) -> dict[str, Any]:
    """How a run made its policy, from the run's own records.

    Args:
        checkpoint: in the folder of the run.
        beside: what else the machine did, in words.
    """
    run = checkpoint.absolute().parent.parent
    history = AtomicCheckpointIO().load_checkpoint(checkpoint, map_location="cpu")[HISTORY_KEY]
    configuration = yaml.safe_load((run / ".hydra" / "config.yaml").read_text(encoding="utf-8"))
    overrides = yaml.safe_load((run / ".hydra" / "overrides.yaml").read_text(encoding="utf-8"))
    words = [word for word in overrides if not word.startswith("output_dir=")]  # where it lay made no difference
    logged = yaml.safe_load((run / "csv" / "hparams.yaml").read_text(encoding="utf-8"))
    last = history[-1]
    start = configuration.get("initial_policy") or ""
    name = start.removeprefix(published.PREFIX)
    before = published.published_card(name) if published.is_published(start) else None
    return {
        **({"began_with": before["training"]} if before else {}),
        "command": shlex.join(["python", "train.py", *words]),
        "seed": configuration["seed"],
        "epochs": int(last["epoch"]),
        "max_epochs": configuration["trainer"]["max_epochs"],
        "plies": int(last["self_play/plies"]),
        "minutes": round(last["minutes"], 1),
        "beside": beside,
        "date": time.strftime("%Y-%m-%d", time.gmtime(checkpoint.stat().st_mtime)),
        "machine": {key: describe_machine()[key] for key in ("processor", "cpus")},
        "versions": logged["versions"],
    }


def row_of(result: MatchResult, *, opponent: str, opening_plies: int) -> dict[str, Any]:
    """A match as a card has it."""
    low, high = result.interval
    return {
        "opponent": opponent,
        "games": result.num_games,
        "opening_plies": opening_plies,
        "wins": result.wins,
        "draws": result.draws,
        "losses": result.losses,
        "void": result.void,
        "score": round(result.score, 4),
        "low": round(low, 4),
        "high": round(high, 4),
    }


def strength_of(policy: LoadedPolicy, games: int | None) -> dict[str, Any]:
    """Measure a policy's greedy play.

    Args:
        policy: as it is published.
        games: of every match; None: as many as :data:`MEASURES` says.
    """
    spec = policy.game(1).spec
    measure = MEASURES.get(spec.name, OTHERWISE)
    rows, tallies = [], {}
    for name, number in measure.opponents.items():
        with closing_player(make_player(name, spec, seed=1)) as opponent:
            result = play_match(
                policy.game,
                greedy_player(policy),
                opponent,
                num_games=games or number,
                opening_plies=measure.opening_plies,
                seed=OPENING_SEED,
            )
        tallies[name] = result.total
        rows.append(row_of(result, opponent=name, opening_plies=measure.opening_plies))
        Console(markup=False).print(str(result))
    found: dict[str, Any] = {"machine": describe_machine(), "seed": OPENING_SEED, "matches": rows}
    for name in measure.positions:
        share = share_optimal(greedy_player(policy), load_positions(POSITIONS / f"{name}.csv", policy.game)).all
        low, high = share.interval
        found.setdefault("positions", []).append(
            {"set": name, "positions": share.total, "optimal": round(share.value, 4)}
            | {"low": round(low, 4), "high": round(high, 4)}
        )
    if measure.ladder is not None and (rating := rate_against(load_ladder(measure.ladder), tallies)) is not None:
        found["rating"] = {
            key: round(value, 1) if isinstance(value, float) else value for key, value in rating.as_json().items()
        }
    return found


def publish(checkpoint: Path, name: str, *, beside: str, folder: Path, games: int | None) -> dict[str, Any]:
    """Write the file and the card of one policy.

    Args:
        checkpoint: of a run, in the run's folder.
        name: of the policy.
        beside: what else the machine did while it was trained, in words.
        folder: where both are written.
        games: of every match; None: as many as are due.
    """
    file = folder / f"{name}.ckpt"
    trained, training = load_policy(checkpoint), training_of(checkpoint, beside)
    write_policy(checkpoint, file)
    policy = load_policy(file)
    card = {
        "name": name,
        "game": policy.header.game,
        "model": dict(policy.recipe.model),
        "parameters": num_parameters(policy.actor_critic),
        "bytes": file.stat().st_size,
        "licence": LICENCE,
        "training": training,
        "compact": likeness(trained, policy, games or GAMES),
        "strength": strength_of(policy, games),
    }
    write_card(card, folder)
    return card


def write_card(card: Mapping[str, Any], folder: Path) -> None:
    """Write a card beside the file that it is about."""
    text = json.dumps(card, indent=1, ensure_ascii=False, allow_nan=False)
    (folder / f"{card['name']}.json").write_text(text + "\n", encoding="utf-8")


# ---- the page


def page() -> str:
    """The text of the page: what stands above :data:`MARK` in it, and below that a part for each card."""
    above = PAGE.read_text(encoding="utf-8").partition(MARK)[0]
    cards = [published.published_card(name) for name in published.published_names()]
    return "\n".join([above + MARK, "", *overview(cards), *(line for card in cards for line in part(card))])


def overview(cards: list[dict[str, Any]]) -> Iterator[str]:
    """A table of all policies."""
    yield "| policy | game | parameters | file, KB | plies | minutes | score against `random`, % |"
    yield "|---|---|---|---|---|---|---|"
    for card in cards:
        all_of_it = trainings(card["training"])
        plies, minutes = (sum(each[key] for each in all_of_it) for key in ("plies", "minutes"))
        against_random = next(row for row in card["strength"]["matches"] if row["opponent"] == "random")
        yield (
            f"| `published:{card['name']}` | `{card['game']}` | {card['parameters']:,} | {card['bytes'] / 1000:.0f} | "
            f"{plies:,} | {minutes:.1f} | {percent(against_random['score'])} |"
        )
    yield f"| together | | | {sum(card['bytes'] for card in cards) / 1000:.0f} | | | |"
    yield ""


def part_of_training(training: Mapping[str, Any], *, is_first: bool) -> Iterator[str]:
    """How a policy was made, or the one that it began with."""
    machine = training["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in training["versions"].items())
    ended = (
        ""
        if training["epochs"] >= training["max_epochs"]
        else (
            f" **The training has not ended**: {training['epochs']:,} of {training['max_epochs']:,} epochs, and its "
            "learning rate had not fallen to the last."
        )
    )
    began = "Trained" if is_first else "It began with the weights of the policy that was published before, trained"
    yield from wrapped(
        f"{began} on {training['date']} with seed {training['seed']}: {training['plies']:,} plies in "
        f"{training['minutes']:.1f} minutes on {machine['cpus']} CPUs ({machine['processor']}; {training['beside']})."
        f"{ended} Versions: {versions}. The command:"
    )
    yield "\n```text\n" + command_lines(training["command"]) + "\n```\n"


def part(card: Mapping[str, Any]) -> Iterator[str]:
    """The section of one policy."""
    strength, compact = card["strength"], card["compact"]
    match = compact["match"]
    yield f"## {card['name']}\n"
    for number, training in enumerate(trainings(card["training"])):
        yield from part_of_training(training, is_first=number == 0)
    yield from wrapped(
        f"In fewer bits it plays as it was trained: on {compact['positions']:,} positions of its own play, logits of "
        f"legal moves differ by at most {compact['max_logit_difference']:.2g}, values by "
        f"{compact['max_value_difference']:.2g}, the likeliest move is the same in {percent(compact['same_move'], 2)} "
        f"%; against the trained weights it scores {percent(match['score'])} % ({interval(match)}; {match['games']} "
        "games)."
    )
    yield ""
    yield from wrapped(
        f"Strength of the published file (greedy play, seed {strength['seed']}, {strength['machine']['date']}):"
    )
    yield "\n| measure | result, % | 95 % interval | of |\n|---|---|---|---|"
    for row in strength["matches"]:
        games = f"{row['wins']}-{row['draws']}-{row['losses']}, openings of up to {row['opening_plies']} plies"
        void = f", {row['void']} void" * bool(row["void"])
        yield f"| score against `{row['opponent']}` | {percent(row['score'])} | {interval(row)} | {games}{void} |"
    for row in strength.get("positions", ()):
        what = f"optimal moves, `tests/data/connect_four/{row['set']}.csv`"
        yield f"| {what} | {percent(row['optimal'])} | {interval(row)} | {row['positions']:,} positions |"
    yield ""
    if rating := strength.get("rating"):
        ends = " to ".join("open" if rating[end] is None else f"{rating[end]:.0f}" for end in ("low", "high"))
        yield from wrapped(f"On the ladder of {card['game']} that is a rating of **{rating['value']:.0f}** ({ends}).")
        yield ""


def percent(share: float, digits: int = 1) -> str:
    """As a page writes a share."""
    return f"{100 * share:.{digits}f}"


def interval(row: Mapping[str, Any]) -> str:
    """As a page writes an interval."""
    return f"{percent(row['low'])} to {percent(row['high'])}"


def wrapped(text: str, width: int = 138) -> Iterator[str]:
    """A paragraph in lines that are not too wide."""
    line = ""
    for word in text.split():
        if line and len(line) + 1 + len(word) > width:
            yield line
            line = word
        else:
            line = f"{line} {word}".strip()
    yield line


def command_lines(command: str) -> str:
    """A command, in several lines where it is long."""
    return " \\\n  ".join(wrapped(command, 134))


# ---- the command


def main() -> int:
    """Publish, measure again, or write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, nargs="?", help="of a run, in the run's folder")
    parser.add_argument("--name", help="of the policy")
    parser.add_argument("--beside", default="nothing else of weight beside it", help="what else the machine did")
    parser.add_argument("--games", type=int, help="of every match (default: as the game's measure says)")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where file and card are written")
    parser.add_argument("--again", metavar="NAME", help="measure a published policy again")
    parser.add_argument("--page", action="store_true", help="only write the page")
    arguments = parser.parse_args()
    if arguments.again:
        card = published.published_card(arguments.again)
        policy = load_policy(published.PREFIX + arguments.again)
        write_card({**card, "strength": strength_of(policy, arguments.games)}, FOLDER)
    elif not arguments.page:
        if arguments.checkpoint is None or not re.fullmatch(r"[a-z]\w*", arguments.name or ""):
            parser.error("a checkpoint and its --name (lower-case letters, digits and underscores) are needed")
        publish(
            arguments.checkpoint,
            arguments.name,
            beside=arguments.beside,
            folder=arguments.folder,
            games=arguments.games,
        )
    if arguments.folder == FOLDER:
        PAGE.write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    with governed_spinning():
        sys.exit(main())
