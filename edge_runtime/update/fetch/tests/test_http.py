"""Over a real connection: ranges, what servers and networks in between do wrong, proxies, TLS with certificates of both sides."""

from __future__ import annotations

import hashlib
import random
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge_runtime.clock import FakeClock
from edge_runtime.errors import ConfigError, EndpointError
from edge_runtime.update.fetch import proxy as proxies
from edge_runtime.update.fetch.download import download
from edge_runtime.update.fetch.fetcher import FetchError, check_path, fetch_small
from edge_runtime.update.fetch.http import RECEIVE_BUFFER_BYTES, HttpFetcher
from edge_runtime.update.fetch.pace import Limits, Pace
from edge_runtime.update.fetch.partial import CHUNK_BYTES, Wanted
from edge_runtime.update.fetch.tests.server import Answer, Asked, Server, proper

PATH = "targets/models/surface/2.tar"
DATA = random.Random(6).randbytes(3 * CHUNK_BYTES + 4321)
WANTED = Wanted(PATH, len(DATA), hashlib.sha256(DATA).hexdigest())
FILES = {PATH: DATA, "metadata/timestamp.json": b"{}"}
LIMITS = Limits(leave_free_bytes=0, tries=3)


def get(server: Server, folder: Path, **changes: Any) -> bytes:
    fetcher = HttpFetcher(server.url, **changes)
    return download(fetcher, WANTED, folder, FakeClock(), LIMITS, rng=random.Random(1)).read_bytes()


def first(wrong: Callable[[Asked], Answer], count: int = 1) -> Callable[[Asked], Answer]:
    """The first requests are answered wrongly, the others as they should be."""
    return lambda asked: wrong(asked) if asked.number <= count else proper(FILES, asked)


def test_a_file(tmp_path: Path) -> None:
    with Server(lambda asked: proper(FILES, asked)) as server:
        assert get(server, tmp_path) == DATA
    (asked,) = server.asked
    assert (asked.path, asked.span) == (f"/{PATH}", None)
    assert asked.headers["accept-encoding"] == "identity"


@pytest.mark.parametrize("cut", [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES, len(DATA) - 1])
def test_a_body_that_ends_early_is_taken_up_at_the_very_byte(cut: int, tmp_path: Path) -> None:
    def truncated(asked: Asked) -> Answer:
        answer = proper(FILES, asked)
        answer.cut = cut
        return answer

    with Server(first(truncated)) as server:
        assert get(server, tmp_path) == DATA
    assert server.sent_bytes == len(DATA)
    assert server.asked[1].span == ((cut, len(DATA)) if cut else None)
    assert server.asked[1].headers.get("if-range") == ('"first"' if cut else None)


def test_what_is_on_the_way_when_the_device_dies_is_bounded(tmp_path: Path) -> None:
    with Server(lambda asked: proper(FILES, asked)) as server:
        reply = HttpFetcher(server.url).open(PATH, Pace(FakeClock()))
        got = len(reply.read())
        reply.close()
    assert server.sent_bytes < got + 8 * RECEIVE_BUFFER_BYTES < len(DATA)


BETTER_LATER = {
    "503": lambda asked: Answer(503),
    "500": lambda asked: Answer(500, body=b"oops"),
    "429": lambda asked: Answer(429, {"Retry-After": "2"}),
    "login page": lambda asked: Answer(200, {"Content-Type": "text/html; charset=utf-8"}, b"<html>log in</html>"),
    "login page of the right length": lambda asked: Answer(200, {"Content-Type": "text/html"}, bytes(len(DATA))),
    "login redirect": lambda asked: Answer(302, {"Location": "http://login.example/?to=x"}),
    "redirect to plain http elsewhere": lambda asked: Answer(307, {"Location": "http://127.0.0.1:1/x"}),
    "redirect to a file": lambda asked: Answer(301, {"Location": "file:///etc/passwd"}),
    "redirect to nowhere": lambda asked: Answer(308, {"Location": "http://[oops"}),
    "no answer": lambda asked: Answer(raw=b" "),
    "not HTTP": lambda asked: Answer(raw=b"SSH-2.0-OpenSSH\r\n\r\n"),
    "headers without end": lambda asked: Answer(raw=b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 5000),
    "one header without end": lambda asked: Answer(raw=b"HTTP/1.1 200 OK\r\nX: " + b"y" * 200_000),
    "chunks that are none": lambda asked: Answer(200, {"Transfer-Encoding": "chunked", "Content-Length": ""}, b"zz\r\n"),
}  # fmt: skip


@pytest.mark.parametrize("name", BETTER_LATER)
def test_trouble_that_passes(name: str, tmp_path: Path) -> None:
    with Server(first(BETTER_LATER[name], 2)) as server:
        assert get(server, tmp_path) == DATA
    assert len(server.asked) == 3


