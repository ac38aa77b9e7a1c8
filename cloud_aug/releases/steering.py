"""What operators do with a release. Each step is one transaction with its line in the audit log.

Of two operators at once the second gets Conflict: by the state that is no longer what the step starts from, or by the
revision, where that is given: it names what the operator saw when deciding.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from msgspec import UNSET

from cloud_aug import audit, db, publications, tasks, writes
from cloud_aug.cloud import Cloud
from cloud_aug.publications import Publication
from cloud_aug.releases import golden, plan, status
from cloud_aug.releases.plan import BACK, LIVE, Candidate, Plan, Selection, State, Wave
from cloud_aug.releases.status import ReleaseStatus
from edgewire.decoding import convert, encode, plain
from edgewire.errors import Conflict, InvalidMessage, NotFound, UsageError
from edgewire.releases import ORDER_LIFETIME_S, BasePayload, Kind, Limits, Policy

DEFAULT_WAVES = (Wave(0.01, 3600.0), Wave(0.1, 3600.0), Wave(1.0, 3600.0))


@dataclass(frozen=True)
class Draft:
    """What an operator asks for. base: the version of a published base, None: the policy is released."""

    base: int | None = None
    policy: Policy | None = None
    selection: Selection = field(default_factory=Selection)
    waves: tuple[Wave, ...] = DEFAULT_WAVES
    limits: Limits = field(default_factory=Limits)
    order_s: float = ORDER_LIFETIME_S
    note: str = ""


def create(cloud: Cloud, task_id: str, draft: Draft, *, actor: str = audit.SHELL, now: float) -> ReleaseStatus:
    """Prepare a release; no board hears of it before `start`.

    Raises NotFound (task, base), UsageError for what cannot be, Conflict for a base that every board gets anyway, or
    that is older than that.
    """
    plan.check_waves(draft.waves)
    kind: Kind = "policy" if draft.base is None else "base"
    if (draft.base is None) == (draft.policy is None):
        raise UsageError("a release brings either a base or a policy", hint="give --base or --recipe")
    payload = None if draft.base is None else _payload(cloud, task_id, draft.base)
    made = Plan(
        id=secrets.token_hex(8),
        task=task_id,
        kind=kind,
        selection=draft.selection,
        waves=draft.waves,
        limits=draft.limits,
        order_s=draft.order_s,
        created_by=actor,
        note=draft.note,
        payload=payload or UNSET,
        policy=draft.policy or UNSET,
    )
    _check_plan(made)
    with cloud.database.writing() as connection:
        tasks.get(connection, task_id)
        _check_canaries(connection, task_id, draft.selection)
        if payload is not None:
            refs = (payload.golden, payload.base.onnx, payload.base.weights, payload.directory)
            rows = [{"digest": ref.digest, "task": task_id} for ref in refs]
            writes.insert_new(connection, db.published_blobs, rows)
        row = {"id": made.id, "task": task_id, "state": "draft", "document": encode(made), "base_version": draft.base}
        more = {"wave": 0, "revision": 1, "reason": "", "created_at": now}
        connection.execute(db.releases.insert().values({**row, **more}))
        detail = {"task": task_id, "what": made.what, "note": made.note}
        audit.note(connection, at=now, actor=actor, action="create-release", subject=made.id, **detail)
    return status.find(cloud, made.id)


def start(
    cloud: Cloud, release: str, *, actor: str = audit.SHELL, now: float, revision: int | None = None
) -> ReleaseStatus:
    """Offer it to the first wave. Raises UsageError if it is for no board, Conflict while another one is under way, or
    where boards have its base, or a newer one, by now."""

    def change(connection: sa.Connection, row: sa.Row[Any]) -> dict[str, Any]:
        made = plan.read(row.document)
        _check_alone(connection, row, made)
        if row.base_version is not None:
            _check_base(connection, row.task, row.base_version)
        boards = candidates(connection, row.task)
        waves = plan.arrange(made, boards)
        if not waves:
            raise UsageError(_nobody(made, boards), hint="see 'cloud-aug boards list'; create a release that fits")
        add_boards(connection, release, waves)
        return {"counter": next_counter(connection, row.task), "started_at": now, "wave_since": now}

    return _step(cloud, release, ("draft",), "running", change, actor=actor, action="start", now=now, revision=revision)


def pause(
    cloud: Cloud, release: str, *, actor: str = audit.SHELL, now: float, revision: int | None = None, reason: str = ""
) -> ReleaseStatus:
    """Offer it to nobody for now. Who runs it goes on running it."""
    said = reason or f"paused by {actor}"
    return _step(
        cloud, release, ("running",), "paused", _says(said), actor=actor, action="pause", now=now, revision=revision
    )


def resume(
    cloud: Cloud, release: str, *, actor: str = audit.SHELL, now: float, revision: int | None = None
) -> ReleaseStatus:
    """Go on where it was paused; the wave is watched for its whole time again."""

    def change(connection: sa.Connection, row: sa.Row[Any]) -> dict[str, Any]:
        return {"reason": "", "wave_since": now}

    return _step(
        cloud, release, ("paused",), "running", change, actor=actor, action="resume", now=now, revision=revision
    )


def abort(
    cloud: Cloud, release: str, *, actor: str = audit.SHELL, now: float, revision: int | None = None, reason: str = ""
) -> ReleaseStatus:
    """End it, and call back who runs it. Also after it was done; Conflict if what boards had before is gone."""

    _check_way_back(cloud, release)

    def change(connection: sa.Connection, row: sa.Row[Any]) -> dict[str, Any]:
        return called_back(connection, row, reason or f"aborted by {actor}", now=now)

    states: tuple[State, ...] = ("draft", "running", "paused", "done")
    return _step(cloud, release, states, "aborted", change, actor=actor, action="abort", now=now, revision=revision)


def called_back(connection: sa.Connection, row: sa.Row[Any], reason: str, *, now: float) -> dict[str, Any]:
    """What changes in the row of a release whose boards have to go back; nothing was given out before its start."""
    counter = None if row.counter is None else next_counter(connection, row.task)
    if row.base_version is not None and row.counter is not None:
        publications.hold(connection, row.task, row.base_version)
    return {"reason": reason, "ended_at": now, "revert_counter": counter}


def all_called_back(connection: sa.Connection) -> Sequence[sa.Row[Any]]:
    """The releases that failed or were aborted, as they are in the database now."""
    return connection.execute(sa.select(db.releases).where(db.releases.c.state.in_(BACK))).all()


def call_back_again(connection: sa.Connection, ended: Sequence[sa.Row[Any]], *, now: float) -> None:
    """After a restore: what was called back since the backup, and why, is so again."""
    column = db.releases.c
    for release in ended:
        known = sa.select(db.releases).where(column.id == release.id, column.state.not_in(BACK))
        row = connection.execute(known).one_or_none()
        if row is not None:
            values = {"state": release.state, "revision": row.revision + 1}
            values |= called_back(connection, row, release.reason, now=now)
            connection.execute(db.releases.update().where(column.id == release.id).values(values))


def next_counter(connection: sa.Connection, task: str) -> int:
    """One more than any order of the task had. The caller's transaction keeps others from taking the same."""
    column = db.releases.c
    used = sa.select(sa.func.max(column.counter), sa.func.max(column.revert_counter)).where(column.task == task)
    return 1 + max(number or 0 for number in connection.execute(used).one())


