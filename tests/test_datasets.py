"""Published data sets, and where their files come from. Servers run on the loopback interface only."""

import hashlib
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch

from manifolds import Sphere
from rfm.datasets import (
    DatasetError,
    LatitudeLongitude,
    airports,
    choose_coordinates,
    deduplicated_split,
    load,
    read_table,
)
from rfm.datasets.download import cache_folder, find_or_download

CONTENT = b"lat,lon\n1,2\n" * 20_000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/missing.csv":
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(CONTENT[: 1000 if self.path == "/short.csv" else None])

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("no_proxy", "*")
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{httpd.server_port}"
        finally:
            httpd.shutdown()
            thread.join()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("RFM_DATA", raising=False)
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setenv("RFM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def closed_url() -> str:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{listener.getsockname()[1]}/fire.csv"


def message_of(url: str, sha256: str = SHA256) -> str:
    with pytest.raises(DatasetError) as caught:
        find_or_download("earth/points.csv", sha256, url, timeout=5)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


# Where files come from.


def test_download_then_cache(cache: Path, server: str) -> None:
    path = find_or_download("earth/points.csv", SHA256, f"{server}/points.csv")
    assert path == cache / "earth" / "points.csv"
    assert path.read_bytes() == CONTENT
    assert list(path.parent.iterdir()) == [path]
    assert find_or_download("earth/points.csv", SHA256, closed_url()) == path


def test_the_data_folder_goes_first(cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "data" / "earth" / "points.csv"
    file.parent.mkdir(parents=True)
    file.write_bytes(CONTENT)
    monkeypatch.setenv("RFM_DATA", str(tmp_path / "data"))
    assert find_or_download("earth/points.csv", SHA256, closed_url()) == file
    assert not cache.exists()
    file.write_bytes(CONTENT + b"3,4\n")
    assert "RFM_DATA" in message_of(closed_url())


def test_no_network(cache: Path) -> None:
    message = message_of(closed_url())
    assert "cannot be downloaded" in message
    assert "set RFM_DATA to a folder that holds earth/points.csv" in message
    assert list((cache / "earth").iterdir()) == []


@pytest.mark.parametrize("url", ["not-a-url", "http://127.0.0.1:notaport/x", "file:///nowhere/at/all"])
def test_addresses_that_lead_nowhere(cache: Path, url: str) -> None:
    assert "cannot be downloaded" in message_of(url)


def test_server_says_no(cache: Path, server: str) -> None:
    assert "404" in message_of(f"{server}/missing.csv")


def test_server_that_stays_silent(cache: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, pytest.raises(DatasetError, match="timed out"):
        find_or_download("earth/x.csv", SHA256, f"http://127.0.0.1:{listener.getsockname()[1]}/", timeout=0.1)


@pytest.mark.parametrize("name", ["points.csv", "short.csv"])
def test_a_download_with_another_checksum_leaves_nothing(cache: Path, server: str, name: str) -> None:
    message = message_of(f"{server}/{name}", sha256="0" * 64 if name == "points.csv" else SHA256)
    assert "not the published file" in message
    assert list((cache / "earth").iterdir()) == []


def test_a_cached_file_with_another_checksum_is_left_alone(cache: Path, server: str) -> None:
    file = cache / "earth" / "points.csv"
    file.parent.mkdir(parents=True)
    file.write_text("mine")
    assert str(file) in message_of(f"{server}/points.csv")
    assert file.read_text() == "mine"


def test_a_cache_that_cannot_be_written(cache: Path, server: str) -> None:
    cache.write_text("a file where a folder should be")
    message = message_of(f"{server}/points.csv")
    assert "the cache cannot be written" in message
    assert "RFM_CACHE" in message


def test_a_folder_where_a_file_should_be(cache: Path) -> None:
    (cache / "earth" / "points.csv").mkdir(parents=True)
    assert "cannot be read" in message_of(closed_url())


def test_cache_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RFM_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/base")
    assert cache_folder() == Path("/base/rfm")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/someone")
    assert cache_folder() == Path("/home/someone/.cache/rfm")


# The sets.


@pytest.mark.parametrize(
    ("name", "rows", "places"),
    [("volcano", 827, 267), ("earthquake", 6120, 5447), ("flood", 4875, 4861), ("fire", 12809, 12802)],
)
def test_benchmark_sets(rfm_data: Path, name: str, rows: int, places: int) -> None:
    dataset = load(name)
    assert dataset.points.shape == (rows, 3)
    assert dataset.points.dtype == torch.float64
    Sphere(2).check_point(dataset.points)
    for values in (dataset.points, dataset.degrees):
        assert sum(len(part) for part in deduplicated_split(values, 0)) == places
    assert dataset.path.is_relative_to(rfm_data)
    assert dataset.sha256 == hashlib.sha256(dataset.path.read_bytes()).hexdigest()
    assert dataset.licence
    assert dataset.citation
    columns = ["1", "2"] if name == "fire" else None
    assert choose_coordinates(Sphere(2), read_table(dataset.path), columns) == dataset.coordinates


def test_airports() -> None:
    dataset = airports()
    assert len(dataset) > 20_000
    Sphere(2).check_point(dataset.points)
    assert dataset.coordinates == LatitudeLongitude(("lat", "lon"))
    assert dataset.coordinates == choose_coordinates(Sphere(2), read_table(dataset.path))
    assert len(dataset.sha256) == 64
    assert dataset.licence == "MIT"


def test_airports_without_their_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DatasetError, match="airportsdata is not installed"):
        airports()


def test_unknown_name() -> None:
    with pytest.raises(DatasetError, match="volcano, earthquake, flood, fire and airports"):
        load("quakes")


def test_no_network_and_no_file(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*arguments: Any, **options: Any) -> None:
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(urllib.request, "urlopen", unreachable)
    monkeypatch.setattr(urllib.request.OpenerDirector, "open", unreachable)
    with pytest.raises(DatasetError, match=r"set RFM_DATA to a folder that holds earth/flood\.csv"):
        load("flood")
