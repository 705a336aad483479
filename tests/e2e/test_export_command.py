"""``keisei export`` as a person types it, and what it writes played by an interpreter that has no torch."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from policy_checkpoints import SMALL, write_policy
from test_checkpoint_faults import at_most
from tqdm import tqdm

from keisei_lightning.commands import main as cli
from keisei_lightning.export import onnx_policy, target
from keisei_lightning.training.checkpoint import AtomicCheckpointIO

ROOT = Path(__file__).resolve().parents[2]

tqdm.get_lock()  # one semaphore for the whole interpreter: torch.export makes it, in whichever test comes first

# An interpreter in which these cannot be imported, whatever is installed; then the command line.
WITHOUT_TORCH = """
import sys
BLOCKED = {"torch", "lightning", "lightning_fabric", "pytorch_lightning", "tensordict", "torchrl"}
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in BLOCKED:
            raise ImportError(f"{name} is not installed here")
sys.meta_path.insert(0, Blocked())
from keisei_lightning.commands.main import main
code = main(sys.argv[1:])
assert not BLOCKED & {name.partition(".")[0] for name in sys.modules}
sys.exit(code)
"""


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")


def there() -> list[str]:
    return sorted(path.name for path in Path().iterdir())


def refused(*words: str, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Lines of a command that ends with exit code 2."""
    assert cli.main(["export", *words]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("keisei: ")
    return [line.removeprefix("keisei: ") for line in err.splitlines()]


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["onnx", "pt2", "safetensors"])
def test_a_file_and_its_card_are_written_and_the_screen_says_how_near_it_is(
    suffix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_policy(Path("a.ckpt"), game_options={"opening_plies": 2})
    assert cli.main(["export", "checkpoint=a.ckpt", f"to=a.{suffix}", "positions=200", "seed=3"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert there() == ["a.ckpt", f"a.{suffix}", f"a.{suffix}.json"]
    card = json.loads(Path(f"a.{suffix}.json").read_text(encoding="utf-8"))
    assert (card["game"]["name"], card["game"]["options"]) == ("tic_tac_toe", {"opening_plies": 2})
    assert card["policy"]["checkpoint"] == "a.ckpt"
    check = card["check"]
    assert (check["positions"], check["seed"], check["tolerance"], check["wrong_masks"]) == (200, 3, 1e-4, 0)
    assert max(check["max_log_prob_difference"], check["max_value_difference"]) <= 1e-4
    assert f"a.{suffix} ({Path(f'a.{suffix}').stat().st_size:,} bytes; {card['file']['kind']})" in out
    assert f"200 of {check['games']} random games (seed 3)" in out


def test_a_runs_own_records_are_on_the_card() -> None:
    folder = Path("run/checkpoints")
    write_policy(folder / "last.ckpt")
    content = AtomicCheckpointIO().load_checkpoint(folder / "last.ckpt")
    rows = [{"epoch": 1.0, "self_play/plies": 512.0, "minutes": 0.5, "eval/rating": 250.0, "eval/rating_low": 200.25}]
    content["keisei_history"] = [*rows, {"epoch": 2.0, "self_play/plies": 1024.0, "minutes": 1.25}]
    AtomicCheckpointIO().save_checkpoint({**content, "epoch": 2}, folder / "last.ckpt")
    Path("run/.hydra").mkdir()
    Path("run/.hydra/overrides.yaml").write_text(yaml.safe_dump(["experiment=smoke", "env.game=a b"]))
    Path("run/.hydra/config.yaml").write_text(yaml.safe_dump({"seed": 7}))
    words = ["export", f"checkpoint={folder}/last.ckpt", "to=weights", "format=safetensors", "positions=10"]
    assert cli.main(words) == 0
    card = json.loads(Path("weights.json").read_text(encoding="utf-8"))["policy"]
    assert card["training"] == {
        "global_step": 70,
        "epochs": 2,
        "plies": 1024,
        "minutes": 1.25,
        "seed": 7,
        "command": "keisei train experiment=smoke 'env.game=a b'",
    }
    assert card["rating"] == {"value": 250, "low": 200.25}
    assert card["model"] == SMALL


def test_what_is_there_stays_unless_it_may_be_replaced(capsys: pytest.CaptureFixture[str]) -> None:
    write_policy(Path("a.ckpt"))
    words = ["checkpoint=a.ckpt", "to=a.safetensors", "positions=10"]
    Path("a.safetensors.json").write_text("mine")
    (line,) = refused(*words, capsys=capsys)
    said = "must be a new file (a.safetensors.json is there); add overwrite=true to replace it"
    assert line == f"to=a.safetensors: {said}"
    assert there() == ["a.ckpt", "a.safetensors.json"]
    assert cli.main(["export", *words, "overwrite=true"]) == 0
    assert json.loads(Path("a.safetensors.json").read_text())["game"]["name"] == "tic_tac_toe"
    capsys.readouterr()


@pytest.mark.parametrize(
    ("words", "lines"),
    [
        (
            "",
            ["checkpoint: is missing; must be a checkpoint file", "to: is missing; must be a file to write, such as "],
        ),
        (
            f"checkpoint=a.ckpt to={'a' * 248}.pt2",
            [f"to={'a' * 248}.pt2: must be a file that can be written (a name in "],
        ),
        ("checkpoint=b.ckpt to=a.onnx", ["checkpoint=b.ckpt: there is no such file; must be a checkpoint file"]),
        (
            "checkpoint=notes.txt to=a.onnx",
            ["checkpoint=notes.txt: cannot be read as a checkpoint (corrupt or truncat"],
        ),
        ("checkpoint=published:go to=a.onnx", ["checkpoint=published:go: there is no such published policy; must be"]),
        ("checkpoint=a.ckpt to=a.txt", ["to=a.txt: its suffix says no format; must be one of .onnx (onnx), .pt2 ("]),
        ("checkpoint=a.ckpt to=b/a.onnx", ["to=b/a.onnx: must be in a folder that is there (b is none)"]),
        ("checkpoint=a.ckpt to=folder.onnx", ["to=folder.onnx: must be a file that can be written (folder.onnx is a "]),
        (
            "checkpoint=a.ckpt to=a.onnx format=tflite",
            ["format=tflite: must be one of onnx, torch_export, safetensors"],
        ),
        ("checkpoint=a.ckpt to=a.onnx positions=0", ["positions=0: must be a whole number, from 1 to 1000000"]),
        ("checkpoint=b.ckpt to=a.txt", ["checkpoint=b.ckpt: there is no such file", "to=a.txt: its suffix says no "]),
        ("checkpoint=a.ckpt to=a.onnx model.nosuch=1", ["model.nosuch=1: no such key"]),
    ],
)
def test_a_word_that_cannot_work_is_a_line_and_nothing_is_written(
    words: str, lines: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    write_policy(Path("a.ckpt"))
    Path("notes.txt").write_text("no checkpoint")
    Path("folder.onnx").mkdir()
    before = there()
    told = refused(*words.split(), capsys=capsys)
    assert len(told) == len(lines)
    assert all(line.startswith(start) for line, start in zip(told, lines, strict=True)), told
    assert there() == before


def test_a_missing_library_is_one_line_that_says_what_to_install(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_policy(Path("a.ckpt"))
    monkeypatch.setattr(onnx_policy, "find_spec", lambda name: None)
    (line,) = refused("checkpoint=a.ckpt", "to=a.onnx", capsys=capsys)
    assert line == "to=a.onnx: onnx is not installed; pip install 'keisei-lightning[export]'"
    (line,) = refused("checkpoint=a.ckpt", "to=a.safetensors", capsys=capsys)
    assert line == "to=a.safetensors: safetensors is not installed; pip install 'keisei-lightning[export]'"
    assert set(target.LIBRARIES) == {"onnx", "torch_export", "safetensors"}


@pytest.mark.parametrize("limit", [0, 100, 2000])
def test_a_full_disk_leaves_nothing_or_what_was_there(limit: int, capsys: pytest.CaptureFixture[str]) -> None:
    write_policy(Path("a.ckpt"))
    words = ["export", "checkpoint=a.ckpt", "to=a.safetensors", "positions=10", "overwrite=true"]
    with at_most(limit):
        assert cli.main(words) == 1
    said = "keisei: to=a.safetensors: File too large (nothing was written)\n"
    assert capsys.readouterr() == ("", said)
    assert there() == ["a.ckpt"]
    for name in ("a.safetensors", "a.safetensors.json"):
        Path(name).write_text("older")
    with at_most(limit):
        assert cli.main(words) == 1
    assert there() == ["a.ckpt", "a.safetensors", "a.safetensors.json"]
    assert {Path(name).read_text() for name in there()[1:]} == {"older"}
    capsys.readouterr()


@pytest.mark.slow
def test_a_file_that_is_not_near_enough_is_not_written(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["export", "checkpoint=published:hex", "to=a.onnx", "positions=100", "tolerance=1e-9"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("keisei: the exported file does not compute what the checkpoint does, and was not written: ")
    assert err.count("\n") == 1
    assert there() == []


@pytest.mark.process
@pytest.mark.slow
def test_an_exported_policy_plays_whole_games_where_there_is_no_torch(tmp_path: Path) -> None:
    assert cli.main(["export", "checkpoint=published:shogi", "to=shogi.onnx", "positions=20"]) == 0
    players = ["onnx(model=shogi.onnx,simulations=8)", "onnx(model=shogi.onnx,simulations=0,mirror=true)"]
    words = [
        "game=shogi",
        f"opponents=['{players[0]}','{players[1]}']",
        "round_robin=true",
        "games=4",
        "output_dir=out",
    ]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, "eval", *words],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    with Path("out/results.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["player"], row["opponent"]) for row in rows] == [
        (players[0], players[1]),
        (players[0], "random"),
        (players[1], "random"),
    ]
    assert all(int(row["wins"]) + int(row["draws"]) + int(row["losses"]) == 4 for row in rows)
    assert all(float(row["score"]) > 0.5 for row in rows[1:])
    assert len(list(Path("out/records").rglob("*.kif*"))) > 6


@pytest.mark.process
@pytest.mark.slow
def test_a_checkpoint_needs_torch_and_says_so() -> None:
    """What the test above would find if a player loaded torch: the interpreter sees it."""
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, "eval", "checkpoint=published:hex", "games=2"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 1
    assert "torch is not installed here" in done.stderr
