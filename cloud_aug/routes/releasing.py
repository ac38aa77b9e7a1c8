"""Releases as boards see them: orders down, outcomes up."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import Response

from cloud_aug.openapi import operation, ref, sealed
from cloud_aug.releases import orders, outcomes
from cloud_aug.replies import matches, not_modified, reply
from cloud_aug.routes.asking import AskedNow, Granted, StatementBody, TaskPath
from edgewire.messages import UploadReply
from edgewire.releases import OrdersReply, Outcome

router = APIRouter(tags=["releases"])


@router.get("/v1/tasks/{task}/orders", openapi_extra=operation(answer=ref(OrdersReply), security="board"))
def give(asked: AskedNow, task: TaskPath, board: Granted) -> Response:
    """What this board is to install or to go back from: statements of type 'release', signed for it alone. Whether
    there are any is said with each manifest, in the header Edge-Release."""
    known = orders.etag(asked.cloud, board, task, now=asked.now)
    if known and matches(asked.headers.get("if-none-match"), f'"{known}"'):
        return not_modified(f'"{known}"')
    found, etag = orders.give(asked.cloud, board, task, now=asked.now)
    return reply(found, headers={"etag": f'"{etag}"'})


@router.put(
    "/v1/tasks/{task}/outcomes",
    openapi_extra=operation(
        body=sealed(Outcome, "A statement of type 'outcome', signed by the board."),
        answer=ref(UploadReply),
        security="board",
    ),
)
def tell(asked: AskedNow, task: TaskPath, board: Granted, body: StatementBody) -> Response:
    """How a release went on this board. Sent twice, it counts once."""
    return reply(outcomes.keep(asked.cloud, board, task, body, now=asked.now))
