"""Is this cloud able to do its work, and will it be tomorrow? One check after the other, each with what to do."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

import sqlalchemy as sa

from cloud_aug import certificates, db, keys, packs, publications, searchable, tasks
from cloud_aug.cloud import Cloud
from cloud_aug.database import first_line, from_database_error
from edgewire.decoding import JSON_LIMIT_BYTES
from edgewire.errors import EdgeError, NotFound, NotReady, from_os_error

Outcome = Literal["ok", "warning", "failed"]

CERTIFICATE_WARN_DAYS = 30
DISK_WARN_SHARE = 0.1
CONSENT_WARN_DAYS = 14
WITHDRAWN_LIMIT = JSON_LIMIT_BYTES // 90  # packs that a manifest can list: each takes so many bytes of what boards read


@dataclass(frozen=True)
class Check:
    """One thing that was looked at. hint: what to do where it is not ok."""

    name: str
    outcome: Outcome
    detail: str
    hint: str = ""


def examine(cloud: Cloud, *, deep: bool, now: float) -> list[Check]:
    """Everything; deep: every published blob is read through. Nothing is changed but a blob that is put and removed."""
    checks: list[tuple[str, Callable[[], Check]]] = [
        ("database", lambda: _database(cloud)),
        ("blobs", lambda: _blobs(cloud)),
        ("keys", lambda: _keys(cloud)),
        ("certificate", lambda: _certificate(cloud, now)),
        ("disk", lambda: _disk(cloud)),
    ]
    found = [_tried(name, check) for name, check in checks]
    if found[0].outcome == "failed":
        return found
    return [*found, *_tasks(cloud, deep=deep, now=now)]


def _tried(name: str, check: Callable[[], Check]) -> Check:
    """A check that raises has failed, in the words of what it raised."""
    try:
        return check()
    except EdgeError as error:
        return Check(name, "failed", error.message, error.hint)
    except sa.exc.DBAPIError as error:
        return Check(name, "failed", from_database_error(error).message, first_line(error))
    except OSError as error:
        found = from_os_error(error, f"checking {name}")
        return Check(name, "failed", found.message, found.hint)


def _database(cloud: Cloud) -> Check:
    kind = cloud.database.engine.dialect.name
    with cloud.database.reading() as connection:
        if kind == "sqlite":
            told = str(connection.exec_driver_sql("PRAGMA quick_check(1)").scalar())
            if told != "ok":
                return Check("database", "failed", f"SQLite is damaged: {told}", "restore it: cloud-aug restore")
        else:
            version = connection.exec_driver_sql("SHOW server_version").scalar()
            kind = f"PostgreSQL {version}"
    with cloud.database.writing() as connection:
        epoch = db.epoch(connection)  # a database that cannot be written refuses the writer's lock
    return Check("database", "ok", f"{kind}, schema {db.SCHEMA}, epoch {epoch}")


def _blobs(cloud: Cloud) -> Check:
    probe = b"cloud-aug doctor was here"
    ref = cloud.blobs.put(probe)
    whole = cloud.blobs.read(ref.digest) == probe
    cloud.blobs.remove(ref.digest)
    where = cloud.settings.object_store or "a folder"
    return Check("blobs", "ok" if whole else "failed", f"{where} takes and gives bytes")


def _keys(cloud: Cloud) -> Check:
    trust = cloud.trust()
    keys.pseudonym_secret(cloud.keys)
    keys.current_signing(cloud.keys, trust)
    return Check("keys", "ok", f"there, trust statement {trust.version}")


def _certificate(cloud: Cloud, now: float) -> Check:
    pem = keys.server_certificate_pem(cloud.keys)
    days = (certificates.expires_at(pem) - now) / 86400
    missing = sorted(set(cloud.settings.hosts) - set(certificates.hosts_of(pem)))
    renew = "run 'cloud-aug keys rotate tls'"
    if days <= 0:
        return Check("certificate", "failed", "has ended", renew)
    issuer = certificates.issuer_of(pem, cloud.trust().authorities)
    if issuer is None:
        hint = f"copy keys/ from the machine where keys were rotated, or {renew}"
        return Check("certificate", "failed", "is of an authority that boards do not believe", hint)
    left = (certificates.expires_at(issuer) - now) / 86400
    if left < CERTIFICATE_WARN_DAYS:
        hint = "run 'cloud-aug keys rotate ca'; when boards have synced, again with --finish"
        return Check(
            "certificate", "failed" if left <= 0 else "warning", f"its authority ends in {left:.0f} days", hint
        )
    if missing:
        return Check("certificate", "warning", f"is not valid for {missing[0]}, which settings.toml names", renew)
    return Check("certificate", "warning" if days < CERTIFICATE_WARN_DAYS else "ok", f"ends in {days:.0f} days", renew)


def _disk(cloud: Cloud) -> Check:
    usage = shutil.disk_usage(cloud.settings.data)
    detail = f"{usage.free / 2**30:.1f} GiB of {usage.total / 2**30:.0f} GiB free"
    low = usage.free < DISK_WARN_SHARE * usage.total
    return Check("disk", "warning" if low else "ok", detail, "free some space, or run 'cloud-aug gc'" if low else "")


def _tasks(cloud: Cloud, *, deep: bool, now: float) -> Iterator[Check]:
    for task in tasks.list_all(cloud):
        yield _tried(f"task {task.id}", lambda task=task: _task(cloud, task.id, deep=deep, now=now))  # type: ignore[misc]


def _task(cloud: Cloud, task: str, *, deep: bool, now: float) -> Check:
    name = f"task {task}"
    try:
        publication = publications.require(cloud, task)
    except NotReady as error:
        return Check(name, "warning", error.message, error.hint)
    with cloud.database.reading() as connection:
        gone = set(publications.withdrawn_packs(connection, task))
        days = (publications.good_until(connection, publication) - now) / 86400
    refs = [pack for pack in publication.packs if pack.digest not in gone]
    blobs = {*publication.content, *(pack.ciphertext or pack.digest for pack in refs)}
    with suppress(NotReady):  # an index of an older release has no files of its own
        blobs |= set(searchable.read(cloud, publication.search.digest)[0].files)
    build = f"run 'cloud-aug index build --task {task}'"
    try:
        for digest in blobs:
            (cloud.blobs.check if deep else cloud.blobs.path)(digest)
    except NotFound as error:
        return Check(name, "failed", error.message, build)
    for pack in refs if deep else ():
        packs.read(cloud, task, pack)
    what = f"publication {publication.version}: {publication.samples} samples, {len(publication.packs)} packs"
    detail = f"{what}{f', {len(blobs)} blobs whole' if deep else ''}"
    if days <= 0:
        return Check(name, "failed", f"{detail}; a consent in it has ended: boards are refused packs", build)
    if days < CONSENT_WARN_DAYS:
        return Check(name, "warning", f"{detail}; a consent in it ends in {days:.0f} days", build)
    if len(gone) > WITHDRAWN_LIMIT / 2:
        hint = "build less often: each pack that changes is one more to list; beyond the limit the task needs a new id"
        listed = f"{len(gone)} packs were withdrawn, boards can read a list of {WITHDRAWN_LIMIT}"
        return Check(name, "warning", f"{detail}; {listed}", hint)
    return Check(name, "ok", detail)
