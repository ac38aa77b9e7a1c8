"""What the cloud is told of a board's state: nothing unless the site wants it, each reading once, never too many."""

from __future__ import annotations

import json

import pytest

from edgectl.store import Store
from edgectl.telemetry import share
from edgectl.telemetry.ring import Ring
from edgewire.errors import NotFound, Offline, UsageError
from edgewire.messages import Telemetry, UploadReply
from tests.board.conftest import Board
from tests.board.recorded import recorded
from tests.board.synced import Synced


class Telling:
    """A board with a ring of logged readings, and a cloud that may fail."""

    def __init__(self, board: Board) -> None:
        board.enroll("gestures")
        self.home, self.recorded = board.home.ensure(), recorded("pi-4b", board.folder)
        self.ring = Ring(board.home.telemetry)
        self.taken: list[Telemetry] = []
        self.failure: Exception | None = None

    def log(self, *celsius: float) -> None:
        plain = self.recorded.read().plain()
        for n, value in enumerate(celsius):
            self.ring.append({**plain, "temperature_c": value, "wall_s": float(n)})

    def telemetry(self, told: Telemetry) -> UploadReply:
        self.taken.append(told)
        if self.failure:
            raise self.failure
        return UploadReply(len(told.points), 0)

    def tell(self) -> int:
        with Store.open(self.home.database) as store:
            return share.tell(store, self, self.ring, self.recorded.read)  # type: ignore[arg-type]

    def temperatures(self) -> list[list[float | None]]:
        return [[point.temperature_c for point in told.points] for told in self.taken]


@pytest.fixture
def telling(newcomer: Board) -> Telling:
    return Telling(newcomer)


@pytest.mark.parametrize(
    ("flags", "throttled"),
    [(["over-current"], False), (["over-current", "cpu-throttle-alert"], True), ([], True)],
)
def test_peaks_of_current_make_no_board_hot(telling: Telling, flags: list[str], throttled: bool) -> None:
    telling.ring.append({**telling.recorded.read().plain(), "throttled": True, "throttle_flags": flags})
    telling.tell()
    assert [point.throttled for point in telling.taken[0].points] == [throttled]


def test_each_logged_reading_is_told_once(telling: Telling) -> None:
    telling.log(50.0, 51.0)
    assert telling.tell() == 2
    telling.log(52.0)
    assert telling.tell() == 1
    assert telling.temperatures() == [[50.0, 51.0], [52.0]]


def test_where_nothing_was_logged_the_board_is_looked_at_now(telling: Telling) -> None:
    assert telling.tell() == 1
    assert telling.temperatures() == [[81.303]]


def test_many_readings_become_sixty_and_the_heat_stays_visible(telling: Telling) -> None:
    telling.log(*(40.0 + (n == 333) * 44.0 for n in range(1000)))
    assert telling.tell() == 59  # parts of 17
    assert max(telling.temperatures()[0]) == 84.0


def test_after_a_failure_the_very_same_message_is_sent_again(telling: Telling) -> None:
    telling.log(50.0)
    telling.failure = Offline("no network")
    with pytest.raises(Offline):
        telling.tell()
    telling.log(60.0)
    telling.failure = None
    assert telling.tell() == 1
    assert telling.taken[0] == telling.taken[1]
    assert telling.tell() == 1
    assert telling.temperatures()[2] == [60.0]


def test_a_message_that_the_cloud_will_never_take_is_not_sent_for_ever(telling: Telling) -> None:
    telling.failure = UsageError("malformed")
    for _ in range(2):
        with pytest.raises(UsageError):
            telling.tell()
    assert telling.taken[0].upload_id != telling.taken[1].upload_id


def test_a_ring_that_was_begun_anew_is_told_from_its_start(telling: Telling) -> None:
    telling.log(*(50.0 for _ in range(3)))
    (telling.home.telemetry / "00000001.ndjson").rename(telling.home.telemetry / "00000007.ndjson")
    telling.tell()
    (telling.home.telemetry / "00000007.ndjson").unlink()
    telling.log(61.0)
    telling.tell()
    assert telling.temperatures()[1] == [61.0]


def test_what_another_version_logged_is_left_out(telling: Telling) -> None:
    telling.ring.append({"temperature": "hot"})
    telling.log(-256.0, 55.0)
    telling.tell()
    assert telling.temperatures() == [[55.0]]


def test_nothing_but_numbers_and_flags_leaves_the_board(telling: Telling) -> None:
    telling.log(50.0)
    telling.tell()
    told = vars(telling.taken[0].points[0])
    assert {type(value) for value in told.values()} <= {float, bool, type(None), str}
    assert [value for value in told.values() if isinstance(value, str)] == ["none"]  # the quality of power


# In a sync


def test_sync_tells_nothing_unless_it_is_asked_to(synced: Synced) -> None:
    assert synced.sync().readings == 0
    assert synced.board.server.telemetry == []


def test_sync_tells_when_it_is_asked_to(synced: Synced) -> None:
    telling = recorded("pi-4b", synced.board.folder)
    ring = Ring(synced.board.home.telemetry)
    outcome = synced.sync(tell_state=lambda store, cloud: share.tell(store, cloud, ring, telling.read))
    assert (outcome.readings, len(synced.board.server.telemetry)) == (1, 1)
    assert outcome.tasks[0].changed


def test_an_older_cloud_is_no_failure_of_the_sync(synced: Synced) -> None:
    def unknown(store: Store, cloud: object) -> int:
        raise NotFound("there is no such page")

    outcome = synced.sync(tell_state=unknown)
    assert outcome.readings == 0
    assert outcome.tasks[0].changed


def test_the_setting_is_off_by_default_and_decides(newcomer: Board) -> None:
    listed = json.loads(newcomer.edgectl("config", "list", "--json").stdout)
    assert "telemetry_share" in json.dumps(listed)
    assert json.loads(newcomer.edgectl("config", "get", "telemetry_share", "--json").stdout)["value"] is False
