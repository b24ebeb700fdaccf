"""What a request holds: its pictures and its constraint, whichever way they were sent."""

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, Field, ValidationError
from starlette.datastructures import UploadFile
from starlette.requests import ClientDisconnect, Request

from robustscanner.constraint import Constraint
from robustscanner.errors import ImageError
from robustscanner.photo import Quad, quads_of
from robustscanner.serving.settings import Limits


class BadRequest(Exception):
    """A request that cannot be understood, or is beyond the limits, and its HTTP status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Wanted(BaseModel):
    """What a text may be, see docs/constraints.md."""

    characters: str | None = Field(default=None, max_length=200, examples=["0-9A-Z"])
    pattern: str | None = Field(default=None, max_length=500, examples=["[A-Z]{2}[0-9]{2}[A-Z]{3}"])
    length: int | tuple[int, int] | None = Field(default=None, examples=[[5, 8]])

    def constraint(self) -> Constraint | None:
        """The same for the recogniser; raises `ConstraintError`."""
        if self.characters is None and self.pattern is None and self.length is None:
            return None
        return Constraint(self.characters, self.pattern, self.length)


# One white pixel, as PNG.
_WHITE = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGP4DwABAQEAsTj2FAAAAABJRU5ErkJggg=="


class Pictures(BaseModel):
    """The body of a JSON request."""

    images: list[str] = Field(min_length=1, description="files of pictures in base64", examples=[[_WHITE]])
    constraint: Wanted | None = None
    letters: bool = Field(default=False, description="where each letter stands, and what else it may be")
    boxes: list[Any] | None = Field(
        default=None,
        description="words of the only picture, a photo: [x, y, width, height], or four points [x, y] clockwise from "
        "where the word begins at its top; each has a reading of its own",
        examples=[[[0, 0, 1, 1]]],
    )


@dataclass(frozen=True)
class Asked:
    """What a request wants to know."""

    pictures: list[bytes]  # files
    wanted: Wanted = field(default_factory=Wanted)
    letters: bool = False
    boxes: list[Quad] | None = None  # of words, in the only picture


async def read_request(request: Request, limits: Limits) -> Asked:
    """What is asked for.

    Raises:
        BadRequest: nothing to read, something else than pictures, or too much.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    body = await _body(request, limits)
    if kind == "application/json":
        asked = _from_json(body)
    elif kind == "multipart/form-data":
        asked = await _from_form(request, body)
    else:  # one file as it is
        asked = _asked([body], request.query_params)
    pictures, boxes = asked.pictures, asked.boxes
    if not pictures or not all(pictures):
        raise BadRequest(422, "no picture: send a file as the body, as multipart/form-data, or as base64 in JSON")
    if boxes is not None and len(pictures) != 1:
        raise BadRequest(422, f"boxes are of one photo, but {len(pictures)} pictures came")
    if (count := max(len(pictures), len(boxes or ()))) > limits.pictures:
        raise BadRequest(413, f"{count} pictures or boxes, at most {limits.pictures} are taken; send them in parts")
    return asked


async def _body(request: Request, limits: Limits) -> bytes:
    """All of it, given up as soon as it is too large: the header may lie."""
    too_large = BadRequest(413, f"more than {limits.body_bytes / 1024**2:g} MiB; send fewer or smaller pictures")
    if int(request.headers.get("content-length") or 0) > limits.body_bytes:
        raise too_large
    parts, size = [], 0
    try:
        async for part in request.stream():
            size += len(part)
            if size > limits.body_bytes:
                raise too_large
            parts.append(part)
    except ClientDisconnect:
        raise BadRequest(400, "the request ended early") from None
    return b"".join(parts)


def _from_json(body: bytes) -> Asked:
    try:
        given = Pictures.model_validate_json(body)
        images = [base64.b64decode(image, validate=True) for image in given.images]
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise BadRequest(422, f"{'.'.join(map(str, first['loc'])) or 'body'}: {first['msg'].lower()}") from None
    except ValueError:
        raise BadRequest(422, "images: not base64; encode the bytes of each file") from None
    return Asked(images, given.constraint or Wanted(), given.letters, _boxes(given.boxes))


async def _from_form(request: Request, body: bytes) -> Asked:
    request._body = body  # Starlette parses what it has read itself
    try:
        async with request.form(max_files=1000, max_fields=100) as form:
            items = form.multi_items()
            files = [await value.read() for _, value in items if isinstance(value, UploadFile)]
            return _asked(files, {key: value for key, value in items if isinstance(value, str)})
    except Exception as error:
        if isinstance(error, BadRequest):
            raise
        raise BadRequest(
            422, "not a form that can be parsed; send multipart/form-data with a file in each part"
        ) from None


def _asked(pictures: list[bytes], given: Mapping[str, str]) -> Asked:
    """By the fields of a query or form."""
    letters, boxes = given.get("letters", "0"), None
    if letters not in ("0", "1", "true", "false"):
        raise BadRequest(422, f"letters: {letters!r} is neither 1 nor 0")
    if "boxes" in given:
        try:
            boxes = _boxes(json.loads(given["boxes"]))
        except (ValueError, RecursionError):
            raise BadRequest(422, "boxes: not JSON; give a list of [x, y, width, height]") from None
    return Asked(pictures, _wanted(given), letters in ("1", "true"), boxes)


def _boxes(given: object) -> list[Quad] | None:
    try:
        return None if given is None else quads_of(given, "boxes")
    except ImageError as error:
        raise BadRequest(422, str(error)) from None


def _wanted(given: Mapping[str, str]) -> Wanted:
    fewest, _, most = given.get("length", "").partition("-")
    if not all(part.isdecimal() for part in (fewest or "0", most or "0")):
        raise BadRequest(422, "length: neither a number nor two, such as 5-8")
    length = (int(fewest), int(most or fewest)) if fewest else None
    try:
        return Wanted(characters=given.get("characters"), pattern=given.get("pattern"), length=length)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise BadRequest(422, f"{first['loc'][0]}: {first['msg'].lower()}") from None