REFUSED: dict[str, tuple[Callable[[Asked], Answer], str]] = {
    "404": (lambda asked: Answer(404), "HTTP 404"),
    "410": (lambda asked: Answer(410), "HTTP 410"),
    "401": (lambda asked: Answer(401), "HTTP 401"),
    "403": (lambda asked: Answer(403), "HTTP 403"),
    "416": (lambda asked: Answer(416), "not the file that is meant"),
    "304": (lambda asked: Answer(304), "HTTP 304"),
    "another length": (lambda asked: Answer(200, body=DATA[:-1]), "were signed"),
    "compressed": (lambda asked: Answer(200, {"Content-Encoding": "gzip"}, DATA), "nobody asked"),
    "a part nobody asked for": (
        lambda asked: Answer(206, {"Content-Range": f"bytes 0-{len(DATA) - 1}/{len(DATA)}"}, DATA), "asked for bytes"
    ),
    "a part without a range": (lambda asked: Answer(206, body=DATA), "Content-Range"),
    "a range from 9 to 3": (lambda asked: Answer(206, {"Content-Range": "bytes 9-3/10"}), "Content-Range"),
    "redirects in a circle": (lambda asked: Answer(302, {"Location": asked.path}), "more than 3 redirects"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_asking_again_does_not_help(name: str, tmp_path: Path) -> None:
    wrong, told = REFUSED[name]
    with Server(wrong) as server, pytest.raises(FetchError, match=told) as error:
        get(server, tmp_path)
    assert not error.value.again
    assert error.value.missing == (name in ("404", "410"))
    assert len(server.asked) == (4 if "circle" in name else 1)


def test_a_redirect_on_the_same_host_is_followed(tmp_path: Path) -> None:
    def moved(asked: Asked) -> Answer:
        if asked.path.startswith("/new/"):
            return proper({f"new/{PATH}": DATA}, asked)
        return Answer(302, {"Location": f"/new{asked.path}"})

    with Server(moved) as server:
        assert get(server, tmp_path) == DATA


def test_a_body_in_chunks_without_a_length(tmp_path: Path) -> None:
    body = b"".join(b"%x\r\n%s\r\n" % (len(p), p) for p in (DATA[:100_000], DATA[100_000:])) + b"0\r\n\r\n"
    with Server(lambda asked: Answer(200, {"Transfer-Encoding": "chunked", "Content-Length": ""}, body)) as server:
        assert get(server, tmp_path) == DATA


def test_endless_data_ends(tmp_path: Path) -> None:
    """A body without a length that is longer than the file: what is beyond is never read."""
    with Server(lambda asked: Answer(200, {"Content-Length": ""}, DATA * 20)) as server:
        assert get(server, tmp_path) == DATA
    assert server.sent_bytes < 2 * len(DATA)
    with Server(lambda asked: Answer(200, {"Content-Length": ""}, bytes(40_000_000))) as server:
        with pytest.raises(FetchError, match="more than 1000 bytes"):
            fetch_small(HttpFetcher(server.url), PATH, Pace(FakeClock()), 1000)
        assert server.sent_bytes < 4_000_000


def changing(before: bytes, honest: bool) -> Callable[[Asked], Answer]:
    """`before` breaks off in its second chunk, then there is DATA. Not honest: a server that heeds no If-Range."""

    def answer(asked: Asked) -> Answer:
        if asked.number == 1:
            return Answer(200, {"ETag": '"old"'}, before, cut=CHUNK_BYTES + 5000)
        if not honest and asked.span:
            asked = Asked(asked.path, {**asked.headers, "if-range": '"new"'}, asked.number)
        return proper(FILES, asked, etag='"new"')

    return answer


@pytest.mark.parametrize("honest", [True, False])
def test_a_file_that_changes_in_between(honest: bool, tmp_path: Path) -> None:
    with Server(changing(bytes(len(DATA)), honest)) as server:
        assert get(server, tmp_path) == DATA
    assert len(server.asked) == (2 if honest else 3)
    assert server.sent_bytes <= len(DATA) * (1 if honest else 2) + CHUNK_BYTES + 5000


def test_a_drip_of_headers_is_as_slow_as_a_drip_of_content() -> None:
    """The clock runs a second for each byte; without the pace this would read for days."""

    class Ticking(FakeClock):
        def monotonic_ns(self) -> int:
            self.advance(0.5)
            return super().monotonic_ns()

    answers = {"headers": b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 20, "body": b"HTTP/1.1 200 OK\r\n\r\n" + bytes(100)}
    for raw in answers.values():
        with Server(lambda asked, raw=raw: Answer(raw=raw, headers={})) as server:  # type: ignore[misc]
            pace = Pace(Ticking(), Limits(least_bytes_s=1e6, window_s=1))
            with pytest.raises(EndpointError, match="a second"):
                fetch_small(HttpFetcher(server.url), PATH, pace, 1000)


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "../x", "a/../b", "a//b", ".x", "a/.", "a\n", "a b", "a%2e", "", "м", "a" * 600]
)
def test_a_path_leads_down(path: str) -> None:
    with pytest.raises(FetchError, match="not a path of a repository"):
        check_path(path)


