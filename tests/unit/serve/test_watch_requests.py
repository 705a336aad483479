"""Runs over HTTP: listed, read on, and never a file that is not theirs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from running_site import site_client

from keisei_lightning.training.live_file import LiveBoard, LiveState, LiveWorker


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("results")
    run = root / "connect_four" / "one"
    (run / "csv").mkdir(parents=True)
    (run / "csv/metrics.csv").write_text("step,self_play/plies,train/entropy\n1,128,1.5\n")
    (run / ".hydra").mkdir()
    (run / ".hydra/config.yaml").write_text("env:\n  game: connect_four\n")
    (run / "last_game.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>')
    (run / "train.log").write_text("worker 1 was ended\n")
    (root.parent / "secret.txt").write_text("secret")
    return root


@pytest.fixture(scope="module")
def client(folder: Path) -> Iterator[httpx.Client]:
    with site_client(folder) as client:
        yield client


def test_a_run_is_listed_and_told_with_all_that_its_folder_has(client: httpx.Client) -> None:
    (run,) = client.get("/api/runs").json()["runs"]
    assert (run["name"], run["game"]) == ("connect_four/one", "connect_four")
    told = client.get(f"/api/runs/{run['key']}").json()
    assert told["columns"] == {"step": [1], "self_play/plies": [128], "train/entropy": [1.5]}
    assert told["log"] == "worker 1 was ended\n"
    assert told["config"].startswith("env:")
    assert told["picture"] > 0
    assert told["league"] == []


def test_only_new_rows_are_told_again(client: httpx.Client, folder: Path) -> None:
    (run,) = client.get("/api/runs").json()["runs"]
    first = client.get(f"/api/runs/{run['key']}").json()
    with (folder / "connect_four/one/csv/metrics.csv").open("a") as stream:
        stream.write("2,256,1.25\n")
    rows = len(first["columns"]["step"])
    query = f"generation={first['generation']}&row={rows}&is_whole=false"
    more = client.get(f"/api/runs/{run['key']}?{query}").json()
    assert (more["row"], more["columns"]["train/entropy"]) == (rows, [1.25])
    assert "config" not in more


def test_a_picture_of_a_run_can_run_nothing(client: httpx.Client) -> None:
    (run,) = client.get("/api/runs").json()["runs"]
    answer = client.get(f"/api/runs/{run['key']}/last_game.svg")
    assert answer.headers["content-type"] == "image/svg+xml"
    assert answer.headers["content-security-policy"] == "sandbox; default-src 'none'; style-src 'unsafe-inline'"
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "path",
    [
        "/api/runs/..%2f..%2fsecret.txt",
        "/api/runs/connect_four%2Fone",
        "/static/..%2f..%2fsite.py",
        "/static/../site.py",
    ],
)
def test_no_path_of_a_clients_is_ever_opened(client: httpx.Client, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 404
    assert "secret" not in answer.text


@pytest.mark.parametrize("query", ["row=-1", "row=x", "generation=1e3", "row=" + "9" * 400])
def test_a_query_that_is_no_number_is_refused(client: httpx.Client, query: str) -> None:
    (run,) = client.get("/api/runs").json()["runs"]
    assert client.get(f"/api/runs/{run['key']}?{query}").status_code == 400


@pytest.fixture
def live_run(client: httpx.Client, folder: Path) -> Iterator[tuple[str, Path]]:
    """The key of a run that tells what is going on, and the file that tells it."""
    (run,) = client.get("/api/runs").json()["runs"]
    file = folder / "connect_four/one/live.json"
    boards = tuple(LiveBoard(worker=2, board=n, ply=5 + n, mover=0, svg=f"<svg>{n}</svg>") for n in range(2))
    workers = (LiveWorker(name="worker 0", state="running", restarts=3, plies_per_s=12.5),)
    file.write_text(LiveState(time_s=1e9, epoch=4, plies=64, workers=workers, boards=boards).to_json())
    yield run["key"], file
    file.unlink(missing_ok=True)


def test_workers_and_games_in_progress_are_told_and_drawn(client: httpx.Client, live_run: tuple[str, Path]) -> None:
    key, file = live_run
    live = client.get(f"/api/runs/{key}").json()["live"]
    (worker,) = live["workers"]
    assert (worker["name"], worker["restarts"], worker["plies_per_s"]) == ("worker 0", 3, 12.5)
    assert live["boards"] == [{"worker": 2, "board": 0, "ply": 5}, {"worker": 2, "board": 1, "ply": 6}]
    assert live["age_s"] >= 0
    assert live["stamp"] == 10**12
    picture = client.get(f"/api/runs/{key}/boards/1.svg?{live['stamp']}")
    assert picture.text == "<svg>1</svg>"
    assert picture.headers["content-type"] == "image/svg+xml"
    assert picture.headers["content-security-policy"] == "sandbox; default-src 'none'; style-src 'unsafe-inline'"
    file.unlink()  # the training has ended meanwhile: a page may still ask for what it was told of
    assert client.get(f"/api/runs/{key}/boards/0.svg").text == "<svg>0</svg>"
    assert client.get(f"/api/runs/{key}").json()["live"] is None


@pytest.mark.parametrize("number", ["2", "-1", "x", "1e3", "9" * 30, "..%2f..%2fsecret.txt"])
def test_a_game_that_is_not_told_of_has_no_picture(
    client: httpx.Client, live_run: tuple[str, Path], number: str
) -> None:
    key, _ = live_run
    assert client.get(f"/api/runs/{key}").json()["live"] is not None
    assert client.get(f"/api/runs/{key}/boards/{number}.svg").status_code == 404
    assert client.get(f"/api/runs/{'0' * 16}/boards/0.svg").status_code == 404
