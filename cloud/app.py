"""The web application: API, live page and their lifetime. What it shows comes from the store, never from ingest's memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import FileResponse
from sqlalchemy import Engine

from cloud import metrics
from cloud.access.admission import Access
from cloud.access.needs import needs
from cloud.access.oidc import CodeFlow, Pending
from cloud.access.roles import Role
from cloud.access.signing_in import Passwords
from cloud.api import (
    assets,
    audit,
    experiments,
    exports,
    fleet,
    identities,
    live,
    proofs,
    records,
    rollouts,
    series,
    session,
    twin,
)
from cloud.api import metrics as scrape
from cloud.api.asked import refuse_what_no_store_takes
from cloud.api.described import describe, uniform_errors
from cloud.enrol.desk import Desk
from cloud.rollout.registry import Registry
from cloud.security import Security
from cloud.settings import CloudSettings
from cloud.simulator import Simulator
from cloud.summary import Summaries
from edge_runtime import __version__
from edge_runtime.clock import Clock, SystemClock

WEB = Path(__file__).parent / "web"
#: path → (file, media type); nothing else is served
PAGES: dict[str, tuple[str, str]] = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/app.css": ("app.css", "text/css; charset=utf-8"),
    "/assets": ("assets.html", "text/html; charset=utf-8"),
    "/assets.js": ("assets.js", "text/javascript; charset=utf-8"),
    "/app.js": ("app.js", "text/javascript; charset=utf-8"),
    "/fleet": ("fleet.html", "text/html; charset=utf-8"),
    "/fleet.js": ("fleet.js", "text/javascript; charset=utf-8"),
    "/rollouts": ("rollouts.html", "text/html; charset=utf-8"),
    "/rollouts.js": ("rollouts.js", "text/javascript; charset=utf-8"),
    "/audit": ("audit.html", "text/html; charset=utf-8"),
    "/audit.js": ("audit.js", "text/javascript; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/session.js": ("session.js", "text/javascript; charset=utf-8"),
    "/login": ("login.html", "text/html; charset=utf-8"),
    "/login.js": ("login.js", "text/javascript; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
API = "/api/v1"


def make_app(
    engine: Engine,
    settings: CloudSettings,
    broker_connected: Callable[[], bool] | None = None,
    simulator: Simulator | None = None,
    told: Sequence[metrics.Read] = (),
    send: Callable[[str], None] = lambda device: None,
    clock: Clock | None = None,
    registry: Registry | None = None,
    desk: Desk | None = None,
) -> FastAPI:
    """`app.state.stop_streams()` ends open streams; any thread may call it. `broker_connected` None: ingest is elsewhere.
    `simulator`: another than that of the settings. `told`: what /metrics tells beside the store. `send` brings a device what
    is asked of it. `registry`: of artifacts; None where there is none. `desk` gives devices their
    certificates, where the cloud listens for devices."""
    clock = clock or SystemClock()
    simulator = simulator or Simulator(settings.simulator.stats_url)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        loop = asyncio.get_running_loop()
        app.state.stopping = asyncio.Event()
        app.state.stop_streams = lambda: loop.call_soon_threadsafe(app.state.stopping.set)
        app.state.summaries = Summaries(engine, simulator)
        yield
        await simulator.close()

    app = FastAPI(
        title="Gudgeon cloud companion",
        version=__version__,
        lifespan=lifespan,
        openapi_url=f"{API}/openapi.json",
        docs_url=None,
        redoc_url=None,
    )
    app.state.engine, app.state.settings = engine, settings
    app.state.broker_connected = broker_connected
    app.state.exports = exports.limit()
    app.state.metrics = metrics.page("cloud", partial(metrics.of_store, engine), *told)
    app.state.send, app.state.registry, app.state.desk = send, registry, desk
    app.state.access = access = Access(engine, settings, clock)
    app.state.passwords = Passwords(engine, clock.wall_ns)
    app.state.oidc = CodeFlow(settings.oidc, lambda: clock.wall_ns() / 1e9) if settings.oidc.issuer else None
    app.state.oidc_pending = Pending(access.now_s)
    refuse_what_no_store_takes(app)
    app.add_middleware(Security, names=settings.http.names, tls=settings.http.tls)
    app.include_router(live.router, prefix=API, tags=["live"])
    for_viewers = [needs(Role.VIEWER)]
    app.include_router(records.router, prefix=API, tags=["records"], dependencies=for_viewers)
    app.include_router(assets.router, prefix=API, tags=["assets"], dependencies=for_viewers)
    app.include_router(series.router, prefix=API, tags=["records"], dependencies=for_viewers)
    app.include_router(exports.router, prefix=API, tags=["records"], dependencies=for_viewers)
    app.include_router(proofs.router, prefix=API, tags=["proofs"], dependencies=for_viewers)
    app.include_router(twin.router, prefix=API, tags=["twin"])
    app.include_router(identities.router, prefix=API, tags=["identities"])
    app.include_router(session.router, prefix=API, tags=["access"])
    app.include_router(session.pages)
    app.include_router(audit.router, prefix=API, tags=["audit"])
    app.include_router(rollouts.router, prefix=API, tags=["rollouts"])
    app.include_router(fleet.router, prefix=API, tags=["fleet"])
    app.include_router(experiments.router, prefix=API, tags=["experiments"])
    app.include_router(scrape.router, dependencies=for_viewers)
    uniform_errors(app)
    describe(app)
    for path in PAGES:
        app.add_api_route(path, _page(path), include_in_schema=False)
    return app


def _page(path: str) -> Callable[[], FileResponse]:
    name, media_type = PAGES[path]

    def page() -> FileResponse:
        return FileResponse(WEB / name, media_type=media_type)

    return page
