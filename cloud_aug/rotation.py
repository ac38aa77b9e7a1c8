"""Replacing each key without losing a board: first both are believed, then (`finish`) only the new one.

A board that was away walks the whole chain when it comes back. Starting a rotation that is open changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import sqlalchemy as sa

from cloud_aug import audit, certificates, db, keys, packs
from cloud_aug.cloud import Cloud
from cloud_aug.database import Database
from cloud_aug.keys import KeyFolders
from edgewire.files import write_atomic
from edgewire.trust import Trust, public_text

Kind = Literal["signing", "tls", "ca", "root"]


@dataclass(frozen=True)
class Rotated:
    """changed: whether anything was done; trust_version: what boards will hold next; next_step: for the operator."""

    changed: bool
    trust_version: int
    next_step: str


def rotate(
    kind: Kind, database: Database, folders: KeyFolders, hosts: Sequence[str], *, finish: bool, now: float
) -> Rotated:
    """Begin or finish a rotation. Raises NotFound if the offline keys are not at hand."""
    with database.reading() as connection:
        trust = keys.newest(connection)
    if kind == "tls":
        keys.issue_server_certificate(folders, trust.authorities[0], hosts, now=now)
        with database.writing() as connection:
            audit.note(connection, at=now, actor=audit.SHELL, action="rotate", subject="tls")
        return Rotated(True, trust.version, "a running server takes the new certificate within seconds")
    begin, end = _STEPS[kind]
    in_progress = len(_listed(kind, trust)) > 1
    if finish != in_progress:
        word = (
            f"run 'cloud-aug keys rotate {kind} --finish' once boards have synced"
            if in_progress
            else "nothing to finish"
        )
        return Rotated(False, trust.version, word)
    signer = keys.current_root(folders, trust)  # first: without the offline keys nothing may change
    after = end(folders, trust, hosts, now) if finish else begin(folders, trust, hosts, now)
    with database.writing() as connection:
        keys.append(connection, signer, after, now=now)
        action = "rotate-finish" if finish else "rotate"
        audit.note(connection, at=now, actor=audit.SHELL, action=action, subject=kind, trust_version=after.version)
    step = "done" if finish else f"when boards have synced: 'cloud-aug keys rotate {kind} --finish'"
    return Rotated(True, after.version, step)


def rotate_packs(cloud: Cloud, *, now: float) -> Rotated:
    """New secrets of packs for every task that has some. Needs no offline keys, and boards notice nothing."""
    with cloud.database.reading() as connection:
        found = connection.execute(sa.select(db.pack_secrets.c.task).distinct().order_by(db.pack_secrets.c.task))
        tasks = list(found.scalars())
    for task in tasks:
        packs.replace_secret(cloud, task, now=now)
    step = "'cloud-aug index build' for each task; 'cloud-aug gc' then removes what the old secrets open"
    return Rotated(bool(tasks), cloud.trust().version, step if tasks else "no pack is encrypted yet")


def _listed(kind: Kind, trust: Trust) -> tuple[str, ...]:
    return {"signing": trust.signing, "ca": trust.authorities, "root": trust.roots}[kind]


def _begin_signing(folders: KeyFolders, trust: Trust, _hosts: Sequence[str], _now: float) -> Trust:
    new = keys.new_signing(folders)
    return keys.following(trust, signing=(public_text(new.public), *trust.signing))


def _end_signing(_folders: KeyFolders, trust: Trust, _hosts: Sequence[str], _now: float) -> Trust:
    return keys.following(trust, signing=trust.signing[:1])


def _begin_root(folders: KeyFolders, trust: Trust, _hosts: Sequence[str], _now: float) -> Trust:
    new = keys.new_root(folders)
    return keys.following(trust, roots=(public_text(new.public), *trust.roots))


def _end_root(_folders: KeyFolders, trust: Trust, _hosts: Sequence[str], _now: float) -> Trust:
    return keys.following(trust, roots=trust.roots[:1])


def _begin_ca(folders: KeyFolders, trust: Trust, _hosts: Sequence[str], now: float) -> Trust:
    # the old CA stays first: the server goes on showing a certificate that every board can verify
    return keys.following(trust, authorities=(*trust.authorities, keys.new_authority(folders, now=now)))


def _end_ca(folders: KeyFolders, trust: Trust, hosts: Sequence[str], now: float) -> Trust:
    old, new = trust.authorities
    cross = certificates.cross_certificate(new, old, keys.authority_key(folders, old), now=now)
    write_atomic(folders.cross, cross.encode())
    keys.issue_server_certificate(folders, new, hosts, now=now)
    return keys.following(trust, authorities=(new,))


_Step = Callable[[KeyFolders, Trust, Sequence[str], float], Trust]
_STEPS: dict[str, tuple[_Step, _Step]] = {
    "signing": (_begin_signing, _end_signing),
    "ca": (_begin_ca, _end_ca),
    "root": (_begin_root, _end_root),
}
