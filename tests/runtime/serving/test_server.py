"""The HTTP interface, with the tiny model behind it."""

import base64
import json
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import httpx
import numpy as np
import pytest
from fastapi.testclient import TestClient

from robustscanner import Recognizer, serve
from robustscanner.letters import as_json
from robustscanner.serving.app import Server
from robustscanner.serving.settings import BatchOptions, Limits
from tests.convert.conftest import TINY
from tests.runtime.serving.conftest import EDGE, as_png, listening, picture, sign

ROOT = Path(__file__).parents[3]
PNG, FORM = {"Content-Type": "image/png"}, {"Content-Type": "multipart/form-data; boundary=b"}


@pytest.fixture(scope="module")
def expected() -> list[dict]:
    with Recognizer(TINY) as recognizer:
        readings = recognizer.read_batch([picture(seed) for seed in range(3)])
    return [{"text": reading.text, "score": round(reading.score, 4)} for reading in readings]


def client(**settings: object) -> TestClient:
    return TestClient(Server(lambda: Recognizer(TINY), **settings).app())  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def served() -> Iterator[TestClient]:
    with client(limits=Limits(body_bytes=100_000, pictures=3)) as found:
        yield found


def test_a_file_as_it_is(served: TestClient, expected: list[dict]) -> None:
    answer = served.post("/v1/read", content=picture(0), headers=PNG)
    assert (answer.status_code, answer.json()) == (200, {"readings": expected[:1]})


def test_a_form_of_files(served: TestClient, expected: list[dict]) -> None:
    files = [("images", (f"{seed}.png", picture(seed), "image/png")) for seed in range(3)]
    assert served.post("/v1/read", files=files).json() == {"readings": expected}


def test_base64_in_json(served: TestClient, expected: list[dict]) -> None:
    images = [base64.b64encode(picture(seed)).decode() for seed in range(3)]
    assert served.post("/v1/read", json={"images": images}).json() == {"readings": expected}


def test_constraints_come_along(served: TestClient) -> None:
    wanted = {"characters": "0-9", "length": "3"}
    asked = [
        served.post("/v1/read", content=picture(0), params=wanted),
        served.post("/v1/read", files={"images": picture(0)}, data=wanted),
        served.post(
            "/v1/read",
            json={"images": [base64.b64encode(picture(0)).decode()], "constraint": {"characters": "0-9", "length": 3}},
        ),
    ]
    found = {answer.json()["readings"][0]["text"] for answer in asked}
    assert len(found) == 1
    assert len(text := found.pop()) == 3
    assert text.isdigit()


@pytest.fixture(scope="module")
def shipped() -> Iterator[TestClient]:
    """`edge`, which knows letters."""
    with TestClient(Server(lambda: Recognizer(EDGE), limits=Limits(pictures=3)).app()) as found:
        yield found


def test_letters_come_along(shipped: TestClient) -> None:
    file = as_png(sign())
    asked = [
        shipped.post("/v1/read", content=file, params={"letters": "1"}),
        shipped.post("/v1/read", files={"images": file}, data={"letters": "true"}),
        shipped.post("/v1/read", json={"images": [base64.b64encode(file).decode()], "letters": True}),
    ]
    with Recognizer(EDGE) as recognizer:
        expected = json.loads(json.dumps([as_json(letter) for letter in recognizer.letters(file, "EXIT")]))
    for answer in asked:
        assert answer.json()["readings"][0]["letters"] == expected
    assert "letters" not in shipped.post("/v1/read", content=file).json()["readings"][0]


def test_an_engine_without_letters_says_so(served: TestClient, expected: list[dict]) -> None:
    """Whoever asks for them is told, and no one else."""
    with ThreadPoolExecutor() as pool:
        wanting = pool.submit(served.post, "/v1/read", content=picture(0), params={"letters": "1"})
        plain = pool.submit(served.post, "/v1/read", content=picture(0))
    assert (wanting.result().status_code, plain.result().json()) == (422, {"readings": expected[:1]})
    assert "older than letters" in wanting.result().json()["error"]


def test_boxes_of_a_photo(shipped: TestClient) -> None:
    photo = np.full((400, 400, 3), 120, np.uint8)
    photo[20:80, 100:290], photo[150:340, 40:100] = sign(), np.rot90(sign(), -1)
    boxes = [[100, 20, 190, 60], [[99, 150], [99, 339], [40, 339], [40, 150]]]
    file = as_png(photo)
    asked = [
        shipped.post("/v1/read", content=file, params={"letters": "1", "boxes": json.dumps(boxes)}),
        shipped.post("/v1/read", files={"images": file}, data={"letters": "1", "boxes": json.dumps(boxes)}),
        shipped.post("/v1/read", json={"images": [base64.b64encode(file).decode()], "letters": True, "boxes": boxes}),
    ]
    for answer in asked:
        upright, turned = answer.json()["readings"]
        assert upright["text"] == turned["text"] == "EXIT"
        (left, top), *_ = upright["letters"][0]["quad"]
        assert (100 <= left < 130, top) == (True, 20)
        (right, begin), *_ = turned["letters"][0]["quad"]
        assert (right, 150 <= begin < 180) == (99, True)
    assert shipped.post("/v1/read", content=file, params={"boxes": "[]"}).json() == {"readings": []}


