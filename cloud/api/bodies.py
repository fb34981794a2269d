"""Bodies of requests: strict, and never read beyond a limit, whatever the length that the header tells."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from fastapi import HTTPException, Request
from pydantic import BaseModel, ConfigDict, ValidationError

from cloud.api.described import first_of

BODY_LIMIT_BYTES = 8192
M = TypeVar("M", bound=BaseModel)


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


def body_of(kind: type[M], limit_bytes: int = BODY_LIMIT_BYTES) -> Callable[[Request], Awaitable[M]]:
    """For `Depends`: the JSON body as `kind`; 413 and 422 in one line."""

    async def read(request: Request) -> M:
        data = b""
        async for chunk in request.stream():
            data += chunk
            if len(data) > limit_bytes:
                raise HTTPException(413, f"the body is over the limit of {limit_bytes} bytes")
        try:
            return kind.model_validate_json(data)
        except ValidationError as error:
            raise HTTPException(422, first_of(error)) from error

    read.body_kind = kind  # type: ignore[attr-defined]  # for `cloud.api.described`
    return read
