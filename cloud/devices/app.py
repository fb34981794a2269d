"""The application that devices ask: one table of routers. A router that is added here is served behind `Gate`."""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import APIRouter, FastAPI

from cloud.api.asked import refuse_what_no_store_takes
from cloud.api.described import uniform_errors
from cloud.ddi import routes as ddi
from cloud.ddi.service import make_ddi
from cloud.devices import enrolment
from cloud.devices.gate import Gate
from cloud.enrol.desk import Desk
from cloud.registry import serving
from cloud.rollout import routes as updates
from cloud.rollout.polling import Pace
from cloud.rollout.registry import Registry
from cloud.settings import CloudSettings
from edge_runtime import __version__

ROUTERS: tuple[APIRouter, ...] = (enrolment.router, serving.router, updates.router, ddi.router)


def make_devices_app(
    desk: Desk, settings: CloudSettings, routers: Sequence[APIRouter] = ROUTERS, registry: Registry | None = None
) -> FastAPI:
    """`app.state` has `desk`, `engine`, `settings`, `registry`, `pace`, `ddi` and `now_ns` for them."""
    app = FastAPI(title="Gudgeon, for devices", version=__version__, openapi_url=None, docs_url=None, redoc_url=None)
    app.state.desk, app.state.engine, app.state.settings = desk, desk.engine, settings
    app.state.registry, app.state.now_ns = registry, desk.now_ns
    app.state.pace = Pace(**vars(settings.rollouts))
    folder = settings.registry.folder if settings.ddi.serve else None
    app.state.ddi = make_ddi(desk.engine, settings.ddi, registry, folder, desk.now_ns) if registry and folder else None
    app.state.tries = enrolment.Tries(desk.engine, desk.now_ns)
    refuse_what_no_store_takes(app)
    app.add_middleware(Gate)
    uniform_errors(app)
    for router in routers:
        app.include_router(router)
    return app