def candidates(connection: sa.Connection, task: str, *, board: str | None = None) -> list[Candidate]:
    """The boards that are granted a task and not revoked; only that one, where one is named."""
    query = sa.select(db.boards).join_from(db.grants, db.boards).order_by(db.boards.c.id)
    query = query.where(db.grants.c.task == task, db.boards.c.revoked_at.is_(None))
    named = sa.select(db.board_groups)
    if board is not None:
        query, named = query.where(db.boards.c.id == board), named.where(db.board_groups.c.board == board)
    groups: dict[str, set[str]] = {}
    for row in connection.execute(named):
        groups.setdefault(row.board, set()).add(row.name)
    rows = connection.execute(query).all()
    return [Candidate(row.id, row.profile, row.edgectl, frozenset(groups.get(row.id, ()))) for row in rows]


def add_boards(connection: sa.Connection, release: str, waves: dict[str, int]) -> None:
    """Give boards their place; each with a challenge of its own."""
    rows = [
        {"release": release, "board": board, "wave": wave, "state": "waiting", "challenge": secrets.token_hex(16)}
        for board, wave in waves.items()
    ]
    writes.insert_new(connection, db.release_boards, rows)


def _check_plan(made: Plan) -> None:
    """Raises InvalidMessage for one that could not be read again, before it is kept."""
    try:
        convert(Plan, plain(made), what="the release")
    except InvalidMessage as error:
        raise InvalidMessage(error.message, hint="see 'cloud-aug release create --help'") from None


def _payload(cloud: Cloud, task_id: str, version: int) -> BasePayload:
    with cloud.database.reading() as connection:
        task, found = tasks.get(connection, task_id), publications.of_base(connection, task_id, version)
        _check_base(connection, task_id, version)
    if not _is_there(cloud, found):
        raise Conflict(
            f"files of base {version} of '{task_id}' were cleared away after it was called back",
            hint=f"run 'cloud-aug index build --task {task_id}', which makes them anew if it is the newest base",
        )
    made = golden.make(cloud.blobs.read(found.base.onnx.digest), task)
    return BasePayload(found.base, found.directory, cloud.blobs.put(made))


