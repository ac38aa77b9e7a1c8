"""The OpenAPI document, with the very dataclasses that the routes decode: what is documented is what is checked."""

from __future__ import annotations

from typing import Any

import msgspec
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from edgewire import WIRE_VERSION, messages, releases, rounds, trust
from edgewire.signing import Statement

_TYPES = (
    messages.EnrolRequest,
    messages.EnrolReply,
    messages.AccessRequest,
    messages.AccessReply,
    messages.TrustReply,
    messages.Manifest,
    messages.DirectoryMeta,
    messages.KeysRequest,
    messages.KeysReply,
    messages.SearchMeta,
    messages.Report,
    messages.Telemetry,
    messages.UploadReply,
    messages.WithdrawReply,
    rounds.JoinRequest,
    rounds.JoinReply,
    rounds.Invitation,
    rounds.Sign,
    rounds.RowsMeta,
    rounds.RowsReply,
    rounds.SignReply,
    rounds.UpdateMeta,
    rounds.UpdateReply,
    messages.ErrorReply,
    messages.BoardInfo,
    releases.Order,
    releases.OrdersReply,
    releases.Outcome,
    trust.Trust,
    Statement,
)
_SEALED = {
    "type": "object",
    "description": "A signed envelope. payload: base64 of a Statement as JSON, whose body is the named schema.",
    "properties": {name: {"type": "string"} for name in ("payload", "key_id", "signature")},
    "required": ["payload", "key_id", "signature"],
}
_HEADER_PARAMETERS = [
    {
        "name": messages.WIRE_HEADER,
        "in": "header",
        "required": False,
        "description": "The wire version the client speaks; another one than the server's is answered by 426.",
        "schema": {"type": "string", "const": str(WIRE_VERSION)},
    }
]


def ref(kind: type) -> dict[str, Any]:
    """A reference to a message's schema."""
    return {"$ref": f"#/components/schemas/{kind.__name__}"}


def operation(
    *,
    answer: dict[str, Any] | None = None,
    media: str = "application/json",
    body: dict[str, Any] | None = None,
    body_media: str = "application/json",
    says: str = "Done.",
    security: str | None = None,
) -> dict[str, Any]:
    """What a route adds to the document. answer, body: schemas; security: 'board' or 'administrator'."""
    made: dict[str, Any] = {"responses": {"200": {"description": says}}}
    if answer is not None:
        made["responses"]["200"]["content"] = {media: {"schema": answer}}
    if body is not None:
        made["requestBody"] = {"required": True, "content": {body_media: {"schema": body}}}
    if security is not None:
        made["security"] = [{security: []}]
    return made


def sealed(kind: type, says: str) -> dict[str, Any]:
    """The schema of a signed envelope around a message."""
    return {"allOf": [{"$ref": "#/components/schemas/Sealed"}], "description": f"{says} Its body: {kind.__name__}."}


def binary(says: str) -> dict[str, Any]:
    """The schema of bytes."""
    return {"type": "string", "format": "binary", "description": says}


def document(app: FastAPI) -> dict[str, Any]:
    """The whole document."""
    made = get_openapi(
        title="cloud-aug",
        version=str(WIRE_VERSION),
        summary="The cloud's side of edgectl.",
        description="Binary bodies are safetensors; see docs/wire-format.md.",
        routes=app.routes,
    )
    _, schemas = msgspec.json.schema_components(_TYPES, ref_template="#/components/schemas/{name}")
    schemes = {
        "board": {"type": "http", "scheme": "bearer", "description": "An access token of POST /v1/access."},
        "administrator": {"type": "http", "scheme": "bearer", "description": "Made by 'cloud-aug admin token'."},
    }
    made["components"] = {"schemas": {**schemas, "Sealed": _SEALED}, "securitySchemes": schemes}
    for path, item in made["paths"].items():
        for method in item.values():
            _finish(method, versioned=path.startswith("/v1/"))
    return made


def _finish(method: dict[str, Any], *, versioned: bool) -> None:
    """Errors are ours, not FastAPI's; and each /v1 operation takes the version header."""
    method["responses"].pop("422", None)
    error = {"application/json": {"schema": ref(messages.ErrorReply)}}
    method["responses"]["default"] = {"description": "An error, with its code and what to do next.", "content": error}
    if versioned:
        method["parameters"] = [*method.get("parameters", []), *_HEADER_PARAMETERS]
