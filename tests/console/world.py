"""A cloud with something to see: accounts, boards that have told how they are, a release half-way through its waves.

made = world.filled(folder, boards=60)      # a data folder with the toy task and all that
world.hurry(cloud, release, wave=0)         # the boards of a wave tell that they run it
"""

from __future__ import annotations

import json
import random
import secrets
import time
from pathlib import Path
from typing import Any

from cloud_aug import accounts, bases, cloud, db, passwords, standing
from cloud_aug.cloud import Cloud
from cloud_aug.releases import steering
from cloud_aug.releases.plan import Selection, Wave
from cloud_aug.releases.steering import Draft
from cloud_aug.rounds import series
from edgewire.decoding import encode
from edgewire.messages import RecipeFigure, Report, Telemetry, TelemetryPoint
from edgewire.releases import Policy
from tests.cloud import players, toys

PASSWORD = "four words for tests"
PROFILES = ("pi-4b", "pi-5", "pi-zero-2w", "jetson-orin-nano")
NASTY = "<img src=x onerror=\"document.title='owned'\"><script>alert(1)"  # as long as a name may be
MESSAGES, POINTS = 6, 20


def filled(folder: Path, *, boards: int = 60, people: bool = True) -> Path:
    """A data folder with the toy task, its pool, base and publication, and a fleet; the accounts ann (admin), olga
    (operator) and vic (viewer), where people are wanted."""
    made = cloud.open_cloud(toys.published(folder))
    now = time.time()
    if people:
        add_people(made, now=now)
    _add_prior(made)
    add_boards(made, boards, now=now)
    made.database.close()
    return folder


def add_people(made: Cloud, *, now: float) -> None:
    """With hashes that cost little: a hash says what it cost, so that logins are fast, too."""
    usual, passwords.COST = passwords.COST, (4, 8, 1)
    try:
        for name, role in (("ann", "admin"), ("olga", "operator"), ("vic", "viewer")):
            accounts.add(made, name, accounts.role_named(role), PASSWORD, now=now)
    finally:
        passwords.COST = usual


def add_boards(made: Cloud, count: int, *, now: float) -> list[str]:
    """Boards as a fleet has them: most are well, some hot, silent, new or revoked; the first has a nasty name."""
    rng = random.Random(count)
    names = [f"b{number:016x}" for number in range(1, count + 1)]
    base = bases.newest(made, "toy").base.onnx.digest
    with made.database.writing() as connection:
        rows = [_board(rng, number, name, now) for number, name in enumerate(names)]
        connection.execute(db.boards.insert(), rows)
        connection.execute(db.grants.insert(), [{"board": n, "task": "toy", "granted_at": now} for n in names])
        connection.execute(db.board_states.insert(), [_state(rng, name, base, now) for name in names])
        for name in names[:3]:
            _tell(connection, rng, name, base, now)
    return names


def release(made: Cloud, *, now: float, soak_s: float = 0.0) -> str:
    """A release in three waves, started, with two canaries."""
    canaries = (f"b{7:016x}", f"b{8:016x}")
    waves = (Wave(0.2, soak_s), Wave(0.5, soak_s), Wave(1.0, soak_s))
    draft = Draft(policy=Policy("blend"), selection=Selection(canaries=canaries), waves=waves, note="A try")
    found = steering.create(made, "toy", draft, now=now).info.id
    steering.start(made, found, now=now)
    return found


def hurry(made: Cloud, found: str, *, wave: int, failed: int = 0) -> None:
    """The boards of a wave tell how it went: so many refuse it, the others run it."""
    column, now = db.release_boards.c, time.time()
    with made.database.writing() as connection:
        mine = db.release_boards.select().where(column.release == found, column.wave == wave).order_by(column.board)
        for number, row in enumerate(connection.execute(mine).all()):
            this = db.release_boards.update().where(column.release == found, column.board == row.board)
            state = "failed" if number < failed else "committed"
            connection.execute(this.values(state=state, offered_at=now, told_at=now))


def rounds(made: Cloud, *, now: float) -> str:
    """A series of two rounds that is over; of three boards one never answered."""
    players.allow_rounds(made)
    found = series.create(made, "toy", players.PLAN, now=now).id
    with made.database.writing() as connection:
        for number in (1, 2):
            _round(connection, found, number, now)
        connection.execute(db.series.update().where(db.series.c.id == found).values(state="finished", changed_at=now))
    return found


