"""An app for Ray Serve: one picture a request, as the body; pictures that come together are read together.

serve run robustscanner.serving.ray_serve:app engine=build/e.engine
"""

import asyncio
from collections.abc import Mapping
from typing import Any

from ray import serve  # type: ignore[import-not-found,import-untyped,unused-ignore]
from starlette.requests import Request
from starlette.responses import JSONResponse

from robustscanner.errors import ImageError
from robustscanner.recognizer import DEFAULT_BATCH, Reading, Recognizer
from robustscanner.serving.settings import BatchOptions


@serve.deployment(max_ongoing_requests=4 * DEFAULT_BATCH)  # type: ignore[untyped-decorator,unused-ignore]
class Reader:
    """A replica; it holds one session."""

    def __init__(self, engine: str | None) -> None:
        self._recognizer = Recognizer(engine)

    async def __call__(self, request: Request) -> JSONResponse:
        """The reading, or status 422 where the body is no picture."""
        result = await self._read(await request.body())
        if isinstance(result, ImageError):
            return JSONResponse({"error": str(result)}, 422)
        return JSONResponse({"text": result.text, "score": round(result.score, 4)})

    @serve.batch(  # type: ignore[untyped-decorator,unused-ignore]
        max_batch_size=DEFAULT_BATCH, batch_wait_timeout_s=BatchOptions().max_wait_s
    )
    async def _read(self, pictures: list[bytes]) -> list[Reading | ImageError]:
        """By `read_each`, as a bad picture of one request must not fail the others; in a thread, as others arrive."""
        return await asyncio.to_thread(lambda: [result for _, result in self._recognizer.read_each(pictures)])


def app(arguments: Mapping[str, str]) -> Any:
    """What `serve run` and `serve.run` take.

    Args:
        arguments: `engine`, as for `Recognizer`; the shipped model when left out.
    """
    return Reader.bind(arguments.get("engine"))  # type: ignore[attr-defined,unused-ignore]
