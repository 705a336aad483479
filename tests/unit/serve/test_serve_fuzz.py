"""Whatever a client sends, the server answers, never with an error of its own, and plays on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from running_site import policy_key, site_client

pytestmark = pytest.mark.slow

ROUTES = ("moves", "reply", "undo", "resign", "seating", "hint", "values", "plies/1", "record", "", "nowhere")
FIELDS = ("move", "ply", "side", "simulations", "temperature", "policy", "position", "record", "other")

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=30),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
likely = st.one_of(
    st.integers(0, 12),
    st.sampled_from(["first", "second", "both", "none", "x(0,0)", "o(1,1)", "x(2,2)"]),
    st.floats(0, 2, allow_nan=False),
)
bodies = st.dictionaries(st.sampled_from(FIELDS), values | likely, max_size=5)


@pytest.fixture(scope="module")
def playing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[httpx.Client, dict[str, Any], str]]:
    with site_client(tmp_path_factory.mktemp("results"), max_games=8) as client:
        key = policy_key(client, "tic_tac_toe")
        body = {"policy": key, "side": "both", "simulations": 4, "temperature": 1}
        yield client, client.post("/api/games", json=body).json(), key


def assert_answered(answer: httpx.Response) -> None:
    assert answer.status_code < 500, (answer.request.url, answer.request.content, answer.text)
    if answer.status_code >= 400:
        error = answer.json()["error"]
        assert error
        assert "\n" not in error
        assert "Traceback" not in error


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(route=st.sampled_from(ROUTES), method=st.sampled_from(["GET", "POST", "POST", "PUT", "DELETE"]), body=bodies)
def test_any_fields_on_any_route_are_answered(
    playing: tuple[httpx.Client, dict[str, Any], str], route: str, method: str, body: dict[str, Any]
) -> None:
    client, game, _ = playing
    headers = {"content-type": "application/json"}
    path = f"/api/games/{game['id']}/{route}".rstrip("/")
    assert_answered(client.request(method, path, content=json.dumps(body).encode(), headers=headers))


@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=bodies, fixed=st.sets(st.sampled_from(["policy", "side", "simulations", "temperature"])))
def test_any_fields_of_a_new_game_are_answered(
    playing: tuple[httpx.Client, dict[str, Any], str], body: dict[str, Any], fixed: set[str]
) -> None:
    client, _, key = playing
    legal = {"policy": key, "side": "both", "simulations": 0, "temperature": 0}
    assert_answered(client.post("/api/games", json={**body, **{name: legal[name] for name in fixed}}))


@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(path=st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=40), body=st.binary(max_size=60))
def test_any_path_and_any_bytes_are_answered(
    playing: tuple[httpx.Client, dict[str, Any], str], path: str, body: bytes
) -> None:
    client, game, _ = playing
    headers = {"content-type": "application/json"}
    assert_answered(client.post(f"/api/games/{game['id']}/moves", content=body, headers=headers))
    for prefix in ("/", "/api/", "/api/runs/", "/static/", "/api/games/"):
        assert_answered(
            client.get(
                httpx.URL(str(client.base_url) + prefix).copy_with(path=prefix + path.replace("?", "").replace("#", ""))
            )
        )