def _check_base(connection: sa.Connection, task_id: str, version: int) -> None:
    """Raises Conflict for a base that a release can bring to no board."""
    if not publications.is_held(connection, task_id, version):
        raise Conflict(
            f"every board gets base {version} of '{task_id}' with its task already",
            hint="train another base, then run 'cloud-aug index build --hold' and release that",
        )
    general = publications.general(connection, task_id)
    if general is not None and version < general.base.version:
        raise Conflict(
            f"base {version} of '{task_id}' is older than base {general.base.version}, which every board gets",
            hint="to go back, abort the release that brought that one: see 'cloud-aug release list'",
        )


def _check_canaries(connection: sa.Connection, task_id: str, selection: Selection) -> None:
    known = {board.board for board in candidates(connection, task_id)}
    if unknown := sorted(set(selection.canaries) - known):
        raise UsageError(
            f"{unknown[0]} is no board of task '{task_id}' that could be a canary", hint="see 'cloud-aug boards list'"
        )


def _check_way_back(cloud: Cloud, release: str) -> None:
    """Where the manifest names a release's base, what it would name instead must still be there. Raises Conflict."""
    with cloud.database.reading() as connection:
        row = status.row_of(connection, release)
        now = publications.general(connection, row.task)
        below = publications.beneath(connection, row.task)
    if row.state != "done" or now is None or below is None or now.base.version != row.base_version:
        return
    if not _is_there(cloud, below):
        raise Conflict(
            f"base {below.base.version} of '{row.task}', which boards had before, was cleared away",
            hint="train another base, and release that instead",
        )


def _is_there(cloud: Cloud, publication: Publication) -> bool:
    """Whether boards can be at a publication."""
    base = publication.base
    try:
        for ref in (base.onnx, base.weights, publication.directory, publication.search):
            cloud.blobs.path(ref.digest)
    except NotFound:
        return False
    return True


def _check_alone(connection: sa.Connection, row: sa.Row[Any], made: Plan) -> None:
    column = db.releases.c
    live = sa.select(db.releases).where(column.task == row.task, column.state.in_(LIVE), column.id != row.id)
    for other in connection.execute(live):
        if plan.read(other.document).kind == made.kind:
            raise Conflict(
                f"release {other.id} of '{row.task}' is {other.state}",
                hint=f"wait for it to end, or run 'cloud-aug release abort {other.id}'",
            )


def _nobody(made: Plan, boards: Sequence[Candidate]) -> str:
    """Which condition leaves nobody, so that the operator sees what to change."""
    if not boards:
        return f"no board is granted task '{made.task}'"
    chosen = made.selection
    profiles = Counter(board.profile for board in boards)
    groups = Counter(name for board in boards for name in board.groups)
    there = {
        "profiles": (chosen.profiles, profiles),
        "groups": (chosen.groups, groups),
    }
    told = [
        f"{name} {', '.join(wanted)} (there are: {', '.join(sorted(found)) or 'none'})"
        for name, (wanted, found) in there.items()
        if wanted
    ]
    if chosen.minimum != "0":
        versions = sorted({board.edgectl or "unknown" for board in boards})
        told.append(f"edgectl {chosen.minimum} or newer (there are: {', '.join(versions)})")
    return f"release {made.id} is for none of the {len(boards)} boards of '{made.task}': it wants {' and '.join(told)}"


def _says(reason: str) -> Callable[[sa.Connection, sa.Row[Any]], dict[str, Any]]:
    return lambda connection, row: {"reason": reason}


def _step(
    cloud: Cloud,
    release: str,
    states: tuple[State, ...],
    after: State,
    change: Callable[[sa.Connection, sa.Row[Any]], dict[str, Any]],
    *,
    actor: str,
    action: str,
    now: float,
    revision: int | None,
) -> ReleaseStatus:
    with cloud.database.writing() as connection:
        row = status.row_of(connection, release)
        if revision is not None and revision != row.revision:
            raise Conflict(
                f"release {release} has changed since you looked: it is {row.state} now",
                hint=f"see 'cloud-aug release status {release}', then decide again",
            )
        if row.state not in states:
            how = "was called back" if row.state in BACK else f"is {row.state}"
            raise Conflict(f"release {release} {how}, so it cannot {action}", hint="see 'cloud-aug release list'")
        values = {"state": after, "revision": row.revision + 1, **change(connection, row)}
        connection.execute(db.releases.update().where(db.releases.c.id == release).values(values))
        told = {"task": row.task, "was": row.state, "reason": values.get("reason", "")}
        audit.note(connection, at=now, actor=actor, action=f"{action}-release", subject=release, **told)
    return status.find(cloud, release)