@pytest.mark.parametrize(
    "url", ["ftp://x/", "https://", "https://u:p@x/", "https://x:99999/", "x", "http://example.com/"]
)
def test_an_address_that_cannot_be(url: str) -> None:
    with pytest.raises(ConfigError, match="https://"):
        HttpFetcher(url)


# --- proxies ---------------------------------------------------------------------------------------------------------------


def test_which_proxy() -> None:
    environment = {
        "https_proxy": "http://u:p%40@a:8080",
        "no_proxy": "plant.example, .lan",
        "HTTP_PROXY": "http://evil:1",
    }
    found = proxies.choose("", environment, "https", "cloud.example")
    assert found == proxies.Proxy("a", 8080, "Basic dTpwQA==")
    assert "dTpwQA" not in repr(found)
    assert proxies.choose("", environment, "http", "cloud.example") is None
    for host in ("plant.example", "x.plant.example", "h.lan"):
        assert proxies.choose("", environment, "https", host) is None
    assert proxies.choose("b:3128", environment, "https", "h.lan") == proxies.Proxy("b", 3128)
    assert proxies.choose("direct", environment, "https", "cloud.example") is None
    assert proxies.choose("", {"ALL_PROXY": "c"}, "https", "x") == proxies.Proxy("c", 3128)
    assert proxies.choose("", {"all_proxy": "c", "no_proxy": "*"}, "https", "x") is None


@pytest.mark.parametrize("value", ["https://a:1", "socks5://a:1", "http://", "http://a:0x", "http://a:1/path"])
def test_a_proxy_that_cannot_be(value: str) -> None:
    with pytest.raises(ConfigError, match="proxy"):
        proxies.read(value, "[update] proxy")


def test_plain_http_through_a_proxy(tmp_path: Path) -> None:
    def proxied(asked: Asked) -> Answer:
        assert asked.path == f"http://localhost/repo/{PATH}"
        assert asked.headers["proxy-authorization"] == "Basic dTpw"
        return proper({PATH: DATA}, Asked(PATH, asked.headers, asked.number))

    with Server(proxied) as server:
        fetcher = HttpFetcher("http://localhost/repo", proxy=f"http://u:p@127.0.0.1:{server.port}", environment={})
        assert download(fetcher, WANTED, tmp_path, FakeClock(), LIMITS).read_bytes() == DATA


@pytest.mark.parametrize(("status", "again"), [(407, False), (403, False), (502, True)])
def test_a_proxy_that_refuses_the_tunnel(status: int, again: bool) -> None:
    with Server(lambda asked: Answer(status)) as server:
        fetcher = HttpFetcher("https://cloud.example/repo", proxy=f"127.0.0.1:{server.port}")
        with pytest.raises(FetchError, match=f"refuses a tunnel to cloud.example:443 with {status}") as error:
            fetcher.open(PATH, Pace(FakeClock()))
    assert error.value.again is again
    assert server.asked[0].path == "cloud.example:443"


# --- TLS -------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from edge_runtime.update.fetch.tests.certificates import make

    return make(tmp_path_factory.mktemp("ca"))


def server_tls(authority: Path) -> ssl.SSLContext:
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(authority / "ca.pem"))
    tls.load_cert_chain(authority / "server.pem", authority / "server.key")
    tls.verify_mode = ssl.CERT_REQUIRED
    return tls


def device_tls(authority: Path, certificate: bool = True, ca: str = "ca.pem") -> ssl.SSLContext:
    tls = ssl.create_default_context(cafile=str(authority / ca))
    if certificate:
        tls.load_cert_chain(authority / "device.pem", authority / "device.key")
    return tls


def test_certificates_of_both_sides(authority: Path, tmp_path: Path) -> None:
    with Server(lambda asked: proper(FILES, asked), server_tls(authority)) as server:
        assert get(server, tmp_path, tls=device_tls(authority)) == DATA


def test_without_a_certificate_there_is_no_answer(authority: Path, tmp_path: Path) -> None:
    with Server(lambda asked: proper(FILES, asked), server_tls(authority)) as server:
        with pytest.raises(FetchError, match=r"no answer|no connection|broke"):
            get(server, tmp_path, tls=device_tls(authority, certificate=False))
        assert server.asked == []


def test_a_server_of_another_ca_is_not_spoken_to(authority: Path, tmp_path: Path) -> None:
    with Server(lambda asked: proper(FILES, asked), server_tls(authority)) as server:
        with pytest.raises(FetchError, match="not of the CA this device trusts") as error:
            get(server, tmp_path, tls=device_tls(authority, ca="other.pem"))
        assert not error.value.again
        assert server.asked == []
