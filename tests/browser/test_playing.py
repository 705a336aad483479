"""Whole games in a real browser: by clicks, by the keyboard alone, over reloads, in two tabs, on a narrow screen."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from running_site import running_site

pytest.importorskip("playwright", reason="needs the package playwright")
from board_hands import begin, click_parts, moves, wait_for_moves
from playwright.sync_api import expect

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [pytest.mark.process, pytest.mark.slow]

TURN_OR_END = re.compile(r"Your turn|You win|You lose|A draw")
ENDED = re.compile(r"You win|You lose|A draw")
NewPage = Callable[..., "Page"]
Shoot = Callable[..., None]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[str]:
    with running_site(tmp_path) as address:
        yield address


def test_a_game_of_shogi_with_a_promotion_and_a_mating_drop(site: str, new_page: NewPage, shoot: Shoot) -> None:
    page = new_page()
    begin(page, site, "shogi", side="both", position="4k4/9/9/4P4/9/9/9/9/4K4 b G 1")
    click_parts(page, "5d", "5c")
    question = page.get_by_role("dialog", name="Promote?")
    expect(question).to_be_visible()
    shoot(page, "promotion")
    question.get_by_role("button", name="Promote", exact=True).click()
    wait_for_moves(page, 1)
    click_parts(page, "5a", "4a")
    wait_for_moves(page, 2)
    click_parts(page, "G*", "4b")
    wait_for_moves(page, 3)
    assert moves(page) == ["5d5c+", "5a4a", "G*4b"]
    expect(page.get_by_role("status")).to_have_text("The first player wins (checkmate).")
    expect(page.locator("#resign")).to_be_disabled()
    shoot(page, "mate")


def test_the_question_of_promotion_can_be_answered_by_no_and_taken_back(site: str, new_page: NewPage) -> None:
    page = new_page()
    begin(page, site, "shogi", side="both", position="4k4/9/9/4P4/9/9/9/9/4K4 b G 1")
    click_parts(page, "5d", "5c")
    page.keyboard.press("Escape")
    expect(page.locator("#question")).to_be_hidden()
    assert moves(page) == []
    click_parts(page, "5d", "5c")
    page.get_by_role("button", name="Do not promote").click()
    wait_for_moves(page, 1)
    assert moves(page) == ["5d5c"]
    page.get_by_role("button", name="Undo").click()
    wait_for_moves(page, 0)


def test_a_game_of_connect_four_against_a_policy_survives_a_reload(site: str, new_page: NewPage, shoot: Shoot) -> None:
    page = new_page()
    begin(page, site, "connect_four", policy="connect_four (published)", simulations="0")
    count = 0
    while not page.locator("#status").inner_text().startswith(("You win", "You lose", "A draw")):
        column = page.evaluate("document.querySelector('#legal').options[0].value").lstrip("xo")
        click_parts(page, column)
        expect(page.locator("#moves li")).not_to_have_count(count)
        expect(page.locator("#status")).to_have_text(TURN_OR_END)
        count = len(moves(page))
        if count == 4:
            before = moves(page)
            page.reload()
            wait_for_moves(page, 4)
            assert moves(page) == before
    shoot(page, "connect_four")
    assert count >= 7
    with page.expect_download() as download:
        page.get_by_role("link", name="Save game").click()
    saved = json.loads(Path(download.value.path()).read_text())
    assert (saved["game"], len(saved["moves"])) == ("connect_four", count)
    page.get_by_role("button", name="To the start").click()
    expect(page.locator("#ply")).to_have_value("0")
    page.get_by_role("button", name="One move forward").click()
    expect(page.locator("#moves [aria-current=step]")).to_have_text(saved["moves"][0])


def test_tic_tac_toe_is_played_by_the_keyboard_alone(site: str, new_page: NewPage) -> None:
    page = new_page()
    page.goto(site)
    expect(page.locator("#game option")).not_to_have_count(0)
    press_tab_until(page, "game")
    page.keyboard.type("tic")
    press_tab_until(page, "begin")
    page.keyboard.press("Enter")
    expect(page.locator("#board")).to_be_focused()
    heard = page.locator("#heard")
    page.keyboard.press("ArrowUp")
    expect(heard).to_have_text("1,1, 1 move")
    page.keyboard.press("ArrowUp")
    expect(heard).to_have_text("0,1, 1 move")
    page.keyboard.press("ArrowLeft")
    expect(heard).to_have_text("0,0, 1 move")
    page.keyboard.press("Enter")
    wait_for_moves(page, 2)
    press_tab_until(page, "move")
    for turn in range(1, 5):
        expect(page.locator("#status")).to_have_text(TURN_OR_END)
        if "turn" not in page.locator("#status").inner_text():
            break
        page.keyboard.type(page.evaluate("document.querySelector('#legal').options[0].value"))
        page.keyboard.press("Enter")
        expect(page.locator("#moves li")).not_to_have_count(2 * turn)
    expect(page.locator("#status")).to_have_text(ENDED)


def test_two_tabs_see_the_same_game_and_play_different_ones(site: str, new_page: NewPage) -> None:
    one, two = new_page(), new_page()
    begin(one, site, "othello", side="both")
    two.goto(one.url)
    click_parts(one, "d3")
    wait_for_moves(two, 1)
    click_parts(two, "c3")
    wait_for_moves(one, 2)
    assert moves(one) == moves(two)
    two.get_by_role("button", name="New game").click()
    two.select_option("#game", "hex")
    two.select_option("#side", "both")
    two.click("#begin")
    wait_for_moves(two, 0)
    click_parts(two, "a1")
    wait_for_moves(two, 1)
    two.reload()
    wait_for_moves(two, 1)
    wait_for_moves(one, 2)


def test_ones_own_pieces_are_below_from_either_seat(site: str, new_page: NewPage) -> None:
    page = new_page()
    for game, side, turned in [("shogi", "second", 1), ("shogi", "first", 0), ("breakthrough", "first", 1)]:
        begin(page, site, game, side=side, simulations="0")
        wait_for_moves(page, int(side == "second"))
        expect(page.locator("#board svg.turned")).to_have_count(turned)
        page.goto("about:blank")


def test_a_hint_is_drawn_on_the_board_which_can_be_turned(site: str, new_page: NewPage, shoot: Shoot) -> None:
    page = new_page(color_scheme="dark")
    begin(
        page, site, "breakthrough(columns=6,rows=6)", policy="breakthrough (published)", side="second", simulations="64"
    )
    wait_for_moves(page, 1)
    expect(page.locator("#board svg.turned")).to_have_count(0)
    expect(page.locator("#status")).to_contain_text("Your turn")
    page.get_by_role("button", name="Hint").click()
    expect(page.locator("#thoughts li").first).to_be_visible()
    expect(page.locator("#board .arrow").first).to_be_attached()
    expect(page.locator("#graph .dot")).to_be_attached()
    shoot(page, "hint_dark")
    page.get_by_role("button", name="Turn board").click()
    expect(page.locator("#board svg.turned")).to_have_count(1)
    expect(page.locator("#board .arrow").first).to_be_attached()
    page.get_by_role("button", name="Resign").click()
    expect(page.locator("#status")).to_have_text("You lose (resignation).")


def test_a_saved_game_is_opened_and_its_graph_is_filled(site: str, new_page: NewPage, tmp_path: Path) -> None:
    file = tmp_path / "saved.json"
    names = ["x(0,0)", "o(1,1)", "x(0,1)"]
    file.write_text(json.dumps({"version": 1, "game": "tic_tac_toe", "start": None, "moves": names, "resigned": False}))
    page = new_page()
    page.goto(site)
    page.select_option("#side", "both")
    page.set_input_files("#file", file)
    page.click("#begin")
    wait_for_moves(page, 3)
    assert moves(page) == names
    expect(page.locator("#graph p")).to_have_text("First player: 50 %")


def test_a_game_that_the_server_has_forgotten_is_told_in_a_line(site: str, browser: Browser) -> None:
    page = browser.new_page()  # the browser itself notes the 404 as an error
    page.goto(f"{site}/#no-such-game")
    expect(page.get_by_role("alert")).to_have_text("there is no such game here (any more)")
    expect(page.locator("#setup")).to_be_visible()


def test_both_pages_fit_a_narrow_screen(site: str, new_page: NewPage, shoot: Shoot) -> None:
    page = new_page(viewport={"width": 320, "height": 640}, has_touch=True)
    begin(page, site, "shogi", side="both")
    page.locator("#board [data-part='7g']").tap()
    page.locator("#board [data-part='7f']").tap()
    wait_for_moves(page, 1)
    assert page.evaluate("document.documentElement.scrollWidth") == 320
    shoot(page, "narrow", full_page=True)
    page.goto(f"{site}/watch")
    expect(page.locator("#folder")).to_contain_text("There is none")
    assert page.evaluate("document.documentElement.scrollWidth") == 320


def press_tab_until(page: Page, name: str) -> None:
    """Go by the Tab key to an element."""
    for _ in range(60):
        if page.evaluate("document.activeElement.id") == name:
            return
        page.keyboard.press("Tab")
    raise AssertionError(f"the Tab key does not come to {name}")
