"""What may stand in a question, and how a wrong one is answered: 422 with one line."""

from __future__ import annotations

from typing import Annotated

from fastapi import FastAPI, HTTPException, Query, Request
from fastapi.responses import JSONResponse
from sqlalchemy.exc import DataError

from cloud.period import Period, parse_period
from cloud.store import queries
from edge_runtime.errors import UsageError
from edge_runtime.wire.envelope import STREAMS

TIME_HELP = "ISO 8601, without a zone UTC; compared with time_ns"

After = Annotated[int, Query(ge=0, le=2**63 - 1, description="`id` of the last row that you have; 0 to begin")]
Limit = Annotated[int, Query(ge=1, le=queries.LIMIT)]
Whole = Annotated[int | None, Query(ge=-(2**63), le=2**63 - 1)]
From = Annotated[str | None, Query(alias="from", max_length=40, description=TIME_HELP)]
To = Annotated[str | None, Query(alias="to", max_length=40, description=f"{TIME_HELP}; not included")]


def refuse_what_no_store_takes(app: FastAPI) -> None:
    """422 for a text with NUL or a number without room in a column, wherever it stood in the question."""

    def answer(request: Request, error: Exception) -> JSONResponse:
        return JSONResponse(
            {"detail": "a value of the request cannot be stored: a NUL character, or a number too large"}, 422
        )

    app.add_exception_handler(DataError, answer)


def refused(error: Exception) -> HTTPException:
    return HTTPException(422, str(error))


def period_of(start: str | None, end: str | None) -> Period:
    try:
        return parse_period(start, end)
    except UsageError as error:
        raise refused(error) from error


def known_stream(stream: str | None) -> str | None:
    if stream is not None and stream not in STREAMS:
        raise refused(UsageError(f"no stream {stream!r}; expected one of {', '.join(STREAMS)}"))
    return stream
