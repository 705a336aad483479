"""``keisei positions``: games that were played as training positions."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from policy_checkpoints import write_policy
from rsshogi.core import Board, Move

from keisei_lightning.commands import main as cli
from keisei_lightning.games import SavedGame, make_game
from keisei_lightning.games.shogi import kifu
from keisei_lightning.search.network import NetworkEvaluator

START = "lnsgkgsnl/1r5b1/ppppppppp/9/9/9/PPPPPPPPP/1B5R1/LNSGKGSNL b - 1"
ORACLE = Path(__file__).parents[2] / "data" / "shogi_records" / "hcpe3_by_cshogi.json"
PSV, HCPE = struct.Struct("<32shHHbB"), struct.Struct("<32shHbB")
GAMES = {
    "a": SavedGame(start=START, moves=("7g7f", "3c3d", "8h2b+"), outcome="resignation", winner=0),
    "b": SavedGame(start=START, moves=("2g2f",), outcome="repetition"),
    "c": SavedGame(start=START, moves=("2g2f", "8c8d"), outcome="void"),
}


@pytest.fixture
def records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three games of shogi, each in two formats, as an evaluation writes them."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "records" / "01_match"
    folder.mkdir(parents=True)
    for name, saved in GAMES.items():
        for suffix in (".kifu", ".csa"):
            (folder / f"{name}{suffix}").write_text(kifu.write(saved, suffix), encoding="utf-8")
    (folder / "games.csv").write_text("game\n")
    return tmp_path / "records"


def positions_of(saved: SavedGame) -> list[str]:
    board, found = Board(saved.start), []
    for move in saved.moves:
        found.append(board.to_sfen())
        board.apply_usi(move)
    return found


def test_psv_has_every_position_with_its_move_and_result(records: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["positions", "records=records", "to=train.psv"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert out == (
        "positions 4 games 2 games without a result, left out 1 values and policies none: the score is 0 file train.psv"
    )
    rows = list(PSV.iter_unpack(Path("train.psv").read_bytes()))
    found = []
    for packed, *_ in rows:
        board = Board()
        board.set_packed_sfen(packed)
        found.append(board.to_sfen().rsplit(" ", 1)[0])
    assert found == [p.rsplit(" ", 1)[0] for name in "ab" for p in positions_of(GAMES[name])]
    assert [Move(move).to_usi() for _, _, move, *_ in rows] == ["7g7f", "3c3d", "8h2b+", "2g2f"]
    assert [(score, number, result) for _, score, _, number, result, _ in rows] == [
        (0, 1, 1),
        (0, 2, -1),
        (0, 3, 1),
        (0, 1, 0),
    ]


def test_hcpe_names_the_winner(records: Path) -> None:
    assert cli.main(["positions", "records=records", "to=a/new/folder/train.hcpe"]) == 0
    rows = list(HCPE.iter_unpack(Path("a/new/folder/train.hcpe").read_bytes()))
    assert [result for _, _, _, result, _ in rows] == [1, 1, 1, 4]


def policies_of(data: Mapping[str, NDArray[Any]]) -> list[dict[int, float]]:
    parts = [slice(*pair) for pair in pairwise(data["policy_offsets"].tolist())]
    return [dict(zip(data["policy_actions"][p].tolist(), data["policy"][p].tolist(), strict=True)) for p in parts]


def test_hcpe3_of_another_program_is_read_with_its_values_and_policies_beside_records_without(
    records: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    oracle = json.loads(ORACLE.read_text(encoding="utf-8"))
    Path("theirs.hcpe3").write_bytes(bytes.fromhex(oracle["hcpe3"]))
    assert cli.main(["positions", "records=[records,theirs.hcpe3]", "to=x.npz", "score_scale=756"]) == 0
    assert "values and policies of the records that have them" in " ".join(capsys.readouterr().out.split())
    data = np.load("x.npz", allow_pickle=False)
    assert data["move"].tolist()[4:] == oracle["moves"]
    assert np.isnan(data["value"][:4]).all()
    np.testing.assert_allclose(data["value"][4:], np.tanh(np.array(oracle["scores"]) / (2 * 756)), atol=1e-6)
    assert data["result"].tolist()[4:] == [-1, 1] * 30
    policies = policies_of(data)
    assert policies[:4] == [{}] * 4
    game = make_game("shogi", 1)
    for position, visits, policy in zip(data["position"].tolist()[4:], oracle["visits"], policies[4:], strict=True):
        game.set_position(0, position)
        named = {game.action_name(0, action): share for action, share in policy.items()}
        assert named == {move: pytest.approx(count / 65_535) for move, count in visits.items()}


def test_hcpe3_is_written_again_byte_for_byte_and_converted(records: Path) -> None:
    oracle = json.loads(ORACLE.read_text(encoding="utf-8"))
    Path("theirs.hcpe3").write_bytes(bytes.fromhex(oracle["hcpe3"]) * 2)
    assert cli.main(["positions", "records=theirs.hcpe3", "to=again.hcpe3"]) == 0
    assert Path("again.hcpe3").read_bytes() == Path("theirs.hcpe3").read_bytes()
    assert cli.main(["positions", "records=theirs.hcpe3", "to=theirs.psv"]) == 0
    assert [score for _, score, *_ in PSV.iter_unpack(Path("theirs.psv").read_bytes())] == oracle["scores"] * 2


def test_a_damaged_hcpe3_file_is_one_line(records: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("theirs.hcpe3").write_bytes(b"abc")
    assert cli.main(["positions", "records=[theirs.hcpe3,records]", "to=x.psv"]) == 1
    assert capsys.readouterr().err == (
        "keisei: theirs.hcpe3: game 1: the file ends within it\nkeisei: 1 records could not be read\n"
    )
    assert Path("x.psv").stat().st_size == 160


@pytest.mark.slow
def test_a_checkpoint_gives_each_position_its_value_and_policy(records: Path) -> None:
    words = ["positions", "records=records", "checkpoint=published:shogi", "batch_size=2"]
    assert cli.main([*words, "to=train.npz"]) == 0
    assert cli.main([*words, "to=train.psv", "score_scale=756"]) == 0
    data = np.load("train.npz", allow_pickle=False)
    assert data["position"].tolist() == [p for name in "ab" for p in positions_of(GAMES[name])]
    assert (data["game"].tolist(), data["ply"].tolist()) == ([0, 0, 0, 1], [0, 1, 2, 0])
    assert [Path(file).stem for file in data["files"]] == ["a", "b"]
    assert data["result"].tolist() == [1, -1, 1, 0]
    # Legal moves of the start, after 7g7f, after 3c3d, and of the start again.
    assert data["policy_offsets"].tolist() == [0, 30, 60, 99, 129]
    sums = np.add.reduceat(data["policy"], data["policy_offsets"][:-1])
    np.testing.assert_allclose(sums, 1.0, atol=1e-5)
    game = make_game("shogi", 1)
    for row, position in enumerate(data["position"].tolist()):
        game.set_position(0, position)
        part = slice(*data["policy_offsets"][row : row + 2])
        assert game.action_name(0, int(data["action"][row])) == data["move"][row]
        assert data["action"][row] in data["policy_actions"][part]
    assert cli.main([*words, "to=train.hcpe3"]) == 0
    assert cli.main(["positions", "records=train.hcpe3", "to=back.npz"]) == 0
    back = np.load("back.npz", allow_pickle=False)
    for name in ("observation", "action", "mover", "result", "move"):
        np.testing.assert_array_equal(back[name], data[name])
    np.testing.assert_allclose(back["value"], data["value"], atol=0.5 / 600)
    for old, new in zip(policies_of(data), policies_of(back), strict=True):
        assert all(abs(new.get(action, 0.0) - share) <= 1.001 / 65_535 for action, share in old.items())
    scores = [score for _, score, *_ in PSV.iter_unpack(Path("train.psv").read_bytes())]
    for score, value in zip(scores, data["value"].tolist(), strict=True):
        assert score == pytest.approx(756 * math.log((1 + value) / (1 - value)), abs=0.51)


def test_any_game_is_written_as_npz_with_the_networks_own_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    policy = write_policy(tmp_path / "last.ckpt")
    Path("one.txt").write_text("game: tic_tac_toe\n\n1. x(0,0) 2. o(1,1) 3. x(0,1) 4. o(2,2) 5. x(0,2) 1-0\n")
    assert cli.main(["positions", "records=one.txt", "to=x.npz", "checkpoint=last.ckpt", "device=cpu"]) == 0
    data = np.load("x.npz", allow_pickle=False)
    assert str(data["game_name"]) == "tic_tac_toe"
    assert data["move"].tolist() == ["x(0,0)", "o(1,1)", "x(0,1)", "o(2,2)", "x(0,2)"]
    assert (data["mover"].tolist(), data["result"].tolist()) == ([0, 1, 0, 1, 0], [1, -1, 1, -1, 1])
    spec = make_game("tic_tac_toe", 1).spec
    legal = np.zeros((5, spec.num_actions), np.uint8)
    for row in range(5):
        legal[row, data["policy_actions"][slice(*data["policy_offsets"][row : row + 2])]] = 1
    log_probs, values = NetworkEvaluator(policy, spec)(data["observation"], np.packbits(legal, axis=1))
    np.testing.assert_allclose(data["value"], values, atol=1e-6)
    np.testing.assert_allclose(data["policy"], np.exp(log_probs), atol=1e-6)
    assert cli.main(["positions", "records=one.txt", "to=s.npz", "checkpoint=last.ckpt", "simulations=16"]) == 0
    searched = np.load("s.npz", allow_pickle=False)
    # The last move of the game wins at once, which a search sees.
    last = slice(*searched["policy_offsets"][-2:])
    assert searched["value"][-1] == 1.0
    assert searched["policy_actions"][last][searched["policy"][last].argmax()] == searched["action"][-1]


def test_the_bars_batches_do_not_change_what_is_written(records: Path) -> None:
    for size in (1, 2, 64):
        assert cli.main(["positions", "records=records", f"to={size}.psv", f"batch_size={size}"]) == 0
    assert Path("1.psv").read_bytes() == Path("2.psv").read_bytes() == Path("64.psv").read_bytes()


def test_what_cannot_be_used_is_told_and_the_rest_is_written(records: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = records / "01_match"
    (folder / "d.kifu").write_text("nonsense\n", encoding="utf-8")
    assert cli.main(["positions", "records=records", "to=x.psv"]) == 1
    out, err = capsys.readouterr()
    assert "positions 4" in " ".join(out.split())
    assert "d.kifu: line 1: nonsense: is neither a move nor an end\n" in err
    assert err.endswith("keisei: 1 records could not be read\n")
    assert Path("x.psv").stat().st_size == 160


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("records=[] to=x.psv", "records=[]: must hold one or more"),
        ("records=records", "to: is missing; must be a file"),
        ("records=records to=x.bin", "to=x.bin: must end with one of .psv, .hcpe, .hcpe3, .npz for shogi"),
        ("records=nosuch to=x.psv", "records=nosuch: there is no such file or folder; must be a record or a folder"),
        ("records=records to=records", "to=records: is a folder; must be a file"),
        ("records=records to=old.psv", "to=old.psv: is there already; must be another file (or overwrite=true)"),
        ("records=records to=x.psv simulations=3", "simulations=3: must be 0 without a checkpoint"),
        ("records=records to=x.psv checkpoint=no.ckpt", "checkpoint=no.ckpt: there is no such file"),
        ("records=records to=x.psv game=hex", "to=x.psv: must end with one of .npz for hex"),
        (
            "records=records to=x.npz checkpoint=published:hex game=shogi",
            "game=shogi: must be hex(board_size=5), the game of checkpoint=published:hex, or null",
        ),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_written(
    words: str, line: str, records: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("old.psv").touch()
    before = sorted(records.parent.rglob("*"))
    assert cli.main(["positions", *words.split()]) == 2
    out, err = capsys.readouterr()
    assert (out, err) == ("", f"keisei: {line}\n")
    assert sorted(records.parent.rglob("*")) == before


def test_games_without_a_result_alone_are_no_training_set(records: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["positions", "records=records/01_match/c.kifu", "to=x.psv"]) == 1
    assert capsys.readouterr().err.endswith("there is no position of a game that has a result\n")
    assert not Path("x.psv").exists()


def test_moves_behind_an_end_that_the_rules_know_are_left_out(
    records: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # White's king stands among its own in the far ranks: it declares, though this record goes on.
    start = f"9/9/8K/9/9/9/rrbbgggg1/{6 * '+p'}3/4k4 b 10P 1"
    Path("e.usi").write_text(f"sfen {start} moves 1c1d 5i4i 1d1c resign\n")
    assert cli.main(["positions", "records=e.usi", "to=x.psv"]) == 0
    assert "e.usi: 2 moves are behind the game's end here (declaration)\n" in capsys.readouterr().err
    assert Path("x.psv").stat().st_size == 40
