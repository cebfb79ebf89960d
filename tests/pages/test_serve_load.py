"""`fastzss serve` under load, and under whatever the network sends: nothing is lost, written or kept."""

import io
import random
import socket
import struct
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor

import httpx
import psutil
import pytest
from helpers.serving import WORDS, Server, opened, pixels, scene, segment, sentence


def test_eight_clients_lose_nothing_and_get_what_is_theirs(server, model):
    images, lists = [scene(index) for index in range(8)], [WORDS, "apple, sand, water", "bird, brick, grass, sky"]
    jobs = [(images[n % 8], lists[n % 3]) for n in range(50)]
    expected = {job: model.segment(*job).mask for job in set(jobs)}
    clients = [server.client() for _ in range(8)]

    def ask(n):
        image, classes = jobs[n]
        return segment(clients[n % 8], image, classes=classes)

    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(ask, range(50)))
    assert [answer.status_code for answer in answers] == [200] * 50
    for job, answer in zip(jobs, answers, strict=True):
        assert (pixels(answer.json()["mask"]) == expected[job]).all()
    for client in clients:
        client.close()


def test_memory_stays_within_the_limit(server, client):
    process = psutil.Process(server.process.pid)
    for index in range(10):
        client.post("/api/look", files={"image": scene(index)})
    before, first = process.memory_info().rss, client.post("/api/look", files={"image": scene(0)}).json()["look"]
    size = (1400, 1400)
    for index in range(40):
        client.post("/api/look", files={"image": big(index, size)})
    assert segment(client, look=first, classes="a").status_code == 410  # it was let go
    assert process.memory_info().rss - before < 250e6, "40 images of 6 MB, of which 40 MB may be kept"


def big(index, size):
    file = io.BytesIO()
    opened(scene(index % 8)).resize(size).save(file, "JPEG")
    return file.getvalue()


