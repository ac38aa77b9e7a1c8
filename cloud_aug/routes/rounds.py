"""Federated rounds: boards come, are invited, give signs of life, and send updates."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Request
from starlette.responses import Response

from cloud_aug.openapi import binary, operation, ref
from cloud_aug.replies import BINARY, reply
from cloud_aug.rounds import attendance, receiving, rows
from cloud_aug.routes.asking import AskedNow, Granted, RowsBody, StatementBody, TaskPath, UploadPath, body_of
from edgewire.rounds import JoinReply, JoinRequest, RowsReply, Sign, SignReply, UpdateReply

router = APIRouter(tags=["rounds"])

SeriesPath = Annotated[str, Path(pattern="^[0-9a-f]{16}$")]
NumberPath = Annotated[int, Path(ge=1, le=1 << 31)]


def _room(
    asked: AskedNow, request: Request, task: TaskPath, series: SeriesPath, number: NumberPath, board: Granted
) -> int:
    told = request.headers.get("content-length", "")
    size = int(told) if told.isdecimal() else None
    return receiving.room(asked.cloud, board, task, series, number, size)


async def _update(request: Request, most: Annotated[int, Depends(_room)]) -> bytes:
    return await body_of(request, most)


UpdateBody = Annotated[bytes, Depends(_update)]  # judged before any of it is read, by its order


@router.post(
    "/v1/tasks/{task}/rounds/join",
    openapi_extra=operation(body=ref(JoinRequest), answer=ref(JoinReply), security="board"),
)
def join(asked: AskedNow, request: Request, task: TaskPath, board: Granted, body: StatementBody) -> Response:
    """A board could take part now. Its invitation (a signed statement of type 'round'), or when to ask again."""
    told = attendance.join(asked.cloud, board, task, body, now=asked.now)
    request.app.state.referee.wake()
    return reply(told)


@router.put(
    "/v1/tasks/{task}/rounds/{series}/rows",
    openapi_extra=operation(
        body=binary("safetensors: ids by table, uint32 and ascending; RowsMeta as metadata."),
        body_media=BINARY,
        answer=ref(RowsReply),
        security="board",
    ),
)
def tell_rows(asked: AskedNow, task: TaskPath, series: SeriesPath, board: Granted, body: RowsBody) -> Response:
    """Which rows of tables the board's samples touch, where a series sends boards those and no others."""
    return reply(rows.tell(asked.cloud, board, task, series, body, now=asked.now))


@router.post(
    "/v1/tasks/{task}/rounds/{series}/{number}/sign",
    openapi_extra=operation(body=ref(Sign), answer=ref(SignReply), security="board"),
)
def sign(
    asked: AskedNow,
    request: Request,
    task: TaskPath,
    series: SeriesPath,
    number: NumberPath,
    board: Granted,
    body: StatementBody,
) -> Response:
    """A sign of life of an invited board: slow is not dead. Or that it gives up, and need not be waited for."""
    told = attendance.sign(asked.cloud, board, task, series, number, body, now=asked.now)
    request.app.state.referee.wake()
    return reply(told)


@router.put(
    "/v1/tasks/{task}/rounds/{series}/{number}/updates/{upload_id}",
    openapi_extra=operation(
        body=binary("safetensors: 'delta/…' as the compression makes it, 'extra/…'; UpdateMeta as metadata."),
        body_media=BINARY,
        answer=ref(UpdateReply),
        security="board",
    ),
)
def update(
    asked: AskedNow,
    request: Request,
    task: TaskPath,
    series: SeriesPath,
    number: NumberPath,
    upload_id: UploadPath,
    board: Granted,
    body: UpdateBody,
) -> Response:
    """What training changed. On disk before the answer; sent twice under one id, it counts once. 410: too late."""
    told = receiving.receive(asked.cloud, board, task, series, number, upload_id, body, now=asked.now)
    request.app.state.referee.wake()
    return reply(told)
