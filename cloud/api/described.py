"""What the API says of itself: the OpenAPI document, with the role that each route asks for; and errors, which all look the same.

Every answer that is not the wanted one is `{"detail": "one line"}`, whoever refuses.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from typing import Any

from fastapi import FastAPI, Request, routing
from fastapi.dependencies.models import Dependant
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ValidationError

from cloud.access.routes import ROLES
from edge_runtime import log

REFERENCE = "#/components/schemas/{model}"
SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "an operator's API token, or that of the token file"},
    "session": {
        "type": "apiKey", "in": "cookie", "name": "gudgeon_session",
        "description": "POST /api/v1/login; over TLS its name begins with __Host-. What writes needs X-CSRF-Token, too",
    },
}  # fmt: skip
ERROR = {"type": "object", "required": ["detail"], "properties": {"detail": {"type": "string"}}}
ERRORS = {
    "401": "nobody is known, or what they show does not count",
    "403": "the role is too low, or the token is not for this path",
    "413": "the body is too long",
    "422": "the request is not as it must be",
    "429": "too often; see Retry-After",
}


def first_of(error: ValidationError | RequestValidationError) -> str:
    """In one line: where, and what was expected."""
    found = error.errors()[0] if isinstance(error, RequestValidationError) else error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in found["loc"] if part not in ("query", "path")) or "body"
    return f"{where}: {found['msg']}"


def uniform_errors(app: FastAPI) -> None:
    @app.exception_handler(RequestValidationError)
    def not_valid(request: Request, error: RequestValidationError) -> JSONResponse:
        return JSONResponse({"detail": first_of(error)}, 422)

    @app.exception_handler(Exception)
    def failed(request: Request, error: Exception) -> JSONResponse:
        told = f"{type(error).__name__}: {error}".splitlines()[0][:300]
        log.say(logging.ERROR, "a request failed", method=request.method, path=request.url.path, reason=told)
        return JSONResponse({"detail": "an error of the server; its log says more"}, 500)


def all_routes(app: FastAPI) -> Iterable[Any]:
    """Newer versions of FastAPI keep included routers whole."""
    return getattr(routing, "iter_route_contexts", list)(app.routes)


def describe(app: FastAPI) -> None:
    """`app.openapi` tells roles, bodies and errors, too."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            made = get_openapi(title=app.title, version=app.version, routes=app.routes)
            schemas = made.setdefault("components", {}).setdefault("schemas", {})
            made["components"]["securitySchemes"] = SCHEMES
            schemas["Error"] = ERROR
            for route in all_routes(app):
                for method in route.methods:
                    if told := made["paths"].get(route.path, {}).get(method.lower()):
                        _describe(told, method, route, schemas)
            for unused in ("HTTPValidationError", "ValidationError"):
                schemas.pop(unused, None)
            app.openapi_schema = made
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]


def _describe(told: dict[str, Any], method: str, route: Any, schemas: dict[str, Any]) -> None:
    role = ROLES[method, route.path]
    told["x-role"] = role.word if role else "public"
    told["security"] = [{name: []} for name in SCHEMES] if role else []
    kinds = list(_bodies(route.dependant))
    for kind in kinds:
        schema = kind.model_json_schema(ref_template=REFERENCE)
        schemas |= schema.pop("$defs", {}) | {kind.__name__: schema}
        reference = {"$ref": REFERENCE.format(model=kind.__name__)}
        told["requestBody"] = {"required": True, "content": {"application/json": {"schema": reference}}}
    codes = {"422", *(("401", "403", "429") if role else ()), *(("413",) if kinds else ())}
    content = {"application/json": {"schema": {"$ref": REFERENCE.format(model="Error")}}}
    told["responses"] |= {code: {"description": ERRORS[code], "content": content} for code in sorted(codes)}


def _bodies(dependant: Dependant) -> Iterator[type[BaseModel]]:
    """What `body_of` reads."""
    for each in dependant.dependencies:
        kind = getattr(each.call, "body_kind", None)
        if kind is not None:
            yield kind
        yield from _bodies(each)
