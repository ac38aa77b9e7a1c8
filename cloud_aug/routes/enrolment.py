"""How a board comes in: enrol once, then sign for short-lived access; and the chain of keys to believe."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.responses import Response

from cloud_aug import auth, boards, keys
from cloud_aug.openapi import operation, ref, sealed
from cloud_aug.replies import reply
from cloud_aug.routes.asking import AskedNow, StatementBody, Stranger
from edgewire.messages import AccessReply, AccessRequest, EnrolReply, EnrolRequest, TrustReply

router = APIRouter(tags=["access"])


@router.post(
    "/v1/enroll",
    openapi_extra=operation(body=sealed(EnrolRequest, "A statement of type 'enroll'."), answer=ref(EnrolReply)),
)
def enroll(asked: AskedNow, _: Stranger, body: StatementBody) -> Response:
    """Introduce a board's public key with a one-time token. The same key and token again give the same answer."""
    return reply(boards.enrol(asked.cloud, body, now=asked.now))


@router.post(
    "/v1/access",
    openapi_extra=operation(body=sealed(AccessRequest, "A statement of type 'access'."), answer=ref(AccessReply)),
)
def access(asked: AskedNow, _: Stranger, body: StatementBody) -> Response:
    """An access token of ten minutes for a request signed by the board's key. A nonce works once."""
    return reply(auth.give_access(asked.cloud, body, now=asked.now))


@router.get("/v1/trust", openapi_extra=operation(answer=ref(TrustReply)))
def trust(asked: AskedNow, _: Stranger, after: Annotated[int, Query(ge=0, le=1 << 31)] = 0) -> Response:
    """The trust statements of a version above `after`, oldest first. Needs no token: they are signed by the root."""
    return reply(TrustReply(tuple(envelope.decode() for envelope in keys.chain(asked.cloud.database, after=after))))
