"""The HTTP interface: what is asked, how it is answered, and what goes wrong in words."""

import asyncio
import hmac
import math
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Future
from contextlib import asynccontextmanager
from importlib.resources import files
from typing import Any

import cv2
import numpy as np
from fastapi import Depends, FastAPI, HTTPException, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel

from robustscanner import __version__
from robustscanner.errors import ConstraintError, EngineError, ImageError
from robustscanner.letters import as_json
from robustscanner.photo import Quad, check_within, place_letters
from robustscanner.picture import Picture, pixels_of
from robustscanner.preprocess import MAX_PIXELS, Image
from robustscanner.recognizer import Reading, Recognizer
from robustscanner.regions import cut
from robustscanner.serving.batcher import Batcher, Closed, QueueFull, Spelled
from robustscanner.serving.metrics import Metrics
from robustscanner.serving.pictures import BadRequest, Pictures, read_request
from robustscanner.serving.settings import BatchOptions, Limits
from robustscanner.spec import InputSpec


def _json_body() -> dict[str, Any]:
    """Without references: OpenAPI looks for them elsewhere than Pydantic puts what they name."""
    schema = Pictures.model_json_schema()
    schema["properties"]["constraint"]["anyOf"][0] = schema.pop("$defs")["Wanted"]
    return schema


_BODIES = {
    "image/jpeg": {"schema": {"type": "string", "format": "binary"}},
    "image/png": {"schema": {"type": "string", "format": "binary"}},
    "multipart/form-data": {
        "schema": {
            "type": "object",
            "properties": {"images": {"type": "array", "items": {"type": "string", "format": "binary"}}},
        }
    },
    "application/json": {"schema": _json_body()},
}
_QUERY = [
    {"name": name, "in": "query", "required": False, "schema": {"type": "string"}, "example": example}
    for name, example in (
        ("characters", "0-9A-Z"),
        ("pattern", "[A-Z]{2}[0-9]{2}[A-Z]{3}"),
        ("length", "5-8"),
        ("letters", "1"),
        ("boxes", "[[0, 0, 1, 1]]"),
    )
]


class LetterAnswer(BaseModel):
    """One letter: its place in pixels of its picture; where the request named boxes, in four points of the photo."""

    text: str
    probability: float
    others: list[tuple[str, float]]
    left: float | None = None
    centre: float | None = None
    right: float | None = None
    quad: list[tuple[float, float]] | None = None


class Answer(BaseModel):
    """What one picture says, or why it cannot be read."""

    text: str | None = None
    score: float | None = None
    letters: list[LetterAnswer] | None = None
    error: str | None = None


class Answers(BaseModel):
    """Of all pictures, in the order in which they came."""

    readings: list[Answer]


