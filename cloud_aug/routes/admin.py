"""Administration from outside the server's shell, with an administrator's credential."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import Response

from cloud_aug import boards
from cloud_aug.openapi import operation, ref
from cloud_aug.replies import reply
from cloud_aug.routes.asking import AskedNow, BoardPath
from edgewire.messages import BoardInfo

router = APIRouter(tags=["administration"])
_CHANGED = {"type": "object", "properties": {"changed": {"type": "boolean"}}, "required": ["changed"]}
_BOARDS = {
    "type": "object",
    "properties": {"boards": {"type": "array", "items": ref(BoardInfo)}},
    "required": ["boards"],
}


@router.get("/v1/admin/boards", openapi_extra=operation(answer=_BOARDS, security="administrator"))
def list_boards(asked: AskedNow) -> Response:
    """Every board."""
    asked.administrator()
    return reply({"boards": boards.list_all(asked.cloud)})


@router.post("/v1/admin/boards/{board}/revoke", openapi_extra=operation(answer=_CHANGED, security="administrator"))
def revoke(asked: AskedNow, board: BoardPath) -> Response:
    """Shut a lost board out at once."""
    actor = f"admin:{asked.administrator()}"
    return reply({"changed": boards.revoke(asked.cloud, board, actor=actor, now=asked.now)})
