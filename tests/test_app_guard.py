"""Who is let through to the page: addresses, origins, methods, the password; and what every answer says."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient, WebSocketDenialResponse
from starlette.websockets import WebSocket

from streamlit_app.guard import Guard
from streamlit_app.origins import OwnAddresses, is_local
from streamlit_app.response_headers import HEADERS
from streamlit_app.server import PAGES
from streamlit_app.shown_paths import ShownPaths, may_know_paths
from streamlit_app.sign_in import TRIES, WINDOW_SECONDS, SignIn, read_password
from streamlit_app.socket_messages import guarded_receive, guarded_send
from vtg.errors import VtgError

HOST = "127.0.0.1:8501"
SOCKET = f"ws://{HOST}/_stcore/stream"
OWN = {"Host": HOST, "Origin": f"http://{HOST}"}


@contextmanager
def guarded(sign_in: SignIn | None = None, host: str = "127.0.0.1", allowed: tuple[str, ...] = ()) -> Iterator[Any]:
    """Asks a guarded page that answers everything; sockets say which origin they see."""

    async def answer(request: Any) -> PlainTextResponse:
        return PlainTextResponse(request.method, headers={"Access-Control-Allow-Origin": "*", "Server": "x"})

    async def talk(socket: WebSocket) -> None:
        await socket.accept()
        await socket.send_text(socket.headers.get("origin", ""))
        await socket.close()

    routes = [WebSocketRoute("/{rest:path}", talk), Route("/{rest:path}", answer, methods=["GET", "POST", "PUT"])]
    app = Guard(Starlette(routes=routes), OwnAddresses(host, 8501, allowed), PAGES, sign_in)
    with TestClient(app, base_url=f"http://{HOST}", follow_redirects=False) as client:
        yield client


@pytest.mark.parametrize(
    "host", ["localhost:8501", "127.0.0.1:8501", "[::1]:8501", "LOCALHOST:8501", "[0:0:0:0:0:0:0:1]:8501"]
)
def test_its_own_addresses_are_answered(host: str) -> None:
    with guarded() as client:
        assert client.get("/", headers={"Host": host}).status_code == 200
        assert client.get("/", headers={"Host": host, "Origin": f"http://{host}"}).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8501",
        "localhost",
        "localhost:8502",
        "127.0.0.2:8501",
        "192.168.0.7:8501",
        "localhost:8501.evil.example",
        "user@localhost:8501",
        "localhost:8501/",
        "localhost:08501x",
        "",
        "[::1]",
        "x y",
    ],
)
def test_a_name_that_is_led_here_is_refused_in_one_line(host: str) -> None:
    with guarded() as client:
        answer = client.get("/", headers={"Host": host})
        assert answer.status_code == 421
        assert "--allow-host" in answer.text and "\n" not in answer.text


@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example",
        "http://localhost:8502",
        "http://localhost",
        "https://127.0.0.1",
        "null",
        "file://",
        "",
        "http://localhost:8501",
        "http://127.0.0.1:8501.evil.example",
        "http://127.0.0.1:8501@evil.example",
        "127.0.0.1:8501",
    ],
)
def test_what_other_sites_send_is_refused(origin: str) -> None:
    with guarded() as client:
        for method, path in (("GET", "/"), ("POST", "/vtg/x/upload"), ("GET", "/vtg/x/video/1")):
            assert client.request(method, path, headers={"Host": HOST, "Origin": origin}).status_code == 403
        with (
            pytest.raises(WebSocketDenialResponse) as refused,
            client.websocket_connect(SOCKET, headers={"Origin": origin}),
        ):
            pass
        assert refused.value.status_code == 403


def test_programs_may_read_without_an_origin_and_nothing_else() -> None:
    with guarded() as client:
        assert client.get("/").status_code == 200
        assert client.post("/vtg/x/upload").status_code == 403
        with pytest.raises(WebSocketDenialResponse), client.websocket_connect(SOCKET):
            pass


def test_names_that_were_allowed_are_its_own() -> None:
    with guarded(allowed=("videos.example", "other.example:9000")) as client:
        for host in ("videos.example", "videos.example:443", "videos.example:8501", "other.example:9000"):
            assert client.get("/", headers={"Host": host}).status_code == 200
        for host in ("other.example", "videos.example:444", "more.videos.example"):
            assert client.get("/", headers={"Host": host}).status_code == 421
        # A proxy may ask under another name than the one that browsers know.
        headers = {"Host": HOST, "Origin": "https://videos.example"}
        with client.websocket_connect(SOCKET, headers=headers) as socket:
            assert socket.receive_text() == f"http://{HOST}", "what Streamlit sees is what it compares with Host"
    with pytest.raises(VtgError, match="is not a host name"):
        OwnAddresses("127.0.0.1", 8501, ["http://videos.example/"])


def test_where_everything_is_listened_on_the_address_that_was_reached_is_its_own() -> None:
    for everywhere in ("0.0.0.0", "::"):
        own = OwnAddresses(everywhere, 8501)
        assert own.is_host("192.168.0.7:8501", "192.168.0.7")
        assert own.is_host("192.168.0.7:8501", "::ffff:192.168.0.7")
        assert own.is_host("[fe80::1]:8501", "fe80::1%eth0")
        assert not own.is_host("192.168.0.7:8501", "192.168.0.8")
        assert not own.is_host("evil.example:8501", "192.168.0.7")
        assert not own.is_origin("http://127.0.0.1:8501", "192.168.0.7:8501"), "a page of the visitor's own machine"
    assert OwnAddresses("videos.lan", 80).is_host("videos.lan")
    assert OwnAddresses("videos.lan", 80).is_origin("http://videos.lan", "videos.lan")
    assert not OwnAddresses("192.168.0.7", 8501).is_host("192.168.0.8:8501", "192.168.0.8")


@given(st.text(max_size=60), st.text(max_size=60))
def test_no_text_is_taken_for_an_address_by_accident(host: str, origin: str) -> None:
    own = OwnAddresses("127.0.0.1", 8501)
    assert not own.is_host(f"{host}.evil.example")
    assert not own.is_origin(f"http://evil.example/{origin}", HOST)


def test_only_what_the_page_has_is_asked_for() -> None:
    with guarded() as client:
        for path in ("/", *(f"/{page}" for page in PAGES), "/favicon.png", "/_stcore/health", "/media/x", "/vtg/x/y"):
            assert client.get(path).status_code == 200, path
        for path in (
            "/.git/config",
            "/static/",
            "/static/js/none.js",
            "/_stcore/metrics",
            "/_stcore/upload_file/a/b",
            "/x",
        ):
            assert client.get(path).status_code == 404, path
        for method in ("PUT", "DELETE", "OPTIONS", "TRACE", "PATCH", "POST"):
            assert client.request(method, "/", headers=OWN).status_code == 405, method
        assert client.get("/" + "a" * 3000).status_code == 414
        with pytest.raises(WebSocketDenialResponse) as refused, client.websocket_connect("/vtg/x", headers=OWN):
            pass
        assert refused.value.status_code == 404


def test_every_answer_has_the_headers() -> None:
    expected = {name.decode(): value.decode() for name, value in HEADERS}
    assert "frame-ancestors 'none'" in expected["content-security-policy"]
    assert "'unsafe-eval'" not in expected["content-security-policy"]
    with guarded(SignIn("x", "vtg")) as client:
        for answer in (
            client.get("/"),
            client.get("/x"),
            client.get("/", headers={"Host": "e"}),
            client.get("/_stcore/health"),
        ):
            assert {name: answer.headers.get(name) for name in expected} == expected
            assert "access-control-allow-origin" not in answer.headers
            assert "server" not in answer.headers


class TestPassword:
    """A page with a password."""

    @pytest.fixture
    def now(self) -> list[float]:
        return [0.0]

    @pytest.fixture
    def client(self, now: list[float]) -> Iterator[Any]:
        with guarded(SignIn("pässword 1", "vtg_8501", lambda: now[0])) as client:
            yield client

    def try_it(self, client: Any, password: str, to: str = "/") -> Any:
        return client.post("/sign-in", data={"password": password, "to": to}, headers=OWN)

    def test_nothing_is_shown_before_it_is_given(self, client: Any) -> None:
        asked = client.get("/video?v=abc&q=%3Cb%3E")
        assert asked.status_code == 401
        assert 'name="to" value="/video?v=abc&amp;q=%3Cb%3E"' in asked.text
        assert "<script" not in asked.text
        for path in ("/vtg/x/video/1", "/media/x", "/_stcore/host-config", "/favicon.png"):
            assert client.get(path).status_code == 401, path
        assert client.post("/vtg/x/upload", headers=OWN).status_code == 401
        with (
            pytest.raises(WebSocketDenialResponse) as refused,
            client.websocket_connect(SOCKET, headers=OWN),
        ):
            pass
        assert refused.value.status_code == 401
        assert client.get("/_stcore/health").status_code == 200, "for who watches whether the server is up"

    def test_whoever_gives_it_is_let_in(self, client: Any, now: list[float]) -> None:
        given = self.try_it(client, "pässword 1", "/video?v=abc")
        assert (given.status_code, given.headers["location"]) == (303, "/video?v=abc")
        flags = given.headers["set-cookie"].lower()
        assert "httponly" in flags and "samesite=strict" in flags and "secure" not in flags
        assert client.get("/").status_code == 200
        with client.websocket_connect(SOCKET, headers=OWN) as socket:
            socket.receive_text()
        now[0] += 8 * 86_400
        assert client.get("/").status_code == 401

    def test_another_is_refused_and_tries_are_counted(self, client: Any, now: list[float]) -> None:
        for password in ("", "password 1", "pässword 1 ", "x" * 5000, "\0")[:TRIES]:
            assert self.try_it(client, password).status_code == 401
        right = self.try_it(client, "pässword 1")
        assert right.status_code == 429 and "wait" in right.text and int(right.headers["retry-after"]) > 0
        now[0] += WINDOW_SECONDS
        assert self.try_it(client, "pässword 1").status_code == 303
        assert self.try_it(client, "x" * 9000).status_code == 413

    @pytest.mark.parametrize(
        "to", ["//evil.example", "https://evil.example", "/\\evil.example", "/\t/evil.example", "", "x"]
    )
    def test_it_leads_nowhere_else(self, client: Any, to: str) -> None:
        assert self.try_it(client, "pässword 1", to).headers["location"] == "/"

    def test_a_foreign_form_and_an_invented_cookie_are_refused(self, client: Any) -> None:
        headers = {"Host": HOST, "Origin": "http://evil.example"}
        assert client.post("/sign-in", data={"password": "pässword 1"}, headers=headers).status_code == 403
        assert client.get("/", headers={"Cookie": "vtg_8501="}).status_code == 401
        assert client.get("/", headers={"Cookie": "vtg_8501=guess"}).status_code == 401

    def test_who_comes_from_another_site_comes_again_with_the_cookie(self, client: Any) -> None:
        assert 'http-equiv="refresh"' in client.get("/?q=a", headers={"Sec-Fetch-Site": "cross-site"}).text
        assert 'http-equiv="refresh"' not in client.get("/?q=a", headers={"Sec-Fetch-Site": "same-origin"}).text

    def test_it_is_read_from_a_file_or_the_environment(self, tmp_path: Path) -> None:
        file = tmp_path / "password"
        file.write_text("\ufeffsecret words\r\nmore\n", encoding="utf-8")
        assert read_password(file, {"VTG_PASSWORD": "other"}) == "secret words"
        assert read_password(None, {"VTG_PASSWORD": "other"}) == "other"
        assert read_password(None, {}) is None
        for content, reason in ((b"\n", "empty"), (b"x" * 2000, "at most"), (b"\xff\xfe\xff", "not text")):
            file.write_bytes(content)
            with pytest.raises(VtgError, match=reason):
                read_password(file, {})
        with pytest.raises(VtgError, match="cannot be read"):
            read_password(tmp_path / "none", {})
        with pytest.raises(VtgError, match="VTG_PASSWORD: the password is empty"):
            read_password(None, {"VTG_PASSWORD": ""})


class TestMessages:
    """What goes through a socket."""

    def passed(self, anyio_run: Callable[..., Any], *contents: bytes | None) -> list[bytes | None]:
        waiting = [{"type": "websocket.receive", "bytes": content} for content in contents]
        waiting.append({"type": "websocket.disconnect", "bytes": b"end"})

        async def receive() -> Any:
            return waiting.pop(0)

        async def collect() -> list[bytes | None]:
            found = []
            while (message := await guarded_receive(receive)())["type"] != "websocket.disconnect":
                found.append(message["bytes"])
            return found

        return list(anyio_run(collect))

    @pytest.fixture
    def anyio_run(self) -> Callable[..., Any]:
        from concurrent.futures import ThreadPoolExecutor

        import anyio

        def run(work: Callable[..., Any], *arguments: Any) -> Any:
            with ThreadPoolExecutor(1) as thread:  # whose own loop does not meet that of a browser's tests
                return thread.submit(anyio.run, work, *arguments).result()

        return run

    def test_what_is_for_developers_is_dropped(self, anyio_run: Callable[..., Any]) -> None:
        from streamlit.proto.BackMsg_pb2 import BackMsg

        rerun, git, cache = BackMsg(), BackMsg(load_git_info=True), BackMsg(clear_cache=True)
        rerun.rerun_script.query_string = "q=a"
        contents = [message.SerializeToString() for message in (git, rerun, cache)]
        assert self.passed(anyio_run, b"\xff\xff\xff", None, b"", *contents) == [contents[1]]
        if "backend_operation_request" in BackMsg.DESCRIPTOR.fields_by_name:
            install, chunk = BackMsg(), BackMsg()
            install.backend_operation_request.install_skills.SetInParent()
            chunk.backend_operation_request.dataframe_chunk.SetInParent()
            contents = [message.SerializeToString() for message in (install, chunk)]
            assert self.passed(anyio_run, *contents) == [contents[1]]

    def test_the_path_of_the_script_is_left_out(self, anyio_run: Callable[..., Any]) -> None:
        from streamlit.proto.ForwardMsg_pb2 import ForwardMsg

        import streamlit_app

        home = str(Path(streamlit_app.__file__).parent)
        message = ForwardMsg()
        message.new_session.main_script_path = str(Path(home) / "app.py")
        message.new_session.name = "kept"
        sent: list[Any] = []

        async def send(given: Any) -> None:
            sent.append(given["bytes"])

        anyio_run(guarded_send(send), {"type": "websocket.send", "bytes": message.SerializeToString()})
        assert home.encode() not in sent[0]
        assert ForwardMsg.FromString(sent[0]).new_session.name == "kept"


class TestShownPaths:
    """What visitors are told of paths."""

    def test_who_is_on_this_machine_may_know_them(self) -> None:
        assert all(map(is_local, ("127.0.0.1", "localhost", "::1", "127.8.9.1")))
        assert not any(map(is_local, ("0.0.0.0", "::", "192.168.0.7", "localhost.evil.example", "")))
        assert may_know_paths("127.0.0.1", ["localhost:9000"])
        assert not may_know_paths("127.0.0.1", ["videos.example"])
        shown = ShownPaths(True, [("films", Path("/srv/films"))])
        assert shown.text("/srv/films/a.mp4: is damaged") == "/srv/films/a.mp4: is damaged"
        assert shown.path("/srv/films/a.mp4") == str(Path("/srv/films/a.mp4"))

    @pytest.mark.parametrize(
        ("text", "told"),
        [
            ("/srv/my films/2024/a b.mp4: is damaged", "films/2024/a b.mp4: is damaged"),
            ("/srv/my films: lies outside", "films: lies outside"),
            ("/srv/my films-of-others/a.mp4: is", "my films-of-others/a.mp4: is"),
            ("/home/anna/a.mp4: is damaged", "a.mp4: is damaged"),
            ("cannot write '/var/lib/x/y.npy' (no space)", "cannot write 'y.npy' (no space)"),
            ("ViT-B-32 /data/weights/clip.safetensors", "ViT-B-32 clip.safetensors"),
            (r"C:\Users\anna\a.mp4: is damaged", "a.mp4: is damaged"),
            (r"\\server\share\a.mp4: is damaged", "a.mp4: is damaged"),
            ("see https://example.org/a/b, and/or 1/2 of 3 / 4", "see https://example.org/a/b, and/or 1/2 of 3 / 4"),
        ],
    )
    def test_others_are_told_names(self, text: str, told: str) -> None:
        assert ShownPaths(False, [("films", Path("/srv/my films"))]).text(text) == told

    def test_others_see_where_below_a_root_a_file_is(self) -> None:
        shown = ShownPaths(False, [("films", Path("/srv/films")), ("library", Path("/srv/films/library"))])
        assert shown.path("/srv/films/2024/a.mp4") == "films/2024/a.mp4"
        assert shown.path("/srv/films/library/uploads/b.mp4") == "library/uploads/b.mp4"
        assert shown.path("/home/anna/c.mp4") == "c.mp4"
