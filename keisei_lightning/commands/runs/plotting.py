"""``keisei runs plot``: pictures of runs, and of their newest policies."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from keisei_lightning.analysis.pictures.curves import CurvesOfRun, draw_curves
from keisei_lightning.analysis.pictures.payoff import LEAGUE_FILE, draw_payoff
from keisei_lightning.commands.runs.options import Picture, PlotOptions
from keisei_lightning.commands.runs.resuming import newest_whole_checkpoint
from keisei_lightning.commands.runs.text import print_lines
from keisei_lightning.commands.runs.times import minutes_by_step
from keisei_lightning.errors import ConfigError
from keisei_lightning.results_folder import read_history, resolve_run
from keisei_lightning.results_folder.finding import name_of
from keisei_lightning.results_folder.metrics import METRICS_FILE
from keisei_lightning.system.console import quiet_libraries
from keisei_lightning.system.paths import one_line
from keisei_lightning.training.picture_style import save

if TYPE_CHECKING:
    from keisei_lightning.analysis.mistakes import Grader
    from keisei_lightning.analysis.self_play import PlayedPlies
    from keisei_lightning.policies import LoadedPolicy

__all__ = ["plot_runs"]

_LABELS = {"plies": "plies", "minutes": "minutes of training", "epochs": "epochs"}


def plot_runs(options: PlotOptions) -> None:
    """Draw, and print the names of the files.

    Raises:
        ConfigError: there is no such run; or a picture cannot be drawn of it, or its file not be written.
    """
    quiet_libraries()
    runs = list(dict.fromkeys(resolve_run(word, options.root) for word in options.runs))
    for what in dict.fromkeys(options.what):
        if what == "curves":
            _write(
                draw_curves([_curves(run, options) for run in runs], x_label=_LABELS[options.x]), what, None, options
            )
    for run in runs:
        _draw_of_run(run, options, is_alone=len(runs) == 1)


def _draw_of_run(run: Path, options: PlotOptions, *, is_alone: bool) -> None:
    """The pictures that are of one run each."""
    name = one_line(name_of(run, options.root))
    policy: LoadedPolicy | None = None
    games: PlayedPlies | None = None
    for what in dict.fromkeys(options.what):
        if what == "curves":
            continue
        if what == "payoff":
            figure = draw_payoff(run / LEAGUE_FILE)
        else:
            policy = policy or _policy(run, options)
            if what == "openings":
                figure = _openings(policy, name)
            elif what == "calibration":
                games = games or _games(policy, options)
                figure = _calibration(games, name)
            else:
                grade = _grader(policy)  # before the games, which nobody needs if there is none
                games = games or _games(policy, options)
                figure = _errors(games, grade, name)
        _write(figure, what, run, options, is_alone=is_alone)


def _write(figure: Figure, what: Picture, run: Path | None, options: PlotOptions, *, is_alone: bool = True) -> None:
    file = _file(what, run, options, is_alone=is_alone)
    try:
        save(figure, file)
    except OSError as error:
        raise ConfigError(f"to={one_line(str(file))}: must be a file that can be written ({error.strerror})") from error
    print_lines([str(file)])


def _file(what: Picture, run: Path | None, options: PlotOptions, *, is_alone: bool) -> Path:
    if options.to is None:
        folder = run or (resolve_run(options.runs[0], options.root) if len(options.runs) == 1 else Path())
        return folder / f"{what}.svg"
    to = Path(options.to).expanduser()
    parts = [to.stem]
    if len(set(options.what)) > 1:
        parts.append(what)
    if run is not None and not is_alone:
        parts.append(re.sub(r"[^\w.-]+", "_", name_of(run, options.root)))
    return to.with_name("_".join(parts) + to.suffix)


# ---- curves


def _curves(run: Path, options: PlotOptions) -> CurvesOfRun:
    try:
        history = read_history(run / METRICS_FILE)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{one_line(str(run))}: has no metrics that can be read ({error})") from error
    return CurvesOfRun(
        name=one_line(name_of(run, options.root)), history=history, x=_positions(run, history, options.x)
    )


def _positions(run: Path, history: Sequence[dict[str, float]], x: str) -> NDArray[np.float64]:
    """Float64 [rows]: where each row is drawn."""
    if x == "minutes":
        minutes = minutes_by_step(run)
        values = [minutes.get(int(row.get("step", -1)), np.nan) for row in history]
    elif x == "epochs":
        values = [row.get("epoch", np.nan) + 1 for row in history]
    else:
        values = [row.get("self_play/plies", np.nan) for row in history]
    return np.array(values, dtype=np.float64)


# ---- pictures of a policy: torch is imported only for these


def _policy(run: Path, options: PlotOptions) -> LoadedPolicy:
    checkpoint = newest_whole_checkpoint(run)
    from keisei_lightning.policies import device_of, load_policy

    return load_policy(checkpoint, device=device_of(options.device))


def _games(policy: LoadedPolicy, options: PlotOptions) -> PlayedPlies:
    from keisei_lightning.analysis.self_play import play_self

    return play_self(policy.actor_critic, policy.game, options.games, seed=options.seed)


def _openings(policy: LoadedPolicy, name: str) -> Figure:
    from keisei_lightning.analysis.openings import opening_tree
    from keisei_lightning.analysis.pictures.openings import draw_openings

    return draw_openings(opening_tree(policy.actor_critic, policy.game), name=name)


def _calibration(games: PlayedPlies, name: str) -> Figure:
    from keisei_lightning.evaluation.calibration import calibrate
    from keisei_lightning.training.calibration_picture import draw_calibration

    return draw_calibration(calibrate(games.value, games.result, games.game), name=name)


def _grader(policy: LoadedPolicy) -> Grader:
    from keisei_lightning.analysis.mistakes import grader_of

    return grader_of(policy.header.game)


def _errors(games: PlayedPlies, grade: Grader, name: str) -> Figure:
    from keisei_lightning.analysis.mistakes import find_mistakes
    from keisei_lightning.analysis.pictures.errors import draw_errors

    return draw_errors(find_mistakes(games, grade), name=name)