@pytest.mark.parametrize(
    ("boxes", "status", "message"),
    [
        ("[", 422, "not JSON"),
        ("3", 422, "boxes: not a list"),
        ("[[1, 2, 3]]", 422, "boxes: region 0 is neither"),
        ("[[1, 2, 0, 5]]", 422, "is empty"),
        ("[[0, 0, 900, 900]]", 422, "not within the photo"),
        ("[[[5, 5], [5, 5], [5, 5], [5, 5]]]", 422, "span no area"),
        (json.dumps([[0, 0, 9, 9]] * 4), 413, "at most 3"),
    ],
)
def test_boxes_that_make_no_sense(shipped: TestClient, boxes: str, status: int, message: str) -> None:
    answer = shipped.post("/v1/read", content=as_png(sign()), params={"boxes": boxes})
    assert answer.status_code == status
    assert message in answer.json()["error"]


def test_boxes_are_of_one_photo(shipped: TestClient) -> None:
    files = [("images", as_png(sign()))] * 2
    answer = shipped.post("/v1/read", files=files, data={"boxes": "[[0, 0, 9, 9]]"})
    assert (answer.status_code, "one photo" in answer.json()["error"]) == (422, True)


def test_boxes_that_would_fill_the_memory(shipped: TestClient) -> None:
    photo = np.zeros((6000, 6000, 3), np.uint8)
    answer = shipped.post("/v1/read", content=as_png(photo), params={"boxes": json.dumps([[0, 0, 6000, 6000]] * 2)})
    assert (answer.status_code, "in parts" in answer.json()["error"]) == (413, True)


def test_a_bad_picture_does_not_spoil_the_others(served: TestClient, expected: list[dict]) -> None:
    files = [("images", picture(0)), ("images", b"no picture"), ("images", picture(2))]
    first, bad, last = served.post("/v1/read", files=files).json()["readings"]
    assert [first, last] == [expected[0], expected[2]]
    assert "not a picture" in bad["error"]


@pytest.mark.parametrize(
    ("asked", "status", "message"),
    [
        ({"content": b"no picture"}, 422, "not a picture"),
        ({"content": b""}, 422, "no picture"),
        ({"json": {"images": ["%"]}}, 422, "not base64"),
        ({"json": {"images": ["iVBORw0KGgo…"]}}, 422, "not base64"),
        ({"json": {"pictures": []}}, 422, "images: field required"),
        ({"content": b"{", "headers": {"Content-Type": "application/json"}}, 422, "invalid json"),
        (
            {"content": b"x", "headers": {"Content-Type": "multipart/form-data; boundary=b"}},
            422,
            "cannot|not a form|no pic",
        ),
        ({"content": bytes(100_001)}, 413, "more than"),
        ({"content": iter([bytes(60_000)] * 2)}, 413, "more than"),
        ({"files": [("images", b"x")] * 4}, 413, "at most 3"),
        ({"content": picture(0), "params": {"pattern": "("}}, 422, "is no pattern"),
        ({"content": picture(0), "params": {"pattern": "é"}}, 422, "no text"),
        ({"content": picture(0), "params": {"length": "x"}}, 422, "length"),
        ({"content": picture(0), "params": {"pattern": "a" * 501}}, 422, "pattern"),
    ],
)
def test_what_is_wrong_is_said(served: TestClient, asked: dict, status: int, message: str) -> None:
    answer = served.post("/v1/read", **asked)
    assert answer.status_code == status
    assert any(part in answer.json()["error"].lower() for part in message.split("|"))
    assert str(ROOT) not in answer.text


def test_health_metrics_page_and_description(served: TestClient) -> None:
    assert served.get("/health/live").json()["status"] == "live"
    assert served.get("/health/ready").json() == {"status": "ready", "model": "tiny"}
    counted = served.get("/metrics").text
    assert 'robustscanner_requests_total{status="200"}' in counted
    assert "robustscanner_batch_pictures_bucket" in counted
    assert "Drop pictures" in served.get("/").text
    body = served.get("/openapi.json").json()["paths"]["/v1/read"]["post"]["requestBody"]["content"]
    assert set(body) == {"image/jpeg", "image/png", "multipart/form-data", "application/json"}


