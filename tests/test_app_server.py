"""The page's addresses of files: ranges, made pictures and clips, uploads, and who may not."""

from __future__ import annotations

import errno
import io
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import anyio
import pytest
from starlette.applications import Starlette

from streamlit_app.backend import READY, Backend, Options
from streamlit_app.exports import FORMS
from streamlit_app.jobs import CANCELLED, FAILED, Job
from streamlit_app.media import export_url, media_routes, media_url, result_url
from streamlit_app.search_query import SearchQuery
from streamlit_app.server import open_port
from streamlit_app.tasks import add_videos, make_film, playable
from streamlit_app.uploads import MAX_UPLOADS, delete_abandoned_uploads, upload_route, upload_url
from vtg.errors import VtgError
from vtg.library.library import Library
from vtg.models.specs import model_spec
from vtg.video import probe


def wait_for(ready: Callable[[], bool]) -> None:
    for _ in range(1500):
        if ready():
            return
        time.sleep(0.02)
    raise AssertionError("it did not happen")


@pytest.fixture(scope="module")
def shop(
    tmp_path_factory: pytest.TempPathFactory, tiny_clip: Path, tiny_head: Path, make_video: Callable[..., Path]
) -> Backend:
    """A backend on a library of two films, asked by a head."""
    home = tmp_path_factory.mktemp("shop")
    make_video(home / "a film.mp4", seconds=12, seed=1)
    make_video(home / "b.mp4", seconds=8, seed=2)
    library = Library(home / "library", model_spec(tiny_head, pretrained=tiny_clip), device="cpu")
    assert len(library.add([home]).added) == 2
    backend = Backend(Options(home / "library", (home,), device="cpu", upload_bytes=200_000))
    wait_for(lambda: backend.readiness.state == READY)
    return backend


@pytest.fixture
def client(shop: Backend) -> Iterator[Any]:
    """Asks the routes as a browser would."""
    from starlette.testclient import TestClient

    with TestClient(Starlette(routes=[*media_routes(lambda: shop), upload_route(lambda: shop)])) as client:
        yield client


def test_a_film_is_sent_by_range(shop: Backend, client: Any) -> None:
    entry = shop.indexed()[0]
    url, content = media_url(shop, "video", entry.video), Path(entry.path).read_bytes()
    whole = client.get(url)
    assert whole.content == content
    assert whole.headers["content-type"] == "video/mp4"
    assert whole.headers["accept-ranges"] == "bytes"
    part = client.get(url, headers={"Range": "bytes=100-199"})
    assert part.status_code == 206
    assert part.content == content[100:200]
    assert part.headers["content-range"] == f"bytes 100-199/{len(content)}"
    assert client.get(url, headers={"Range": "bytes=-10"}).content == content[-10:]
    assert client.get(url, headers={"Range": f"bytes={len(content)}-"}).status_code == 416


def test_posters_previews_clips_and_reasons_are_made(shop: Backend, client: Any, tmp_path: Path) -> None:
    from PIL import Image

    video = shop.indexed()[0].video
    for url in (
        media_url(shop, "poster", video, 5.0),
        media_url(shop, "poster", video, 12.0),
        media_url(shop, "why", video, 2.0, 6.0, query="a red circle"),
    ):
        answer = client.get(url)
        assert answer.status_code == 200, answer.text
        assert Image.open(io.BytesIO(answer.content)).format == "JPEG"
    for kind, seconds in (("preview", 5.0), ("clip", 4.0)):
        answer = client.get(media_url(shop, kind, video, 2.0, 6.0))
        (tmp_path / f"{kind}.mp4").write_bytes(answer.content)
        info = probe(tmp_path / f"{kind}.mp4")
        assert info.codec == "h264"
        assert info.duration == pytest.approx(seconds, abs=0.3)
    assert "a film 00.02-00.06.mp4" in answer.headers["content-disposition"].replace("%20", " ")


def test_who_guesses_gets_nothing(shop: Backend, client: Any) -> None:
    video = shop.indexed()[0].video
    assert client.get(media_url(shop, "video", video).replace(shop.secret, "guess")).status_code == 403
    assert client.get(media_url(shop, "video", "0" * 32)).status_code == 404
    assert client.get(media_url(shop, "video", "..%2f..%2fetc%2fpasswd")).status_code == 404
    assert client.get(media_url(shop, "clip", video, 50.0, 60.0)).status_code == 404
    assert client.get(media_url(shop, "proxy", video)).status_code == 404
    assert client.get(result_url(shop, 99)).status_code == 404
    assert client.post(upload_url(shop).replace(shop.upload_token, "guess")).status_code == 403