def bomb(width, height):
    """A PNG of few bytes that says it is huge."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(b"\0" * 100_000))
        + chunk(b"IEND", b"")
    )


def malformed(random):
    """(headers, body) of requests, none of which can be answered."""
    good, boundary = scene(1), "b0"

    def form(image, name="image", filename="a.png", kind="image/png", end=True, classes="tree"):
        parts = f'--{boundary}\r\nContent-Disposition: form-data; name="classes"\r\n\r\n{classes}\r\n'.encode()
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"; filename="{filename}"\r\n'
        parts += head.encode() + f"Content-Type: {kind}\r\n\r\n".encode() + image + b"\r\n"
        return parts + (f"--{boundary}--\r\n".encode() if end else b"")

    plain = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
    jpeg = scene(1, form="JPEG")
    while True:
        kind = random.randrange(9)
        if kind == 0:  # cut short
            yield plain, form(good[: random.randrange(len(good) // 2)])
        elif kind == 1:  # a form without an end
            body = form(good, end=False)
            yield plain, body[: random.randrange(1, len(body))]
        elif kind == 2:  # bombs and huge sides
            sides = [(100_000, 100_000), (2**31 - 1, 1), (1, 2**31 - 1), (8000, 8000), (0, 0), (65_000, 65_000)]
            yield plain, form(bomb(*random.choice(sides)))
        elif kind == 3:  # another type
            things = [
                b"",
                b"%PDF-1.7",
                b"GIF89a",
                b"<svg xmlns='http://www.w3.org/2000/svg'/>",
                b"%!PS-Adobe",
                b"\0" * 64,
            ]
            yield plain, form(random.choice(things))
        elif kind == 4:  # damaged bytes
            broken = bytearray(jpeg[:20])
            yield plain, form(bytes(broken) + random.randbytes(500))
        elif kind == 5:  # names that lead elsewhere
            name = random.choice(["../../../tmp/x", "/etc/passwd", "..\\..\\x", "a\0b", "%2e%2e%2fx", "CON"])
            yield plain, form(good[:30], filename=name)
        elif kind == 6:  # fields that are none
            yield plain, form(good, name=random.choice(["", "file", "../image", "image[]", "\u0001", "x" * 5000]))
        elif kind == 7:  # headers
            types = [
                "",
                "text/plain",
                "multipart/form-data",
                "multipart/form-data; boundary=",
                "application/json",
                "multipart/form-data; boundary=other",
                "multipart/mixed; boundary=b0",
                "image/png",
                ";;;=" * 50,
            ]
            yield {"Content-Type": random.choice(types)}, form(good)
        else:  # noise
            yield plain, random.randbytes(random.randrange(2000))


def test_three_hundred_malformed_uploads(server, client):
    before, source = set(server.folder.rglob("*")), malformed(random.Random(0))
    for number in range(300):
        headers, body = next(source)
        answer = client.post("/api/segment", content=body, headers=headers)
        assert 400 <= answer.status_code < 500, (number, answer.status_code, answer.text, body[:300])
        sentence(answer)
    assert set(server.folder.rglob("*")) == before == set(), "something was written"
    assert segment(client, scene(), classes=WORDS).status_code == 200
    opened_files = [file.path for file in psutil.Process(server.process.pid).open_files()]
    assert not [path for path in opened_files if str(server.folder) in path]
    assert not server.complaints


def test_what_is_no_http_at_all(server, client):
    port = int(server.address.rpartition(":")[2])
    negative = b"POST /api/segment HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n"
    for line in (b"\x16\x03\x01\x02\x00", b"GET / HTTP/9.9\r\n", negative, b"GET /\0 HTTP/1.1\r\n", b"A" * 100_000):
        with socket.create_connection(("127.0.0.1", port), 5) as raw:
            raw.sendall(line + b"\r\n\r\n")
            raw.settimeout(10)
            try:
                said = raw.recv(1000)
            except ConnectionResetError:
                said = b""
            assert not said or said.startswith(b"HTTP/1.1 4"), said
    assert client.get("/api/about").status_code == 200


def test_too_many_bytes_are_not_kept(client):
    answer = client.post("/api/segment", data={"classes": "a"}, files={"image": b"\0" * 21_000_000})
    assert answer.status_code == 413 and "20 MB" in sentence(answer)
    assert client.get("/api/about").status_code == 200


def test_beyond_the_bound_is_503_and_sigterm_finishes_what_runs(trained, tmp_path):
    server = Server(trained, tmp_path / "here", "--waiting", "2")
    codes, lock = [], threading.Lock()

    def ask():
        try:
            with server.client() as client:
                answer = segment(client, big(1, (1400, 1400)), classes=WORDS)
            code = answer.status_code
            if code == 503:
                sentence(answer)
        except httpx.TransportError:
            code = "no connection"
        with lock:
            codes.append(code)

    threads = [threading.Thread(target=ask) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(codes) == {200, 503} and codes.count(200) >= 3, codes

    codes.clear()
    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    with server.client() as client:  # until one runs, and others wait
        time.sleep(0.2)
        assert client.get("/api/about").status_code == 200
    assert server.stop() == 0
    for thread in threads:
        thread.join()
    assert set(codes) <= {200, 503, "no connection"} and 200 in codes, codes
    with pytest.raises(httpx.TransportError), server.client() as client:
        client.get("/api/about")
    assert not [line for line in server.complaints if "Traceback" in line]


def test_beyond_this_machine_a_token_is_needed(trained, tmp_path):
    server = Server(trained, tmp_path / "here", "--host", "0.0.0.0")
    server.address = server.address.replace("0.0.0.0", "127.0.0.1")
    try:
        with server.client() as client:
            assert len(server.token) >= 32
            assert client.get("/").status_code == 401 and "token" in sentence(client.get("/"))
            assert client.get("/?token=wrong").status_code == 401
            right = {"Authorization": f"Bearer {server.token}"}
            assert client.get("/api/about", headers=right).status_code == 200
            answer = client.get(f"/?token={server.token}")
            assert answer.status_code == 303 and "HttpOnly" in answer.headers["set-cookie"]
            assert client.get("/api/about").status_code == 200  # by the cookie
    finally:
        assert server.stop() == 0