def _round(connection: Any, found: str, number: int, now: float) -> None:
    began, name = now - (3 - number) * 600, secrets.token_hex(32)
    row = {"series": found, "number": number, "state": "closed", "reason": "", "begun_at": began, "entropy": b""}
    times = {"deadline_at": began + 500, "closed_at": began + 400}
    blobs = {"server": name, "order_blob": name, "order_bytes": 4000, "result": name}
    connection.execute(db.rounds.insert().values({**row, **times, **blobs}))
    for board in (f"b{n:016x}" for n in range(1, 4)):
        asked = {"series": found, "number": number, "board": board, "invited_at": began, "heard_at": began + 5}
        turn = {"started_at": began + 5, "samples": 12, "steps": 10 + number, "expected_s": 90.0}
        connection.execute(db.invitations.insert().values({**asked, **turn, "gave_up": board.endswith("3")}))
        if not board.endswith("3"):
            told = {"digest": name, "size": 3000, "samples": 12, "score": 0.6 + number / 10, "received_at": began + 99}
            mine = {"board": board, "upload_id": secrets.token_hex(16), "series": found, "number": number}
            energy = {"energy_j": 41.5 if board.endswith("1") else None}
            counted = {"counted_in": number, "dropped": "", "kept": False, **energy}
            connection.execute(db.updates.insert().values({**mine, **told, **counted}))


def _board(rng: random.Random, number: int, name: str, now: float) -> dict[str, Any]:
    seen: float | None = now - rng.expovariate(1 / 1800)
    if number % 17 == 5:
        seen = now - rng.uniform(2, 30) * 86400
    if number % 23 == 9:
        seen = None
    return {
        "id": name,
        "name": NASTY if number == 0 else f"board-{number:05d}",
        "profile": PROFILES[number % len(PROFILES)],
        "public_key": secrets.token_hex(22),
        "enrolled_at": now - 40 * 86400 + number,
        "last_seen_at": seen,
        "revoked_at": now - 3600 if number % 41 == 20 else None,
        "edgectl": "0.1.0",
    }


def _state(rng: random.Random, name: str, base: str, now: float) -> dict[str, Any]:
    heat = rng.gauss(58, 9)
    told = {"told_at": now - 60, "temperature_c": round(heat, 1), "throttled": heat > 74}
    power = {"power_w": round(rng.gauss(5, 1), 2), "power_quality": rng.choice(["measured", "modelled"])}
    report = {"reported_at": now - 900, "task": "toy", "base": base, "shipped": "blend"}
    return {"board": name, **told, **power, **report, "gain": round(rng.gauss(0.06, 0.05), 3)}


def _tell(connection: Any, rng: random.Random, board: str, base: str, now: float) -> None:
    start = now - MESSAGES * POINTS * 60
    for number in range(MESSAGES):
        points = tuple(_point(rng, start + (number * POINTS + i) * 60) for i in range(POINTS))
        told = Telemetry(secrets.token_hex(16), points)
        row = {"board": board, "upload_id": told.upload_id, "document": encode(told), "received_at": now}
        connection.execute(db.telemetry.insert().values(row))
        standing.measured(connection, board, points[-1], now=now)
    for number in range(4):
        at, upload = now - (4 - number) * 86400, secrets.token_hex(16)
        made = Report(upload, "toy", base, "directory", "auto", "blend", 12, 8, 5, 0.02 * number + 0.01, 41.0)
        row = {"board": board, "upload_id": upload, "task": "toy", "kind": "report", "digest": "0" * 64}
        connection.execute(db.uploads.insert().values({**row, "items": 1, "accepted": 1, "received_at": at}))
        connection.execute(db.reports.insert().values(board=board, upload_id=upload, task="toy", document=encode(made)))


def _point(rng: random.Random, at: float) -> TelemetryPoint:
    heat = 55 + 8 * rng.random() + 6 * ((at // 1800) % 2)
    return TelemetryPoint(
        at, round(heat, 1), False, False, round(4 + 2 * rng.random(), 2), "modelled", round(rng.random(), 2)
    )


def _add_prior(made: Cloud) -> None:
    """As if the base had been rehearsed: that takes longer than everything else here."""
    record = bases.newest(made, "toy")
    gains = {"local": 0.02, "blend": 0.05, "matched": 0.04, "mpda": 0.06}
    figures = tuple(
        RecipeFigure(recipe, shots, gain * (1 + shots / 10), 0.03, max(0.0, 0.2 - shots / 50), 18)
        for recipe, gain in gains.items()
        for shots in (1, 3, 10)
    )
    document = json.loads(encode(record)) | {"figures": json.loads(encode(figures))}
    with made.database.writing() as connection:
        connection.execute(db.bases.update().values(document=json.dumps(document).encode()))