class Server:
    """A batcher behind HTTP.

    Args:
        open_recognizer: makes a recogniser, see `Batcher`.
        options: how requests become batches.
        limits: how much a request may hold.
        token: that requests have to bear; None lets everybody in.
    """

    def __init__(
        self,
        open_recognizer: Callable[[], Recognizer],
        options: BatchOptions = BatchOptions(),
        limits: Limits = Limits(),
        token: str | None = None,
    ) -> None:
        self.limits, self._token = limits, token
        self.metrics = Metrics(lambda: self.batcher.waiting)
        self.batcher = Batcher(open_recognizer, options, self.metrics)
        self._probe = _probe()

    def app(self) -> FastAPI:
        """The application, for any ASGI server; when it shuts down, all that was accepted is answered first."""

        @asynccontextmanager
        async def closing(_: FastAPI) -> AsyncIterator[None]:
            yield
            await run_in_threadpool(self.batcher.close)

        app = FastAPI(title="RobustScanner", version=__version__, lifespan=closing, docs_url="/docs", redoc_url=None)
        app.middleware("http")(self._count)
        app.exception_handler(BadRequest)(_bad_request)
        app.exception_handler(ConstraintError)(_bad_constraint)
        app.exception_handler(QueueFull)(self._queue_full)
        app.exception_handler(Closed)(_closed)
        app.exception_handler(EngineError)(_failed)
        app.get("/", response_class=HTMLResponse, include_in_schema=False)(_page)
        app.get("/health/live", summary="The process runs")(_live)
        app.get("/health/ready", summary="A word can be read")(self._ready)
        guarded = [Depends(self._check)] if self._token else []
        app.get("/metrics", summary="Counters for Prometheus", dependencies=guarded, response_class=PlainTextResponse)(
            self._metrics
        )
        app.post(
            "/v1/read",
            summary="Read the word in each picture",
            response_model=Answers,
            response_model_exclude_none=True,
            dependencies=guarded,
            responses={status: {"description": what} for status, what in _PROBLEMS.items()},
            openapi_extra={"requestBody": {"required": True, "content": _BODIES}, "parameters": _QUERY},
        )(self._read)
        return app

    async def _read(self, request: Request) -> Answers:
        asked = await read_request(request, self.limits)
        constraint, spec = asked.wanted.constraint(), self.batcher.spec
        if constraint is not None:  # while nothing is queued yet
            await run_in_threadpool(constraint.automaton, spec)
        photo: Image | None = None
        pictures: Sequence[Picture] = asked.pictures
        if asked.boxes is not None:
            photo, pictures = await run_in_threadpool(_crops, asked.pictures[0], asked.boxes, spec.input)
        results = await self._results(self.batcher.submit(pictures, constraint, letters=asked.letters))
        self.metrics.bad_pictures.inc(sum(isinstance(result, ImageError) for result in results))
        if len(results) == 1 and isinstance(results[0], ImageError):
            raise BadRequest(422, str(results[0]))
        boxes: Sequence[Quad | None] = asked.boxes or [None] * len(results)
        pairs = zip(results, boxes, strict=True)
        return Answers(readings=[_answer(result, photo, box, spec.input) for result, box in pairs])

    async def _results(self, futures: "Sequence[Future[Any]]") -> list[Reading | ImageError]:
        waiting = asyncio.gather(*map(asyncio.wrap_future, futures))
        try:
            return await asyncio.wait_for(waiting, self.limits.seconds)
        except asyncio.TimeoutError:
            raise BadRequest(503, f"not read within {self.limits.seconds:g} s; ask again later") from None

    async def _ready(self) -> dict[str, str]:
        await self._results(self.batcher.submit([self._probe]))
        return {"status": "ready", "model": self.batcher.spec.name}

    def _metrics(self) -> Response:
        return Response(self.metrics.text(), media_type="text/plain; version=0.0.4")

    def _check(self, given: HTTPAuthorizationCredentials | None = Depends(HTTPBearer(auto_error=False))) -> None:
        if given is None or not hmac.compare_digest(given.credentials.encode(), (self._token or "").encode()):
            raise HTTPException(401, "a bearer token is needed", {"WWW-Authenticate": "Bearer"})

    async def _count(self, request: Request, answer: Callable[[Request], Any]) -> Response:
        response: Response = await answer(request)
        self.metrics.requests.labels(str(response.status_code)).inc()
        return response

    def _queue_full(self, _: Request, error: QueueFull) -> JSONResponse:
        self.metrics.rejected.inc()
        retry_after = {"Retry-After": str(max(1, math.ceil(error.retry_after_s)))}
        return JSONResponse({"error": str(error)}, 429, retry_after)


_PROBLEMS = {
    401: "no token, or a wrong one",
    413: "too large",
    422: "not a picture, a constraint that says nothing sensible, or letters of an engine that knows none",
    429: "too many pictures wait; Retry-After says when to ask again",
    503: "stopping, or too slow",
}


def _crops(file: bytes, boxes: Sequence[Quad], spec: InputSpec) -> tuple[Image, list[Image]]:
    """A photo and its words."""
    try:
        photo = pixels_of(file)
        check_within(photo, boxes)
        pixels = sum(float(np.prod(np.ptp(box, axis=0) + 1)) for box in boxes)
        if pixels > MAX_PIXELS:
            raise BadRequest(413, f"boxes of {pixels:.0f} pixels, at most {MAX_PIXELS} are taken; send them in parts")
        return photo, cut(photo, boxes, spec)
    except ImageError as error:
        raise BadRequest(422, str(error)) from None


def _answer(result: Reading | ImageError, photo: Image | None, box: Quad | None, spec: InputSpec) -> Answer:
    if isinstance(result, ImageError):
        return Answer(error=str(result))
    letters: list[Any] | None = None
    if isinstance(result, Spelled) and photo is not None and box is not None:
        letters = [letter.as_json() for letter in place_letters(photo, box, result.letters, spec)]
    elif isinstance(result, Spelled):
        letters = [as_json(letter) for letter in result.letters]
    return Answer(text=result.text, score=round(result.score, 4), letters=letters)


def _bad_request(_: Request, error: BadRequest) -> JSONResponse:
    return JSONResponse({"error": str(error)}, error.status)


def _bad_constraint(_: Request, error: ConstraintError) -> JSONResponse:
    return JSONResponse({"error": str(error)}, 422)


def _closed(_: Request, error: Closed) -> JSONResponse:
    return JSONResponse({"error": f"{error}; ask another one"}, 503, {"Retry-After": "5"})


def _failed(_: Request, __: EngineError) -> JSONResponse:
    return JSONResponse({"error": "the engine failed; the server's log says why"}, 500)


def _live() -> dict[str, str]:
    return {"status": "live", "version": __version__}


def _page() -> str:
    return files("robustscanner.serving").joinpath("page.html").read_text(encoding="utf-8")


def _probe() -> bytes:
    """A picture of a word, as a file."""
    picture = np.full((48, 120, 3), 255, np.uint8)
    cv2.putText(picture, "ready", (8, 32), cv2.FONT_HERSHEY_SIMPLEX, 1, (0, 0, 0), 2)
    return bytes(cv2.imencode(".png", picture)[1].tobytes())
