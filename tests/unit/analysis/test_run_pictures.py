"""Pictures of runs: files by their ending, with titles, axes and units; and what cannot be drawn."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread
from policy_checkpoints import write_policy
from run_folders import write_run
from torch.utils.tensorboard import SummaryWriter

from keisei_lightning.analysis.mistakes import Mistakes
from keisei_lightning.analysis.openings import Opening
from keisei_lightning.analysis.pictures.curves import CurvesOfRun, draw_curves
from keisei_lightning.analysis.pictures.errors import draw_errors
from keisei_lightning.analysis.pictures.openings import draw_openings
from keisei_lightning.analysis.pictures.payoff import read_league
from keisei_lightning.commands.main import main
from keisei_lightning.commands.runs.times import minutes_by_step
from keisei_lightning.errors import ConfigError
from keisei_lightning.training.picture_style import save

LEAGUE = """\
period,epoch,plies,opponent,wins,draws,losses,void,score,elo,opponent_elo
snapshot 10,10,1000,random,6,2,2,1,0.7,100.5,0.0
learner,20,2000,random,9,0,1,0,0.9,250.0,0.0
learner,20,2000,snapshot 10,3,0,1,0,0.75,250.0,100.5
"""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    folder = write_run(tmp_path / "results" / "tiny" / "2026-01-01", record={"state": "finished", "epochs": 2})
    write_policy(folder / "checkpoints" / "last.ckpt")
    (folder / "league.csv").write_text(LEAGUE)
    return folder


def plotted(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> list[str]:
    assert main(["runs", "plot", *words]) == code
    out, err = capsys.readouterr()
    return (err if code else out).splitlines()


@pytest.mark.slow
def test_every_picture_of_a_run_is_written_and_says_what_it_shows(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ["curves", "payoff", "calibration", "openings", "errors"]
    files = plotted(capsys, "last", f"what=[{','.join(names)}]", "to=out/all.svg", "games=8")
    assert files == [f"out/all_{name}.svg" for name in names]
    text = {name: Path(file).read_text(encoding="utf-8") for name, file in zip(names, files, strict=True)}
    assert "score (wins + draws / 2), 95 % interval" in text["curves"]
    assert "tiny/2026-01-01" in text["curves"]
    assert "snapshot 10" in text["payoff"]
    assert "expected points per game of the mover" in text["calibration"]
    assert "of 8 games" in text["calibration"]
    assert "probability of each move" in text["openings"]
    assert "mistakes against perfect play" in text["errors"]


@pytest.mark.slow
def test_a_file_that_ends_with_png_is_one_and_without_a_name_it_is_in_the_runs_folder(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert plotted(capsys, "last", "to=a.png") == ["a.png"]
    assert imread("a.png").shape[0] > 300
    assert plotted(capsys, "last") == ["results/tiny/2026-01-01/curves.svg"]


@pytest.mark.slow
def test_curves_of_several_runs_are_one_picture_and_other_pictures_are_one_for_each(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = write_run(tmp_path / "results" / "tiny" / "2026-01-02")
    (other / "league.csv").write_text(LEAGUE)
    assert plotted(capsys, "01-01", "01-02") == ["curves.svg"]
    assert Path("curves.svg").read_text(encoding="utf-8").count("tiny/2026-01-0") >= 2
    assert plotted(capsys, "01-01", "01-02", "what=payoff", "to=p.svg") == [
        *("p_tiny_2026-01-01.svg", "p_tiny_2026-01-02.svg")
    ]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["last", "to=curves.pdf"], "to=curves.pdf: must be a file that ends with .svg or .png"),
        (["last", "what=nosuch"], "what="),
        (["last", "x=minutes"], "x=minutes: results/tiny/2026-01-01 has no TensorBoard events"),
        (["last", "to=results/tiny/2026-01-01/train.log/a.svg"], "to="),
        (["last", "device=cuda:99", "what=openings"], "device=cuda:99"),
    ],
)
def test_what_cannot_be_drawn_is_one_line(
    run: Path, capsys: pytest.CaptureFixture[str], words: list[str], line: str
) -> None:
    (error,) = plotted(capsys, *words, code=2)
    assert error.startswith(f"keisei: {line}")


def test_broken_files_of_a_run_are_one_line(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "league.csv").write_text("period,epoch\nx,y\n")
    (run / "csv" / "metrics.csv").write_text("")
    (run / "checkpoints" / "last.ckpt").write_bytes(b"PK")
    for what, reason in (
        ("payoff", "is no table of a league"),
        ("curves", "has no metrics that can be read"),
        ("openings", "its checkpoints are corrupt"),
    ):
        (error,) = plotted(capsys, "last", f"what={what}", code=2)
        assert reason in error
    (run / "league.csv").unlink()
    assert "only a run with opponents=league has a payoff" in plotted(capsys, "last", "what=payoff", code=2)[0]


def test_a_leagues_table_is_read_as_it_was_written(tmp_path: Path) -> None:
    (tmp_path / "league.csv").write_text(LEAGUE)
    periods, ratings = read_league(tmp_path / "league.csv")
    assert [(period.name, period.plies, period.results) for period in periods] == [
        ("snapshot 10", 1000, {"random": [6, 2, 2, 1]}),
        ("learner", 2000, {"random": [9, 0, 1, 0], "snapshot 10": [3, 0, 1, 0]}),
    ]
    assert ratings == {"snapshot 10": 100.5, "random": 0.0, "learner": 250.0}
    (tmp_path / "league.csv").write_text(LEAGUE.splitlines()[0] + "\n")
    with pytest.raises(ConfigError, match="has no games yet"):
        read_league(tmp_path / "league.csv")


def test_minutes_are_those_of_tensorboards_events(tmp_path: Path) -> None:
    with SummaryWriter(str(tmp_path / "tensorboard")) as writer:
        first = 2e9  # later than the event that begins the file
        writer.add_scalar("epoch", 0, global_step=7, walltime=first)
        writer.add_scalar("a", 1, global_step=7, walltime=first + 30)
        writer.add_scalar("epoch", 1, global_step=15, walltime=first + 60)
    minutes = minutes_by_step(tmp_path)
    assert minutes.keys() == {7, 15}
    assert minutes[15] - minutes[7] == pytest.approx(1.0)
    file = next((tmp_path / "tensorboard").iterdir())
    file.write_bytes(b"\x01" * 40)
    with pytest.raises(ConfigError):
        minutes_by_step(tmp_path)


def test_long_curves_are_thinned_and_keep_their_mean(tmp_path: Path) -> None:
    history = [{"train/entropy": float(n % 2), "self_play/plies": float(n)} for n in range(10_000)]
    figure = draw_curves(
        [CurvesOfRun(name="long", history=history, x=np.arange(10_000, dtype=np.float64))], x_label="plies"
    )
    (line,) = [line for axes in figure.axes if axes.get_title() == "entropy of the policy" for line in axes.lines]
    assert len(line.get_xdata()) == 400
    assert np.mean(line.get_ydata()) == pytest.approx(0.5)
    assert all(axes.get_xlabel() == "plies" and axes.get_ylabel() for axes in figure.axes)


def test_the_same_figure_is_the_same_file(tmp_path: Path) -> None:
    tree = Opening(replies=[Opening(move="x3", share=0.5, reach=0.5, others=2)], others=6)
    one, two = (save(draw_openings(tree, name="run"), tmp_path / name).read_bytes() for name in ("a.svg", "b.svg"))
    assert one == two
    assert b"x3 50%" in one


def test_shares_of_mistakes_are_of_moves_at_which_one_was_possible() -> None:
    mistakes = Mistakes(graded=Counter({20: 10}), could_err=Counter({20: 8}), unknown=Counter({4: 3}))
    mistakes.by_kind["win to loss"][20] = 2
    figure = draw_errors(mistakes, name="run")
    heights = [bar.get_height() for bar in figure.axes[0].patches if bar.get_x() == pytest.approx(19.6)]
    assert sum(heights) == pytest.approx(0.25)
    assert figure.axes[0].get_xlabel() == "ply of the game"
    assert [bar.get_height() for bar in figure.axes[1].patches] == [0, 2, 0]
