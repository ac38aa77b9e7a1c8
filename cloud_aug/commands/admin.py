"""`cloud-aug admin`: who may use the console, and credentials for administration over HTTP."""

from __future__ import annotations

import sys
import time
from typing import Annotated

import typer

from cloud_aug.commands.options import Data, Json, moment, opened, span_s
from cloud_aug.output import show, table
from edgewire.errors import UsageError

app = typer.Typer(no_args_is_help=True, help="Administrators.")

Owner = Annotated[str, typer.Option("--name", help="Whose it is; written to the audit log with what is done.")]
Metrics = Annotated[bool, typer.Option("--metrics", help="It may read /metrics, and nothing else.")]
ValidFor = Annotated[str, typer.Option("--valid-for", help="How long it works.")]
Named = Annotated[str, typer.Argument(metavar="NAME", help="As 'admin token --name' had it.")]
Name = Annotated[str, typer.Argument(help="The name to log in with.")]
RoleOption = Annotated[
    str, typer.Option("--role", help="viewer: look; operator: releases and boards too; admin: accounts too.")
]
LONGEST_LINE = 4096


@app.callback()
def main() -> None:
    """Administrators."""


@app.command()
def add(name: Name, role: RoleOption = "viewer", data: Data = None, as_json: Json = False) -> None:
    """Let somebody log in to the console. The password is asked for, or read from stdin: one line."""
    from cloud_aug import accounts

    cloud, wanted = opened(data), accounts.role_named(role)
    accounts.add(cloud, name, wanted, _password(), now=time.time())
    show({"name": name, "role": role}, f"{name} may log in as {role}", as_json=as_json)


@app.command("list")
def list_accounts(data: Data = None, as_json: Json = False) -> None:
    """List who may log in to the console, and which credentials for administration and metrics work."""
    from cloud_aug import accounts, auth

    cloud, now = opened(data), time.time()
    found, held = accounts.list_all(cloud, now=now), auth.credentials(cloud, now=now)
    rows: list[tuple[object, ...]] = [(one.name, one.role, moment(one.logged_in_at), one.sessions) for one in found]
    text = table(rows, ("name", "role", "last login", "sessions")) if rows else "nobody yet: 'cloud-aug admin add NAME'"
    if held:
        spans: list[tuple[object, ...]] = [(one.name, moment(one.created_at), moment(one.expires_at)) for one in held]
        text += "\n\n" + table(spans, ("credential", "made", "ends"))
    show({"accounts": found, "credentials": held}, text, as_json=as_json)


@app.command()
def role(
    name: Name,
    role: Annotated[str, typer.Argument(help="viewer, operator or admin.")],
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Change what somebody may do, from the next request on."""
    from cloud_aug import accounts

    changed = accounts.set_role(opened(data), name, accounts.role_named(role), now=time.time())
    text = f"{name} {'is' if changed else 'was already'} {role}"
    show({"name": name, "role": role, "changed": changed}, text, as_json=as_json)


@app.command()
def password(name: Name, data: Data = None, as_json: Json = False) -> None:
    """Set a new password, asked for or read from stdin. Sessions end, and nobody has to wait after wrong tries."""
    from cloud_aug import accounts

    accounts.set_password(opened(data), name, _password(), now=time.time())
    show({"name": name, "changed": True}, f"{name} has a new password", as_json=as_json)


@app.command()
def remove(name: Name, data: Data = None, as_json: Json = False) -> None:
    """Shut somebody out of the console at once."""
    from cloud_aug import accounts

    changed = accounts.remove(opened(data), name, now=time.time())
    text = f"{name} {'may not log in any more' if changed else 'has no account'}"
    show({"name": name, "changed": changed}, text, as_json=as_json)


@app.command()
def token(
    name: Owner = "admin",
    valid_for: ValidFor = "90d",
    metrics: Metrics = False,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Make a credential for administration over HTTP. It is shown once and stored only as a hash."""
    from cloud_aug import auth

    lifetime_s, now = span_s(valid_for), time.time()
    secret = auth.make_administrator(opened(data), name[:63], metrics_only=metrics, now=now, valid_for_s=lifetime_s)
    show({"name": name[:63], "token": secret}, secret, as_json=as_json)


@app.command()
def revoke(name: Named, data: Data = None, as_json: Json = False) -> None:
    """End every credential of that name at once: one that leaked, or that nobody needs any more."""
    from cloud_aug import auth

    ended = auth.end_credentials(opened(data), name, now=time.time())
    text = f"{name}: {ended} ended" if ended else f"there is no credential of '{name}' that works"
    show({"name": name, "ended": ended, "changed": ended > 0}, text, as_json=as_json)


def _password() -> str:
    """Asked for twice on a terminal, else a line of stdin: never an argument, which the process list would show."""
    if sys.stdin.isatty():
        return str(typer.prompt("Password", hide_input=True, confirmation_prompt=True, err=True))
    line = sys.stdin.readline(LONGEST_LINE).rstrip("\r\n")
    if not line:
        raise UsageError("there is no password on stdin", hint="run it on a terminal, or pipe one line into it")
    return line