def test_a_film_of_clips_is_made_and_sent(shop: Backend, client: Any, tmp_path: Path) -> None:
    plan = shop.summary(shop.indexed()[0].video, "a red circle", 0.5)
    job = make_film(shop, plan, "short.mp4")
    wait_for(lambda: not job.active)
    assert job.error == ""
    answer = client.get(result_url(shop, job.number))
    assert 'filename="short.mp4"' in answer.headers["content-disposition"]
    (tmp_path / "short.mp4").write_bytes(answer.content)
    assert probe(tmp_path / "short.mp4").duration == pytest.approx(6.0, abs=0.5)


def test_what_is_played_as_it_is_needs_no_copy_until_a_browser_refuses_it(shop: Backend, client: Any) -> None:
    video = shop.indexed()[0].video
    assert playable(shop, video).kind == "video"
    copy = playable(shop, video, refused=True)
    assert copy.kind == "recoded"
    wait_for(lambda: playable(shop, video, refused=True).job is None)
    assert client.get(media_url(shop, "recoded", video)).headers["content-type"] == "video/mp4"


def test_results_are_sent_as_files(shop: Backend, client: Any) -> None:
    name = shop.results.keep("a red circle / <b>", shop.search(SearchQuery("a red circle"), 12))
    for form in FORMS:
        answer = client.get(export_url(shop, name, form))
        assert answer.status_code == 200, answer.text
        assert f"a%20red%20circle%20b{form}" in answer.headers["content-disposition"]
        assert "a film.mp4" in answer.text.replace("%20", " ")
    assert client.get(export_url(shop, "none", ".json")).status_code == 404
    assert client.get(export_url(shop, name, ".exe")).status_code == 404
    assert client.get(export_url(shop, name, ".json").replace(shop.secret, "guess")).status_code == 403


def test_uploads_are_checked_kept_and_indexed(
    shop: Backend, client: Any, tmp_path: Path, make_video: Callable[..., Path]
) -> None:
    film = make_video(tmp_path / "new.mp4", seconds=4, seed=9).read_bytes()

    def send(name: str, content: bytes | Iterator[bytes]) -> Any:
        return client.post(upload_url(shop), params={"name": name}, content=content)

    answer = send("../new.mp4", film)
    assert answer.json()["name"] == "new.mp4"
    wait_for(lambda: not shop.worker.busy)
    assert any(entry.path == str(shop.uploads / "new.mp4") for entry in shop.indexed())
    assert send("new.mp4", film).json()["name"] == "new (2).mp4"
    wait_for(lambda: not shop.worker.busy)

    before = sorted(shop.uploads.iterdir())
    assert send("x.mp4", b"no film").status_code == 422
    assert send("x.txt", film).status_code == 422
    assert send("x.mp4", bytes(200_001)).status_code == 413
    # One that does not say how long it is.
    assert send("x.mp4", (bytes(50_000) for _ in range(5))).status_code == 413
    assert send("x.mp4", b"").status_code == 422
    assert sorted(shop.uploads.iterdir()) == before

    shop.remove([str(shop.uploads / "new.mp4"), str(shop.uploads / "new (2).mp4")])
    assert list(shop.uploads.iterdir()) == []
    assert len(shop.indexed()) == 2


def test_an_upload_that_is_given_up_while_it_is_checked_leaves_nothing(
    shop: Backend, tmp_path: Path, make_video: Callable[..., Path]
) -> None:
    film = make_video(tmp_path / "left.mp4", seconds=4, seed=11).read_bytes()
    messages = [{"type": "http.request", "body": film, "more_body": False}, {"type": "http.disconnect"}]
    answers: list[Any] = []

    async def receive() -> Any:
        return messages.pop(0) if len(messages) > 1 else messages[0]

    async def send(message: Any) -> None:
        answers.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": upload_url(shop),
        "query_string": b"name=left.mp4",
        "headers": [],
    }
    app = Starlette(routes=[upload_route(lambda: shop)])
    with ThreadPoolExecutor(1) as thread:  # whose own loop does not meet that of a browser's tests
        thread.submit(anyio.run, app, scope, receive, send).result()
    assert answers[0]["status"] == 400
    assert not any(shop.uploads.iterdir())
    assert all(job.title != "left.mp4" for job in shop.worker.jobs())


