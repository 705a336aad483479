"""Self-play training inside a Hydra application of your own, with its own command line, keys and results.

    python app.py                                                       # half a minute
    python app.py final_match.games=200 self_play.trainer.max_epochs=40
    python app.py env@self_play.env=hex model@self_play.model=small     # another option of a group
    python app.py -m self_play.ppo.learning_rate=3e-4,1e-3              # a sweep, by whatever sweeper you have

``conf/study.yaml`` finds keisei-lightning's configuration by ``hydra.searchpath`` and takes all of it into the section
``self_play``. Whatever else is in there is yours.
"""

import json
import sys
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from keisei_lightning import PolicyPlayer, Stopped, load_policy, make_player, play_match, run


@hydra.main(config_path="conf", config_name="study", version_base="1.3")
def main(cfg: DictConfig) -> float:
    """Train, then let the trained policy play a final match.

    Args:
        cfg: the application's configuration.

    Returns:
        The objective of a sweep: the score of the final match, in [0, 1].
    """
    training_score = run(cfg.self_play)

    policy = load_policy(Path(cfg.self_play.output_dir, "checkpoints", "last.ckpt"))
    opponent = make_player(cfg.final_match.opponent, policy.game(1).spec, seed=cfg.self_play.seed)
    match = play_match(
        policy.game,
        PolicyPlayer(policy.actor_critic),
        opponent,
        num_games=cfg.final_match.games,
        opening_plies=cfg.self_play.env.opening_plies,
        seed=cfg.self_play.seed,
    )

    summary = {"title": cfg.title, "training_score": training_score, "final_score": match.score}
    folder = Path(HydraConfig.get().runtime.output_dir)
    (folder / "study.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    sys.stdout.write(f"{cfg.title}: {match}\n")
    return match.score


if __name__ == "__main__":
    try:
        main()
    except Stopped as stop:  # by Ctrl-C or SIGTERM: what was learned is in last.ckpt
        sys.exit(stop.exit_code)
