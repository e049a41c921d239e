"""The instance as an ASGI app: what it serves, behind the faults that were ordered."""

from __future__ import annotations

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from . import admin, batches, graphql, queue, search, webhooks
from .accounts import Refused
from .faults import Faults
from .state import Instance


def create_app(instance: Instance, admin_token: str) -> ASGIApp:
    """Everything that the instance serves."""
    for schema in (batches.SCHEMA, queue.SCHEMA, webhooks.SCHEMA):
        instance.create(schema)
    app = FastAPI(title="A fake Sourcegraph instance", openapi_url=None)
    app.add_exception_handler(Refused, _refuse)
    routers = (graphql.router(instance), queue.router(instance), search.router(instance))
    for router in routers:
        app.include_router(router)
    parts = (queue.admin_router(instance), webhooks.admin_router(instance))
    app.include_router(admin.router(instance, admin_token, *parts))
    webhooks.start_sender(instance)
    return Faults(app, instance)


async def _refuse(_: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return error.response
