"""Games over HTTP: begun, played, looked at, taken back, saved and continued, by a real server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from running_site import policy_key, site_client


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    with site_client(tmp_path_factory.mktemp("results"), max_games=6) as client:
        yield client


def begin(client: httpx.Client, game: str = "tic_tac_toe", side: str = "first", **more: Any) -> dict[str, Any]:
    body = {"policy": policy_key(client, game), "side": side, "simulations": 32, "temperature": 0, **more}
    answer = client.post("/api/games", json=body)
    assert answer.status_code == 201, answer.text
    state: dict[str, Any] = answer.json()
    return state


def post(client: httpx.Client, state: dict[str, Any], what: str, **body: Any) -> httpx.Response:
    return client.post(f"/api/games/{state['id']}/{what}", json=body)


def test_a_whole_game_against_a_policy(client: httpx.Client) -> None:
    state = begin(client)
    assert state["waits_for"] == "person"
    assert [move["name"] for move in state["legal"]][:2] == ["x(0,0)", "x(0,1)"]
    assert state["legal"][0]["parts"] == ["0,0"]
    while not state["is_over"]:
        move = state["legal"][0]["name"]
        state = post(client, state, "moves", move=move, ply=len(state["moves"])).json()
        assert state["waits_for"] in ("policy", "")
        state = post(client, state, "reply").json()
    assert state["outcome"]
    assert state["result"] in (0.0, 0.5, 1.0)
    assert state["legal"] == []
    refused = post(client, state, "resign", ply=len(state["moves"]))
    assert (refused.status_code, refused.json()["error"]) == (409, f"the game is over ({state['outcome']})")


def test_the_policy_begins_where_the_person_plays_second_and_finds_the_win_in_one(client: httpx.Client) -> None:
    state = begin(client, side="second")
    assert state["waits_for"] == "policy"
    state = post(client, state, "reply").json()
    assert (len(state["moves"]), state["waits_for"]) == (1, "person")
    state = begin(client, record=saved("tic_tac_toe", ["x(0,0)", "o(1,0)", "x(0,1)", "o(2,2)"]), side="second")
    state = post(client, state, "reply").json()
    assert state["moves"][-1]["name"] == "x(0,2)"
    assert state["result"] == 1.0


def saved(game: str, moves: list[str]) -> str:
    return json.dumps({"version": 1, "game": game, "start": None, "moves": moves, "resigned": False})


def test_undo_takes_back_the_policys_reply_and_the_persons_move(client: httpx.Client) -> None:
    state = begin(client)
    refused = post(client, state, "undo", ply=0)
    assert (refused.status_code, refused.json()["error"]) == (409, "there is no move to take back")
    state = post(client, state, "moves", move="x(1,1)", ply=0).json()
    state = post(client, state, "reply").json()
    assert len(state["moves"]) == 2
    state = post(client, state, "undo", ply=2).json()
    assert (state["moves"], state["waits_for"]) == ([], "person")


def test_a_resigned_game_is_lost_and_can_be_taken_up_again_by_undo(client: httpx.Client) -> None:
    state = begin(client, side="both")
    state = post(client, state, "moves", move="x(1,1)", ply=0).json()
    state = post(client, state, "resign", ply=1).json()
    assert (state["outcome"], state["result"], state["is_over"]) == ("resignation", 1.0, True)
    state = post(client, state, "undo", ply=1).json()
    assert (state["is_over"], state["moves"]) == (False, [])


def test_a_move_for_a_position_that_has_changed_is_refused(client: httpx.Client) -> None:
    state = begin(client, side="both")
    assert post(client, state, "moves", move="x(1,1)", ply=0).status_code == 200
    late = post(client, state, "moves", move="x(0,0)", ply=0)
    assert (late.status_code, late.json()["error"]) == (409, "ply=0: the game has 1 moves by now")


def test_moves_that_are_not_legal_and_not_ones_turn_are_refused(client: httpx.Client) -> None:
    state = begin(client)
    assert post(client, state, "moves", move="x(9,9)", ply=0).status_code == 409
    state = post(client, state, "moves", move="x(1,1)", ply=0).json()
    refused = post(client, state, "moves", move="o(0,0)", ply=1)
    assert (refused.status_code, refused.json()["error"]) == (409, "it is the policy's turn")


def test_a_game_is_told_again_only_when_it_has_changed(client: httpx.Client) -> None:
    state = begin(client, side="both")
    address = f"/api/games/{state['id']}"
    assert client.get(f"{address}?version={state['version']}-0").status_code == 204
    post(client, state, "moves", move="x(1,1)", ply=0)
    told = client.get(f"{address}?version={state['version']}-0").json()
    assert [move["name"] for move in told["moves"]] == ["x(1,1)"]
    assert client.get("/api/games/unknown").status_code == 404


def test_earlier_positions_hints_and_evaluations_leave_the_game_as_it_is(client: httpx.Client) -> None:
    moves = ["x(0,0)", "o(1,0)", "x(0,1)", "o(1,1)"]
    state = begin(client, record=saved("tic_tac_toe", moves), side="both")
    address = f"/api/games/{state['id']}"
    first, last = client.get(f"{address}/plies/0").json(), client.get(f"{address}/plies/4").json()
    assert first["svg"] != last["svg"] == state["svg"]
    assert client.get(f"{address}/plies/5").status_code == 409
    assert client.get(f"{address}/plies/-1").status_code == 404
    hint = post(client, state, "hint", ply=4, simulations=200).json()
    assert hint["moves"][0]["name"] == "x(0,2)"
    assert hint["moves"][0]["parts"] == ["0,2"]
    assert hint["variation"][0] == "x(0,2)"
    assert hint["result"] == 1
    told = post(client, state, "values").json()
    assert told["is_more"] is False
    assert len(told["values"]) == 5
    assert told["values"][4] == 1.0  # the search has found the win before
    assert [move["name"] for move in told["moves"]] == moves


def test_a_saved_game_is_the_same_game_again(client: httpx.Client) -> None:
    state = begin(client, side="both")
    for ply, move in enumerate(("x(1,1)", "o(0,0)")):
        state = post(client, state, "moves", move=move, ply=ply).json()
    file = client.get(f"/api/games/{state['id']}/record")
    assert file.headers["content-disposition"] == 'attachment; filename="game.json"'
    again = begin(client, record=file.text, side="both")
    assert again["id"] != state["id"]
    assert (again["moves"], again["position"], again["svg"]) == (state["moves"], state["position"], state["svg"])


@pytest.mark.parametrize(
    ("more", "error"),
    [
        ({"record": "{"}, "saved game: cannot be read as JSON"),
        ({"record": saved("shogi", [])}, "game='shogi'; must be tic_tac_toe"),
        ({"record": saved("tic_tac_toe", ["x(0,0)", "x(0,1)"])}, "saved game: move 2"),
        ({"record": saved("tic_tac_toe", []), "position": "x"}, "position: a saved game has a position of its own"),
        ({"position": "nonsense"}, "nonsense"),
        ({"policy": "unknown"}, "policy: there is none of this name"),
        ({"policy": "../../etc/passwd"}, "policy: there is none of this name"),
        ({"side": "third"}, 'side="third": must be one of first, second, both, none'),
        ({"simulations": 1e9}, "must be a whole number from 0 to 10000"),
        ({"checkpoint": "last.ckpt"}, "checkpoint: there is no such field here"),
    ],
)
def test_a_game_that_cannot_be_is_refused_in_one_line(client: httpx.Client, more: dict[str, Any], error: str) -> None:
    body = {"policy": policy_key(client, "tic_tac_toe"), "side": "first", "simulations": 8, "temperature": 0, **more}
    answer = client.post("/api/games", json=body)
    assert answer.status_code in (400, 404)
    assert error in answer.json()["error"]
    assert "\n" not in answer.json()["error"]


def test_the_game_that_was_idle_longest_makes_room_for_a_new_one(client: httpx.Client) -> None:
    games = [begin(client) for _ in range(6)]
    client.get(f"/api/games/{games[0]['id']}")  # used again
    newest = begin(client)
    statuses = [client.get(f"/api/games/{game['id']}").status_code for game in [*games, newest]]
    assert statuses == [200, 404, 200, 200, 200, 200, 200]


def test_several_who_wait_for_one_reply_get_the_same_move(client: httpx.Client) -> None:
    state = begin(client, game="connect_four", side="second", simulations=200, temperature=1)
    with ThreadPoolExecutor(4) as threads:
        answers = [each.json() for each in threads.map(lambda _: post(client, state, "reply"), range(4))]
    assert {json.dumps(answer["moves"]) for answer in answers} == {json.dumps(answers[0]["moves"])}
    assert len(answers[0]["moves"]) == 1


def test_a_policy_can_play_itself_and_its_strength_be_changed(client: httpx.Client) -> None:
    state = begin(client, side="none", simulations=0)
    state = post(client, state, "reply").json()
    state = post(client, state, "seating", side="none", simulations=300, temperature=0).json()
    assert state["simulations"] == 300
    while not state["is_over"]:
        state = post(client, state, "reply").json()
    assert state["result"] is not None


def test_shogi_tells_promotions_and_drops_apart(client: httpx.Client) -> None:
    state = begin(client, "shogi", side="both", position="4k4/9/9/4P4/9/9/9/9/4K4 b G 1")
    promotions = [move["name"] for move in state["legal"] if move["parts"] == ["5d", "5c"]]
    assert sorted(promotions) == ["5d5c", "5d5c+"]
    assert ["G*", "5b"] in [move["parts"] for move in state["legal"]]
    assert 'data-part="G*"' in state["svg"]
