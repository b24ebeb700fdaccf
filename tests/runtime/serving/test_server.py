"""The HTTP interface, with the tiny model behind it."""

import base64
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import cv2
import httpx
import numpy as np
import pytest
from fastapi.testclient import TestClient

from robustscanner import Recognizer
from robustscanner.serving.app import Server
from robustscanner.serving.batcher import BatchOptions
from robustscanner.serving.pictures import Limits
from tests.convert.conftest import TINY

ROOT = Path(__file__).parents[3]
PNG, FORM = {"Content-Type": "image/png"}, {"Content-Type": "multipart/form-data; boundary=b"}


def picture(seed: int) -> bytes:
    noise = np.random.default_rng(seed).integers(0, 256, (6, 14, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    return bytes(cv2.imencode(".png", noise)[1].tobytes())


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


def test_sigterm_loses_no_accepted_request() -> None:
    command = [
        sys.executable,
        str(ROOT / "runtime" / "serve.py"),
        "--engine",
        str(TINY),
        "--port",
        "0",
        "--threads",
        "1",
    ]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "runtime")}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
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