def test_what_would_not_be_taken_is_told_before_it_is_sent(shop: Backend, client: Any) -> None:
    def ask(name: str, size: object) -> Any:
        return client.get(upload_url(shop), params={"name": name, "size": size})

    assert ask("new.mp4", 1000).json() == {"name": "new.mp4"}
    for name, size, status in (("x.txt", 1, 422), ("", 1, 422), ("x.mp4", 200_001, 413), ("x.mp4", "9" * 30, 413)):
        answer = ask(name, size)
        assert (answer.status_code, bool(answer.json()["reason"])) == (status, True)
    assert client.get(upload_url(shop).replace(shop.upload_token, shop.secret)).status_code == 403


def test_a_disk_without_room_is_told_before_and_while_a_file_is_sent(
    shop: Backend, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(100, 90, 10))  # type: ignore[attr-defined]
        answer = client.get(upload_url(shop), params={"name": "new.mp4", "size": 1000})
        assert answer.status_code == 507 and "not enough free space" in answer.json()["reason"]
    opened = Path.open

    def full(path: Path, *arguments: Any, **more: Any) -> Any:
        if path.name.endswith(".part"):
            opened(path, *arguments, **more).close()
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        return opened(path, *arguments, **more)

    monkeypatch.setattr(Path, "open", full)
    answer = client.post(upload_url(shop), params={"name": "new.mp4"}, content=b"film")
    assert (answer.status_code, answer.json()["reason"]) == (
        507,
        "the file could not be saved: No space left on device",
    )
    assert not any(shop.uploads.iterdir())


