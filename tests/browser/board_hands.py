"""What a person does on the page, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from playwright.sync_api import expect

if TYPE_CHECKING:
    from playwright.sync_api import Page

__all__ = ["begin", "click_parts", "moves", "wait_for_moves"]


def begin(
    page: Page,
    address: str,
    game: str,
    *,
    policy: str = "search without a network",
    side: str = "first",
    simulations: str = "16",
    position: str = "",
) -> None:
    """Begin a game by the form."""
    page.goto(address)
    page.select_option("#game", game)
    page.select_option("#policy", label=policy)
    page.select_option("#side", side)
    page.select_option("#simulations", simulations)
    page.fill("#position", position)
    page.click("#begin")
    expect(page.locator("#play")).to_be_visible()


def click_parts(page: Page, *parts: str) -> None:
    """Click parts of the board one after another."""
    for part in parts:
        page.locator(f"#board [data-part='{part}']").first.click()


def moves(page: Page) -> list[str]:
    """The moves so far, as they are listed."""
    return page.locator("#moves button").all_inner_texts()


def wait_for_moves(page: Page, count: int) -> None:
    """Wait until so many are listed."""
    expect(page.locator("#moves li")).to_have_count(count)
