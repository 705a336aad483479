"""The page of trainings, while a real one runs and one of its workers is killed; and who cannot see or use a mouse."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from running_site import running_site

from keisei_lightning.games import make_game
from keisei_lightning.results_folder.ending import run_record
from keisei_lightning.training.live_file import LiveBoard, LiveState, LiveWorker

pytest.importorskip("playwright", reason="needs the package playwright")
from board_hands import begin, click_parts, wait_for_moves
from playwright.sync_api import expect

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = [pytest.mark.process, pytest.mark.slow]

ROOT = Path(__file__).resolve().parents[2]
TRAINING = (
    "experiment=smoke",
    "env=tic_tac_toe",
    "env.max_plies=null",
    "model=mlp",
    "model.channels=16",
    "parallel.num_workers=2",
    "parallel.restart_backoff_s=0.1",
    "evaluation.num_games=2",
    "trainer.max_epochs=100000",
)
NewPage = Callable[..., "Page"]
Shoot = Callable[..., None]


@contextlib.contextmanager
def training(folder: Path) -> Iterator[psutil.Popen]:
    """A training that goes on until it is told to stop."""
    process = psutil.Popen(
        [sys.executable, "-m", "keisei_lightning", "train", *TRAINING],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield process
        process.send_signal(signal.SIGINT)
        assert process.wait(300) == 128 + signal.SIGINT
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def a_worker(process: psutil.Popen) -> psutil.Process:
    """One of the training's workers: they are what its fork server has forked."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        for child in process.children():
            with contextlib.suppress(psutil.NoSuchProcess):
                if "forkserver" in " ".join(child.cmdline()) and (workers := child.children()):
                    return workers[0]
        time.sleep(0.05)
    raise AssertionError("the training has no worker")


def number(page: Page, name: str) -> Any:
    """One of the run's numbers, by its name."""
    return page.locator("#numbers div", has=page.get_by_text(name, exact=True)).locator("dd")


def test_a_running_training_is_watched_while_a_worker_of_it_is_killed(
    tmp_path: Path, new_page: NewPage, shoot: Shoot
) -> None:
    with training(tmp_path) as process, running_site(tmp_path / "results") as address:
        page = new_page()
        page.goto(f"{address}/watch")
        expect(page.locator("#runs a")).to_have_count(1)
        expect(number(page, "restarts")).to_have_text("0")
        expect(number(page, "workers")).to_have_text("2")
        expect(page.get_by_role("img", name=re.compile(r"^Speed: "))).to_be_visible()
        epoch = number(page, "epoch").inner_text()
        expect(number(page, "epoch")).not_to_have_text(epoch)
        boards = page.get_by_role("list", name="Games in progress").get_by_role("img")
        expect(boards).to_have_count(4)
        expect(boards.first).to_have_accessible_name("Game in progress: worker 0, board 0")
        rows = page.locator("#worker-rows tbody tr")
        expect(rows).to_have_count(2)
        expect(rows.locator("td:nth-child(2)")).to_have_text(["running", "running"])
        expect(rows.locator("td:nth-child(3)")).to_have_text(["0", "0"])
        assert {games_move_on(page, address) for _ in range(2)} == {True}
        a_worker(process).kill()
        expect(number(page, "restarts")).to_have_text("1")
        expect(rows.locator("td:nth-child(3)").filter(has_text="1")).to_have_count(1)
        expect(rows.locator("td:nth-child(2)")).to_have_text(["running", "running"])
        expect(page.locator("#log")).to_contain_text("was ended by SIGKILL")
        shoot(page, "watch_live", full_page=True)
        page.locator("summary", has_text="Configuration").click()
        expect(page.locator("#config")).to_contain_text("game: tic_tac_toe")
        expect(page.locator("#no-picture")).to_be_visible()
        process.send_signal(signal.SIGINT)
        expect(page.locator("#live")).to_be_hidden()
        expect(page.locator("#workers")).to_be_hidden()


def games_move_on(page: Page, address: str) -> bool:
    """Whether the first game's picture becomes another one, which is drawn."""
    image = page.locator("#boards img").first
    expect(image).to_have_js_property("complete", True)
    before = image.get_attribute("src")
    assert before is not None
    drawn = page.request.get(f"{address}{before}").text()
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        expect(image).not_to_have_attribute("src", image.get_attribute("src") or "")
        now = page.request.get(f"{address}{image.get_attribute('src')}").text()
        if now != drawn:
            return bool(image.evaluate("async (image) => { await image.decode(); return image.naturalWidth > 0; }"))
    return False


def curves(folder: Path, name: str, *, rate: float) -> None:
    """The folder of a training that has ended."""
    run = folder / "connect_four" / name
    (run / "csv").mkdir(parents=True)
    (run / ".hydra").mkdir()
    (run / ".hydra/config.yaml").write_text("env:\n  game: connect_four\n")
    rows = [
        "step,self_play/plies,self_play/plies_per_s,train/entropy,train/loss_critic,train/loss_objective,eval/score_vs_random"
    ]
    for step in range(1, 61):
        score = f"{1 - 0.5 * rate**step:.4f}" if step % 6 == 0 else ""
        rows.append(
            f"{step},{step * 2048},{1500 + 40 * (step % 7)},{2 * rate**step:.4f},"
            f"{rate**step:.4f},{-0.1 * rate**step:.4f},{score}"
        )
    (run / "csv/metrics.csv").write_text("\n".join(rows) + "\n")
    (run / "league.csv").write_text(
        "period,opponent,wins,draws,losses,score,opponent_elo\nlearner,random,90,0,10,0.9,0.0\n"
    )
    (run / "train.log").write_text("epoch 59: policy scores 97.5 % against random\n")
    (run / "last_game.svg").write_text(
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9" width="90" height="90">'
        '<circle cx="4" cy="4" r="3"/></svg>'
    )


