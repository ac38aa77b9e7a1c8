"""Jobs, the audit log, and who may log in."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.responses import Response

from cloud_aug import accounts, audit, jobs
from cloud_aug.console import live, pages
from cloud_aug.console.visitor import Administering, Form, Looking, PageRoute, Visitor, seeing
from edgewire.errors import UsageError

router = APIRouter(route_class=PageRoute)
JOBS, LINES = 50, 100

Text = Annotated[str, Query(max_length=80)]
Before = Annotated[int | None, Query(ge=1, le=1 << 62)]
Auditing = Annotated[Visitor, seeing("operator")]
SeeingAccounts = Annotated[Visitor, seeing("admin")]


@router.get("/jobs")
def list_jobs(visitor: Looking) -> Response:
    """What runs, and what ran."""
    mark = live.mark(visitor.cloud, "jobs")
    found = jobs.newest(visitor.cloud, limit=JOBS, now=visitor.now)
    return pages.page("jobs.html", visitor=visitor, mark=mark, jobs=found)


@router.get("/audit")
def log(visitor: Auditing, actor: Text = "", action: Text = "", before: Before = None) -> Response:
    """Who did what, the newest first. It names contributors: not for whoever may only look."""
    mark = live.mark(visitor.cloud, "audit")
    found = audit.lines(visitor.cloud, before=before, actor=actor, action=action, limit=LINES)
    older = found[-1].id if len(found) == LINES else None
    return pages.page(
        "audit.html",
        visitor=visitor,
        mark=mark,
        lines=found,
        actor=actor,
        action=action,
        before=before,
        older=older,
    )


@router.get("/accounts")
def list_accounts(visitor: SeeingAccounts) -> Response:
    """Who may log in."""
    found = accounts.list_all(visitor.cloud, now=visitor.now)
    return pages.page("accounts.html", visitor=visitor, accounts=found, roles=accounts.ROLES)


@router.post("/accounts/{name}/role")
def set_role(visitor: Administering, name: str, fields: Form) -> Response:
    """Let somebody do more, or less."""
    _check_other(visitor, name)
    role, actor = accounts.role_named(fields.get("role", "")), visitor.session.actor
    accounts.set_role(visitor.cloud, name, role, actor=actor, now=visitor.now)
    return pages.redirect("/accounts")


@router.post("/accounts/{name}/end")
def end_sessions(visitor: Administering, name: str) -> Response:
    """Log somebody out everywhere."""
    _check_other(visitor, name)
    accounts.end_sessions(visitor.cloud, name, actor=visitor.session.actor, now=visitor.now)
    return pages.redirect("/accounts")


@router.get("/accounts/{name}/remove")
def ask_to_remove(visitor: SeeingAccounts, name: str) -> Response:
    """Once more, before it is done."""
    with visitor.cloud.database.reading() as connection:
        accounts.get(connection, name)
    return pages.page(
        "confirm.html",
        visitor=visitor,
        title=f"Remove {name}?",
        says=f"{name} is logged out everywhere and may not log in any more.",
        action=f"/accounts/{name}/remove",
        button="Remove this account",
        back="/accounts",
        fields={},
    )


@router.post("/accounts/{name}/remove")
def remove(visitor: Administering, name: str) -> Response:
    """Shut somebody out."""
    _check_other(visitor, name)
    accounts.remove(visitor.cloud, name, actor=visitor.session.actor, now=visitor.now)
    return pages.redirect("/accounts")


def _check_other(visitor: Visitor, name: str) -> None:
    """Nobody takes away their own rights by a slip: there may be nobody else who could give them back."""
    if name == visitor.session.account:
        raise UsageError("this is your own account", hint="another admin can do this, or 'cloud-aug admin'")
