"""For whoever watches the service: is the process alive, and can it do its work?"""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import Response

from cloud_aug import keys
from cloud_aug.openapi import operation
from cloud_aug.replies import reply
from cloud_aug.routes.asking import AskedNow

router = APIRouter(tags=["health"])
_STATUS = {"type": "object", "properties": {"status": {"type": "string"}}, "required": ["status"]}


@router.get("/healthz", openapi_extra=operation(answer=_STATUS))
async def alive() -> Response:
    """The process answers."""
    return reply({"status": "alive"})


@router.get("/readyz", openapi_extra=operation(answer=_STATUS))
def ready(asked: AskedNow) -> Response:
    """The database answers and the keys are there; else the error says what is missing."""
    keys.pseudonym_secret(asked.cloud.keys)
    keys.current_signing(asked.cloud.keys, asked.cloud.trust())
    return reply({"status": "ready"})