def live(run: Path) -> None:
    """What a training that goes on writes into its folder."""
    game = make_game("connect_four", num_games=1)
    boards = tuple(LiveBoard(worker=n, board=0, ply=0, mover=0, svg=game.render(0, "svg")) for n in range(3))
    workers = tuple(
        LiveWorker(name=f"worker {n}", state="running", policy_lag=n, plies_per_s=1234.5, last_rollout_s=0.5)
        for n in range(2)
    )
    state = LiveState(time_s=time.time(), epoch=3, plies=4096, workers=workers, boards=boards)
    (run / "live.json").write_text(state.to_json())


def test_a_finished_training_is_shown_whole_and_several_are_compared(
    tmp_path: Path, new_page: NewPage, shoot: Shoot
) -> None:
    curves(tmp_path, "fast", rate=0.93)
    curves(tmp_path, "slow", rate=0.97)
    with running_site(tmp_path) as address:
        page = new_page()
        page.goto(f"{address}/watch")
        page.get_by_role("link", name="connect_four/fast").click()
        expect(page.locator("#run-title")).to_have_text("connect_four/fast")
        expect(page.locator("figure")).to_have_count(4)
        expect(page.locator("#picture")).to_have_js_property("naturalWidth", 90)
        expect(page.locator("#standings tbody tr")).to_have_text(["random 90 0 10 0.9 0.0".replace(" ", "")])
        score = page.locator("figure", has=page.get_by_text("Score", exact=True))
        score.locator("summary").click()
        expect(score.locator("tbody tr")).to_have_count(10)
        expect(score.locator("tbody tr").last).to_contain_text("0.994")
        box = score.locator("svg").bounding_box()
        assert box is not None
        page.mouse.move(box["x"] + box["width"] * 0.98, box["y"] + 40)
        expect(score.locator(".readout")).to_have_text("0.994 at 123 k plies")
        page.get_by_role("checkbox", name="compare connect_four/slow").check()
        expect(page.locator("#run-title")).to_have_text("2 trainings")
        expect(page.locator("figure .legend li")).to_have_text(["connect_four/fast", "connect_four/slow"])
        page.select_option("#metric", "train/entropy")
        expect(page.locator("figcaption")).to_have_text("train/entropy")
        expect(page.locator("figure svg polyline")).to_have_count(2)
        shoot(page, "compare")
        page.reload()
        expect(page.locator("#run-title")).to_have_text("2 trainings")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_page_breaks_a_rule_of_accessibility(tmp_path: Path, new_page: NewPage, axe: str, scheme: Any) -> None:
    curves(tmp_path, "fast", rate=0.93)
    with running_site(tmp_path) as address:
        page = new_page(bypass_csp=True, color_scheme=scheme)  # the checker's script is let in past the page's policy
        page.add_init_script(axe)
        broken = {}
        page.goto(address)
        expect(page.locator("#game option")).not_to_have_count(0)
        broken["new game"] = violations(page)
        begin(page, address, "shogi", side="both", position="4k4/9/9/4P4/9/9/9/9/4K4 b G 1")
        page.get_by_role("button", name="Hint").click()
        expect(page.locator("#thoughts")).to_be_visible()
        broken["hint"] = violations(page)
        click_parts(page, "5d", "5c")
        broken["question"] = violations(page)
        page.get_by_role("button", name="Promote", exact=True).click()
        wait_for_moves(page, 1)
        broken["game"] = violations(page)
        page.set_viewport_size({"width": 320, "height": 640})
        broken["narrow"] = violations(page)
        page.goto(f"{address}/watch")
        expect(page.locator("figure")).to_have_count(4)
        for summary in page.locator("summary").all():
            summary.click()
        broken["watch, narrow"] = violations(page)
        page.set_viewport_size({"width": 1200, "height": 860})
        broken["watch"] = violations(page)
        with run_record(tmp_path / "connect_four/fast", lambda: 3):  # it runs, however long the page takes
            live(tmp_path / "connect_four/fast")
            expect(page.locator("#boards img")).to_have_count(3)
            broken["watch, live"] = violations(page)
            page.set_viewport_size({"width": 320, "height": 640})
            assert page.evaluate("document.documentElement.scrollWidth") <= 320
            broken["watch, live, narrow"] = violations(page)
    assert {name: found for name, found in broken.items() if found} == {}


def violations(page: Page) -> list[str]:
    """What axe-core finds: the rule, and the elements."""
    told = page.evaluate("async () => JSON.stringify((await axe.run()).violations)")
    return [f"{each['id']}: {[node['target'] for node in each['nodes']]}" for each in json.loads(told)]