def test_only_a_few_files_are_taken_at_once_and_none_that_stalls(
    shop: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streamlit_app.uploads.STALLED_SECONDS", 1.0)
    app = Starlette(routes=[upload_route(lambda: shop)])

    async def send_slowly(statuses: list[int]) -> None:
        async def receive() -> Any:
            await anyio.sleep(0.3)  # something comes all the time, and never enough
            return {"type": "http.request", "body": b"a", "more_body": True}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                statuses.append(message["status"])

        scope = {
            "type": "http",
            "method": "POST",
            "path": upload_url(shop),
            "query_string": b"name=slow.mp4",
            "headers": [],
        }
        await app(scope, receive, send)

    async def send_all(statuses: list[int]) -> None:
        with anyio.fail_after(30):
            async with anyio.create_task_group() as group:
                for _ in range(MAX_UPLOADS + 2):
                    group.start_soon(send_slowly, statuses)

    statuses: list[int] = []
    with ThreadPoolExecutor(1) as thread:
        thread.submit(anyio.run, send_all, statuses).result()
        thread.submit(anyio.run, send_all, statuses).result()
    assert sorted(statuses) == [408] * (2 * MAX_UPLOADS) + [429] * 4, "places are given back"
    assert not any(shop.uploads.iterdir())


@pytest.mark.parametrize(
    "stem", ["x" * 5000, "\u3042" * 300, "\U0001f3ac" * 200, "con", "a\0b", "\u202egpj", "%2e%2e%2f"]
)
def test_names_of_every_kind_are_kept_as_some_name(
    shop: Backend, client: Any, tmp_path: Path, make_video: Callable[..., Path], stem: str
) -> None:
    film = make_video(tmp_path / "new.mp4", seconds=4, seed=13).read_bytes()
    answer = client.post(upload_url(shop), params={"name": f"{stem}.mp4"}, content=film)
    assert answer.status_code == 200, answer.text
    (kept,) = shop.uploads.iterdir()
    assert kept.name == answer.json()["name"] and kept.suffix == ".mp4"
    wait_for(lambda: not shop.worker.busy)
    assert len(shop.indexed()) == 3
    shop.remove([str(kept)])


def test_a_film_that_becomes_a_link_out_of_the_root_is_not_sent(
    shop: Backend, client: Any, tmp_path: Path, make_video: Callable[..., Path]
) -> None:
    video = next(entry for entry in shop.indexed() if entry.path.endswith("b.mp4"))
    path, aside = Path(video.path), tmp_path / "aside.mp4"
    path.rename(aside)
    try:
        path.symlink_to(aside)
        for kind, times in (("video", ()), ("poster", (1.0,)), ("clip", (1.0, 2.0))):
            answer = client.get(media_url(shop, kind, video.video, *times))
            assert (answer.status_code, "is a link to a file outside" in answer.text) == (404, True)
    finally:
        path.unlink()
        aside.rename(path)


def test_an_upload_whose_indexing_ends_early_is_deleted(
    shop: Backend, client: Any, tmp_path: Path, make_video: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    film = make_video(tmp_path / "new.mp4", seconds=4, seed=12).read_bytes()
    begun, go = threading.Event(), threading.Event()

    def hold(_: Job) -> None:
        begun.set()
        assert go.wait(30)

    def fail(*_: Any, **__: Any) -> None:
        raise VtgError("the model is gone")

    monkeypatch.setattr(shop.library, "add", fail)
    shop.worker.submit("index", "holds the worker", hold)
    assert begun.wait(30)
    sent = [client.post(upload_url(shop), params={"name": "new.mp4"}, content=film).json() for _ in range(2)]
    assert all((shop.uploads / answer["name"]).is_file() for answer in sent)
    cancelled, failed = (shop.worker.find(answer["job"]) for answer in sent)
    assert cancelled and failed
    cancelled.cancel()
    go.set()
    wait_for(lambda: not shop.worker.busy)
    assert (cancelled.state, failed.state) == (CANCELLED, FAILED)
    assert not any(shop.uploads.iterdir())


def test_parts_that_nobody_sends_any_more_are_deleted(tmp_path: Path) -> None:
    delete_abandoned_uploads(tmp_path / "none")
    for name in (".a.part", ".b.part", "c.part.mp4"):
        (tmp_path / name).write_text("part")
    for name in (".a.part", "c.part.mp4"):
        os.utime(tmp_path / name, (1000, 1000))
    delete_abandoned_uploads(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".b.part", "c.part.mp4"]


def test_answers_are_remembered_until_the_library_changes(
    shop: Backend, tmp_path: Path, make_video: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    search = shop.library.search
    monkeypatch.setattr(
        shop.library, "search", lambda query, *rest, **more: asked.append(str(query)) or search(query, *rest, **more)
    )
    first = shop.search(SearchQuery("a green star"), 12)
    assert shop.search(SearchQuery("a green star"), 12) == first
    assert asked == ["a green star"]
    make_video(tmp_path / "c.mp4", seconds=4, seed=7)
    job = add_videos(shop, [tmp_path / "c.mp4"], "c")
    wait_for(lambda: not job.active)
    shop.search(SearchQuery("a green star"), 12)
    assert asked == ["a green star"] * 2
    shop.remove([str(tmp_path / "c.mp4")])


def test_questions_of_several_visitors_take_turns(shop: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    searching, together = [], []
    search = shop.library.search

    def watched(*arguments: Any, **more: Any) -> Any:
        searching.append(None)
        together.append(len(searching))
        time.sleep(0.02)  # long enough for the others to come in, if they could
        found = search(*arguments, **more)
        searching.pop()
        return found

    monkeypatch.setattr(shop.library, "search", watched)
    shapes = ("circle", "square", "triangle", "star")
    with ThreadPoolExecutor(len(shapes)) as visitors:
        answers = list(visitors.map(lambda shape: shop.search(SearchQuery(f"an orange {shape}"), 3), shapes))
    assert together == [1] * len(shapes) and all(answers)


def test_lengths_are_filtered_and_questions_checked(shop: Backend) -> None:
    for hit in shop.search(SearchQuery("a red circle"), 50, lengths=(3.0, 5.0)):
        assert 3 <= hit.moment.end - hit.moment.start <= 5
    with pytest.raises(VtgError, match="5,000 characters"):
        shop.search(SearchQuery("x" * 5000), 12)
    with pytest.raises(VtgError, match="empty"):
        shop.search(SearchQuery(), 12)


def test_a_taken_port_is_one_line() -> None:
    listener = open_port("127.0.0.1", 0)
    try:
        with pytest.raises(VtgError, match="another --port"):
            open_port("127.0.0.1", listener.getsockname()[1])
        with pytest.raises(VtgError, match="not an address of this machine"):
            open_port("no.such.host.invalid", 0)
    finally:
        listener.close()
