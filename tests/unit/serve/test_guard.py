"""Who may ask the server: names, origins, tokens, sizes and headers, over real sockets."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from urllib.parse import urlsplit

import httpx
import pytest
from running_site import policy_key, site_client

from keisei_lightning.serve import guard
from keisei_lightning.serve.guard import hosts_of, is_loopback

TOKEN = "a-token-of-this-test"


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    with site_client(tmp_path_factory.mktemp("results")) as client:
        yield client


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    with site_client(tmp_path_factory.mktemp("results"), host="0.0.0.0", token=TOKEN) as client:
        yield client


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "", "127.0.0.1.evil.example", "a@127.0.0.1", "127.0.0.1:x"]
)
def test_a_foreign_name_for_this_server_is_refused(client: httpx.Client, host: str) -> None:
    assert client.get("/", headers={"host": host}).status_code == 421


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:80", "[::1]:8008", "LOCALHOST"])
def test_its_own_names_are_known(client: httpx.Client, host: str) -> None:
    assert client.get("/", headers={"host": host}).status_code == 200


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:1", "http://[", ""])
def test_another_sites_page_may_not_ask(client: httpx.Client, origin: str) -> None:
    assert client.post("/api/games", json={}, headers={"origin": origin}).status_code == 403
    assert client.get("/api/runs", headers={"origin": origin}).status_code == 403


def test_the_sites_own_page_may(client: httpx.Client) -> None:
    address = str(client.base_url).rstrip("/")
    assert client.get("/api/runs", headers={"origin": address, "sec-fetch-site": "same-origin"}).status_code == 200
    link = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}
    assert client.get("/", headers=link).status_code == 200
    assert client.get("/api/runs", headers={"sec-fetch-site": "cross-site"}).status_code == 403


def test_what_a_form_can_send_changes_nothing(client: httpx.Client) -> None:
    for kind in ("application/x-www-form-urlencoded", "text/plain", "multipart/form-data", ""):
        assert client.post("/api/games", content=b"{}", headers={"content-type": kind}).status_code == 415


def test_every_answer_carries_the_policy_and_pages_have_nothing_inline(client: httpx.Client) -> None:
    for path in ("/", "/watch", "/static/play.js", "/api/choices", "/nowhere"):
        headers = client.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        policy = headers["content-security-policy"]
        assert "default-src 'none'; script-src 'self'; style-src 'self'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
    for path in ("/", "/watch"):
        page = client.get(path).text
        assert page.count("<script") == 1
        assert ' style="' not in page
        assert " on" not in page.replace(" on the board", "").partition("<body>")[2].split("<main")[0]
        assert "https://" not in page


def test_without_the_token_nothing_is_told_and_with_it_a_cookie_is_set(guarded: httpx.Client) -> None:
    for path in ("/", "/watch", "/static/play.js", "/api/choices", "/api/runs", "/?token=wrong", "/?token="):
        assert guarded.get(path).status_code == 401
    first = guarded.get(f"/?token={TOKEN}&more=1")
    assert (first.status_code, first.headers["location"]) == (303, "/?more=1")
    cookie = first.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    with httpx.Client(base_url=guarded.base_url, cookies={"keisei_token": TOKEN}) as known:
        assert known.get("/api/choices").status_code == 200
    with httpx.Client(base_url=guarded.base_url, cookies={"keisei_token": TOKEN + "x"}) as unknown:
        assert unknown.get("/api/choices").status_code == 401
    assert guarded.get("/api/choices", headers={"authorization": f"Bearer {TOKEN}"}).status_code == 200


def test_beyond_this_machine_addresses_are_taken_and_names_only_its_own() -> None:
    assert hosts_of("0.0.0.0") is None
    assert hosts_of("gpu7.example") == {"gpu7.example"}
    assert is_loopback("127.0.0.2")
    assert is_loopback("::1")
    assert not is_loopback("0.0.0.0")
    assert not is_loopback("192.0.2.7")
    assert not is_loopback("gpu7.example")


@pytest.mark.parametrize(("host", "status"), [("192.0.2.7:8008", 200), ("evil.example", 421)])
def test_a_server_of_all_addresses_refuses_foreign_names(guarded: httpx.Client, host: str, status: int) -> None:
    headers = {"host": host, "authorization": f"Bearer {TOKEN}"}
    assert guarded.get("/api/choices", headers=headers).status_code == status


def test_a_body_that_is_too_large_is_refused_also_in_pieces(client: httpx.Client) -> None:
    headers = {"content-type": "application/json"}
    assert client.post("/api/games", content=b" " * (guard.MAX_BODY_BYTES + 1), headers=headers).status_code == 413
    pieces = (b" " * 100_000 for _ in range(12))
    assert client.post("/api/games", content=pieces, headers=headers).status_code == 413


def test_a_body_that_does_not_come_in_time_is_given_up(client: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "BODY_TIMEOUT_S", 0.05)
    address = urlsplit(str(client.base_url))
    with socket.create_connection((address.hostname, address.port), timeout=60) as slow:
        slow.sendall(
            f"POST /api/games HTTP/1.1\r\nhost: {address.netloc}\r\ncontent-type: application/json\r\n"
            "content-length: 10\r\n\r\n{".encode()
        )
        assert slow.recv(100).startswith(b"HTTP/1.1 408")


def test_clients_that_break_off_anywhere_leave_the_server_well(client: httpx.Client) -> None:
    address = urlsplit(str(client.base_url))
    whole = (
        f"POST /api/games HTTP/1.1\r\nhost: {address.netloc}\r\ncontent-type: application/json\r\n"
        f'content-length: 40\r\n\r\n{{"policy": "x", "side": "first"        }}'
    ).encode()
    for length in range(0, len(whole), 7):
        with socket.create_connection((address.hostname, address.port), timeout=60) as broken:
            broken.sendall(whole[:length])
    assert client.get("/api/choices").status_code == 200


def test_a_search_stops_when_its_client_goes(client: httpx.Client) -> None:
    body = {"policy": policy_key(client, "othello"), "side": "second", "simulations": 10_000, "temperature": 0}
    state = client.post("/api/games", json=body).json()
    address = urlsplit(str(client.base_url))
    with socket.create_connection((address.hostname, address.port), timeout=60) as impatient:
        impatient.sendall(
            f"POST /api/games/{state['id']}/reply HTTP/1.1\r\nhost: {address.netloc}\r\n"
            "content-type: application/json\r\ncontent-length: 2\r\n\r\n{}".encode()
        )
        while not client.get(f"/api/games/{state['id']}").json()["is_thinking"]:
            pass
    while (told := client.get(f"/api/games/{state['id']}").json())["is_thinking"]:
        pass
    assert told["moves"] == []