def test_the_description_can_be_followed(served: TestClient) -> None:
    description = served.get("/openapi.json").json()
    assert "$defs" not in str(description["paths"])
    known = {f"#/components/schemas/{name}" for name in description["components"]["schemas"]}
    assert set(re.findall(r"'\$ref': '([^']+)'", str(description))) <= known
    assert set(description["paths"]["/metrics"]["get"]["responses"]["200"]["content"]) == {"text/plain"}
    example = description["paths"]["/v1/read"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert served.post("/v1/read", json={"images": example["properties"]["images"]["examples"][0]}).status_code == 200


def test_only_those_with_the_token() -> None:
    with client(token="secret") as served:
        assert served.post("/v1/read", content=picture(0)).status_code == 401
        assert served.post("/v1/read", content=picture(0), headers={"Authorization": "Bearer no"}).status_code == 401
        answer = served.post("/v1/read", content=picture(0), headers={"Authorization": "Bearer secret"})
        assert answer.status_code == 200
        assert served.get("/metrics").status_code == 401
        assert served.get("/health/ready").status_code == 200


def test_too_many_are_told_when_to_come_again() -> None:
    with client(options=BatchOptions(max_queue=2)) as served:
        answer = served.post("/v1/read", files=[("images", picture(0))] * 3)
    assert answer.status_code == 429
    assert int(answer.headers["Retry-After"]) >= 1


def test_poison_and_clients_that_stall_or_leave_hurt_nobody_else(expected: list[dict]) -> None:
    with listening() as (address, _), ThreadPoolExecutor(8) as callers:
        host, _, port = address.rpartition("/")[2].partition(":")
        head = b"POST /v1/read HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: 5000\r\n\r\n"
        stalled = [socket.create_connection((host, int(port))) for _ in range(20)]
        for number, one in enumerate(stalled):
            one.sendall(head + picture(0)[:100])
            if number % 2:
                one.close()  # in the middle of its picture

        def ask(number: int) -> tuple[int, object]:
            data = b"poison" if number % 50 == 7 else picture(number % 3)
            answer = httpx.post(f"{address}/v1/read", content=data, timeout=60)
            return answer.status_code, answer.json().get("readings")

        answers = list(callers.map(ask, range(300)))
        assert httpx.get(f"{address}/health/ready", timeout=60).status_code == 200
        for one in stalled:
            one.close()
    wanted = [(422, None) if number % 50 == 7 else (200, [expected[number % 3]]) for number in range(300)]
    assert answers == wanted


def test_sigterm_loses_no_accepted_request() -> None:
    with listening() as (address, process):
        found: list[object] = []
        first = threading.Event()

        def ask() -> None:
            while True:
                try:
                    found.append(httpx.post(f"{address}/v1/read", content=picture(0), timeout=60).status_code)
                except httpx.ConnectError:  # it listens no more
                    return
                except httpx.HTTPError as error:
                    found.append(error)
                    return
                first.set()

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        assert first.wait(60)
        process.send_signal(signal.SIGTERM)
        for thread in threads:
            thread.join(60)
        assert process.wait(60) in (0, 143, -signal.SIGTERM)
    assert set(found) <= {200, 503}
    assert 200 in found


def test_a_port_that_is_taken_is_one_line() -> None:
    command = [sys.executable, str(ROOT / "runtime" / "serve.py"), "--engine", str(TINY), "--host", "203.0.113.1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("error: cannot listen at 203.0.113.1:8000: ")
    assert done.stderr.count("\n") == 1


def test_answers_do_not_wait_for_acknowledgements() -> None:
    """Of their first part, which clients delay by 40 ms."""
    with serve.listen("127.0.0.1", 0) as listener, socket.create_connection(listener.getsockname()):
        connection, _ = listener.accept()
        with connection:
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@pytest.mark.parametrize(
    ("given", "cores", "sessions"),
    [
        ([], 1, (1, 1)),
        ([], 4, (4, 1)),
        ([], 64, (8, 8)),
        (["--workers", "1"], 4, (1, 4)),
        (["--workers", "3"], 2, (3, 1)),
        (["--threads", "2"], 4, (2, 2)),
        (["--threads", "4"], 2, (1, 4)),
        (["--workers", "2", "--threads", "1"], 8, (2, 1)),
    ],
)
def test_cores_are_shared_by_sessions(
    given: list[str], cores: int, sessions: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("robustscanner.cpu.available_cores", lambda: cores)
    assert serve.side_by_side(serve.parse(given)) == sessions


def test_a_gpu_has_one_session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("robustscanner.cpu.available_cores", lambda: 4)
    monkeypatch.setattr("robustscanner.engine.read_manifest", lambda folder: SimpleNamespace(backend="tensorrt"))
    assert serve.side_by_side(serve.parse(["--engine", str(tmp_path)])) == (1, 4)
