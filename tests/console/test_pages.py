"""What the pages show, and that they stay small however large the fleet is."""

from __future__ import annotations

import contextlib
import html
import time
from collections.abc import Iterator

import numpy as np
import pytest
import sqlalchemy as sa

from cloud_aug import boards, db, jobs, lineage, standing, tasks, telemetry, uploads
from cloud_aug.cloud import Cloud
from cloud_aug.console import charts, cohorts, fleet, learning, words
from cloud_aug.console.charts import Dot, Part, Series
from cloud_aug.releases import status as releases
from cloud_aug.standing import Wanted
from edgewire.decoding import encode
from edgewire.messages import Report, Telemetry, TelemetryPoint
from tests.console import world

FIRST, SECOND = f"b{1:016x}", f"b{2:016x}"
PAGES = (
    "/",
    "/boards",
    f"/boards/{FIRST}",
    "/tasks",
    "/tasks/toy",
    "/models",
    "/releases",
    "/rounds",
    "/jobs",
    "/audit",
)


@contextlib.contextmanager
def statements(made: Cloud) -> Iterator[list[str]]:
    """The statements about boards that the database gets meanwhile."""
    found: list[str] = []

    def note(_connection, _cursor, statement, *_rest) -> None:
        if "board" in statement:  # the service has other threads, too
            found.append(statement)

    sa.event.listen(made.database.engine, "before_cursor_execute", note)
    yield found
    sa.event.remove(made.database.engine, "before_cursor_execute", note)


def test_ten_thousand_boards_cost_as_many_statements_and_bytes_as_sixty(visit, made, clock):
    visit.log_in("ann")
    measured = []
    for more in (0, 10_000):
        with made.database.writing() as connection:
            rows = [_plain_board(number) for number in range(100, 100 + more)]
            connection.execute(db.boards.insert(), rows) if rows else None
        for path in ("/", "/boards", "/boards?order=hottest&page=2", "/boards?q=board-0&state=well"):
            with statements(made) as found:
                answer = visit.client.get(path)
            measured.append((path, answer.status_code, len(found), len(answer.content) < 40_000))
    assert [one[1] for one in measured] == [200] * 8
    assert measured[:4] == measured[4:]
    assert max(one[2] for one in measured) < 15


def _plain_board(number: int) -> dict[str, object]:
    row = {"id": f"b{number:016x}", "name": f"board-{number:05d}", "profile": "pi-5", "public_key": f"k{number}"}
    return {**row, "enrolled_at": 1.0, "last_seen_at": time.time(), "revoked_at": None}


def test_a_script_in_a_boards_name_stays_text_on_every_page(visit, made, clock):
    world.release(made, now=clock())
    visit.log_in("ann")
    for path in (*PAGES, f"/boards/{FIRST}/revoke", "/boards?q=" + world.NASTY.replace("#", "")):
        text = visit.client.get(path).text
        assert "<script>alert" not in text, path
        assert "<img src=x" not in text, path
    assert html.escape(world.NASTY, quote=False)[:20] in visit.client.get(f"/boards/{FIRST}").text


def test_boards_are_filtered_sorted_and_paged(made, clock):
    hot = standing.page(made, Wanted(state="hot", order="hottest"), now=clock())
    heats = [board.temperature_c for board in hot.boards]
    assert {board.state for board in hot.boards} == {"hot"}
    assert heats == sorted(heats, reverse=True)
    last = standing.page(made, Wanted(order="name", page=99), now=clock())
    assert (last.page, last.pages, len(last.boards), last.total) == (2, 2, 10, 60)
    assert sum(last.counts.values()) == 60
    few = standing.page(made, Wanted(text="BOARD-0000", profile="pi-5", task="toy"), now=clock())
    assert {board.name for board in few.boards} == {"board-00001", "board-00005", "board-00009"}
    assert {board.profile for board in few.boards} == {"pi-5"}


def test_signs_that_databases_read_as_wildcards_are_letters(made, clock):
    assert standing.page(made, Wanted(text="%"), now=clock()).total == 0
    assert standing.page(made, Wanted(text="board_0"), now=clock()).total == 0


def test_what_a_board_tells_shows_in_the_list(made, clock):
    points = tuple(TelemetryPoint(clock() + i, 80.0 + i, True, power_w=7.5, power_quality="measured") for i in range(2))
    told = Telemetry("a" * 32, points)
    telemetry.keep(made, SECOND, told.upload_id, encode(told), now=clock())
    report = Report("b" * 32, "toy", "c" * 64, "directory", "auto", "mpda", 9, 4, 2, -0.125, 3.0)
    uploads.report(made, SECOND, "toy", report.upload_id, encode(report), now=clock())
    with made.database.reading() as connection:
        found = standing.one(connection, SECOND, now=clock())
    assert (found.temperature_c, found.power_w, found.power_quality) == (81.0, 7.5, "measured")
    assert (found.gain, found.shipped, found.task) == (-0.125, "mpda", "toy")


def test_spread_counts_boards_in_steps(made):
    with made.database.writing() as connection:
        connection.execute(db.board_states.update().values(temperature_c=None))
        for board, heat in ((FIRST, -3.0), (SECOND, 50.0), (f"b{3:016x}", 54.9), (f"b{4:016x}", 55.0)):
            this = db.board_states.update().where(db.board_states.c.board == board)
            connection.execute(this.values(temperature_c=heat))
    told = standing.spread(made, "temperature_c", step=5.0, within=(-40.0, 125.0))
    assert told == [(-5.0, 1), (50.0, 2), (55.0, 1)]
    assert standing.spread(made, "temperature_c", step=5.0, within=(0.0, 52.0)) == [(0.0, 1), (50.0, 3)]


def test_a_board_that_reports_what_cannot_be_leaves_the_overview_as_it_is(visit, made, clock):
    visit.log_in("vic")
    usual = len(visit.client.get("/").content)
    for number, gain in enumerate((1e6, -1e300)):
        report = Report(f"{number:032x}", "toy", "c" * 64, "directory", "auto", "mpda", 9, 4, 2, gain, 3.0)
        uploads.report(made, SECOND, "toy", report.upload_id, encode(report), now=clock())
        assert len(visit.client.get("/").content) < 2 * usual


def test_one_board_shows_its_timeline_and_an_operator_revokes_it(visit, made, clock):
    visit.log_in("olga")
    boards.set_groups(made, SECOND, ["attic"], now=clock())
    text = visit.client.get(f"/boards/{SECOND}").text
    assert "<dd>attic</dd>" in text
    assert "ships blend" in text
    assert "Wh in" in text
    assert "cannot be recalled" in visit.client.get(f"/boards/{SECOND}/revoke").text
    assert visit.send(f"/boards/{SECOND}/revoke").headers["location"] == f"/boards/{SECOND}"
    text = visit.client.get(f"/boards/{SECOND}").text
    assert "by console:olga" in text
    assert f'href="/boards/{SECOND}/revoke"' not in text


def test_energy_is_of_the_time_in_which_readings_are_near_enough_to_each_other():
    walls = (0.0, 300.0, 600.0, 90_000.0, 90_300.0)
    points = [TelemetryPoint(wall, power_w=6.0, power_quality="measured") for wall in walls]
    found = fleet._energy(points)
    assert (found.watt_hours, found.covered_s, found.modelled) == (6.0 * 900 / 3600, 900.0, False)
    assert fleet._energy(points[2:4]) is None
    assert fleet._energy([TelemetryPoint(1.0)]) is None


def test_what_is_not_there_is_a_page_that_says_so(visit):
    visit.log_in("vic")
    for path, status in (
        ("/boards/b" + "f" * 16, 404),
        ("/boards/x", 422),
        ("/tasks/none", 404),
        ("/boards?page=x", 422),
    ):
        answer = visit.client.get(path)
        assert (answer.status_code, answer.headers["content-type"]) == (status, "text/html; charset=utf-8")
    assert visit.client.get("/v1/none").json()["error"]["code"] == "not_found"
    assert "There is no such page" in visit.client.get("/none", headers={"Accept": "text/html"}).text


def test_a_page_that_fails_as_nobody_foresaw_is_a_page_with_the_requests_id(visit, monkeypatch):
    visit.log_in("vic")
    monkeypatch.setattr(jobs, "newest", lambda *_, **__: 1 / 0)
    answer = visit.client.get("/jobs", headers={"X-Request-ID": "r1"})
    assert (answer.status_code, "The server failed" in answer.text, "<code>r1</code>" in answer.text) == (
        500,
        True,
        True,
    )
    assert "division" not in answer.text


def test_sentences_of_a_page_stand_apart(visit):
    visit.log_in("vic")
    assert "fetch whole. Mode embedding" in visit.client.get("/tasks/toy").text


def test_a_release_is_paused_resumed_and_aborted_by_whoever_saw_it_as_it_is(visit, made, clock):
    found = world.release(made, now=clock(), soak_s=60)
    visit.log_in("olga")

    def send(step: str, revision: int) -> int:
        return int(visit.send(f"/releases/{found}/{step}", {"revision": str(revision)}).status_code)

    seen = releases.find(made, found).info.revision
    assert send("pause", seen) == 303
    assert send("abort", seen) == 409  # somebody else was faster
    assert send("resume", seen + 1) == 303
    assert send("abort", seen + 2) == 303
    assert send("abort", -1) == 422
    assert releases.find(made, found).info.state == "aborted"
    assert "aborted by console:olga" in visit.client.get(f"/releases/{found}").text.lower()


def test_a_task_shows_pool_cohorts_price_and_prior(visit):
    visit.log_in("vic")
    text = visit.client.get("/tasks/toy").text
    for said in (
        "Usable samples by label",
        "Cohorts",
        "Labels that cohorts cover",
        "ε of one board",
        "Gain over the base",
    ):
        assert said in text
    assert "108 of 6 contributors" in text


def test_the_bound_of_epsilon_counts_directories_that_are_too_old_to_be_listed(made):
    task = tasks.load(made, "toy")
    assert learning._price(made, task)["asked"] == 0  # all of its packs are fetched
    with made.database.writing() as connection:
        row = dict(connection.execute(db.publications.select()).one()._mapping)
        for version in range(2, 3 + lineage.PUBLICATIONS):
            directory = f"{version:064x}" if version < 9 else row["directory"]
            connection.execute(db.publications.insert().values({**row, "version": version, "directory": directory}))
    assert learning._price(made, task)["asked"] == 7


def test_a_series_shows_its_rounds(visit, made, clock):
    found = world.rounds(made, now=clock())
    visit.log_in("vic")
    text = visit.client.get(f"/rounds/{found}").text
    assert "2 of 2 closed" in text
    assert text.count("2 of 3</td>") == 2
    assert '<td class="num wide">90.0</td><td class="num wide">94.0</td>' in text  # expected of boards, and taken
    down, up = 3 * 4000 / 1024, 2 * 3000 / 1024
    assert text.count(f'<td class="num wide">{down:.1f}</td><td class="num wide">{up:.1f}</td>') == 2
    assert text.count("41.5 J <small>of 1</small>") == 2  # one of three boards measures it
    assert "Score of the model by round" in text
    assert "Sent by round, KiB" in text
    assert "Energy by round, joules" in text
    assert f'href="/rounds/{found}"' in visit.client.get("/rounds").text
    assert visit.client.get("/rounds/" + "0" * 16).status_code == 404


def test_a_map_puts_like_cohorts_near_each_other():
    rows = np.array([[0.0, 0, 0], [0.1, 0, 0], [5, 5, 0], [5, 5, 0.2]])
    points, told = cohorts._plane(rows)
    near, far = np.linalg.norm(points[0] - points[1]), np.linalg.norm(points[0] - points[2])
    assert near < far / 10
    assert 0.99 < told <= 1.0
    assert cohorts._plane(np.zeros((1, 3)))[0].tolist() == [[0.0, 0.0]]


def test_jobs_tell_how_they_ended_and_that_they_were_lost(made, monkeypatch):
    monkeypatch.setattr(jobs, "TOLD_EVERY_S", 0.01)
    with jobs.told(made, "index build", "toy", lambda *_: None) as tell:
        tell("packs", 3, 9)
        while jobs.newest(made, limit=1, now=time.time())[0].done != 3:
            time.sleep(0.01)
        running = jobs.newest(made, limit=1, now=time.time())[0]
        assert jobs.newest(made, limit=1, now=time.time() + 99)[0].state == "lost"
    with pytest.raises(RuntimeError), jobs.told(made, "base train", "toy", lambda *_: None):
        raise RuntimeError("what others need not know")
    failed, done = jobs.newest(made, limit=2, now=time.time())
    assert (running.state, running.stage, round(running.share, 2)) == ("running", "packs", 0.33)
    assert (done.state, failed.state, failed.detail) == ("done", "failed", "RuntimeError")


def test_commands_tell_their_jobs(data):
    from tests.cloud import toys

    toys.report("index", "build", "--task", "toy", data=data)
    made = world.cloud.open_cloud(data)
    assert [(one.kind, one.state) for one in jobs.newest(made, limit=9, now=time.time())] == [("index build", "done")]


def test_the_audit_log_is_read_page_by_page(visit, made):
    visit.log_in("olga")
    with made.database.writing() as connection:
        row = {"at": 1.0, "actor": "shell", "action": "gc", "subject": "<b>", "detail": '{"x": "<i>"}'}
        connection.execute(db.audit.insert(), [row] * 150)
    first = visit.client.get("/audit?action=gc").text
    assert first.count("&lt;b&gt;") == 100
    older = html.unescape(first.split('rel="next" href="')[1].split('"')[0])
    assert visit.client.get(older).text.count("&lt;b&gt;") == 50


def test_charts_say_in_words_what_they_show_and_escape_it():
    nasty = "<script>"
    drawn = [
        charts.lines(nasty, [Series(nasty, [(0, 1), (1, 5)])]),
        charts.columns(nasty, [(nasty, 2)]),
        charts.bars(nasty, [(nasty, 2)]),
        charts.scatter(nasty, [Dot(nasty, 0, 0, 1)]),
        charts.stack(nasty, [Part(nasty, 1, "good")]),
        charts.grid(nasty, [nasty], [nasty], [[0.5]]),
    ]
    for chart in drawn:
        assert nasty not in chart
        assert 'aria-label="&lt;script&gt;. ' in chart
        assert "style=" not in chart


@pytest.mark.parametrize(
    "values",
    [[], [(3.0, 2.0)], [(0, 0), (1, 0)], [(0, -1e9), (1, 1e9)], [(0, 1e-9), (1, 2e-9)], [(0, 0), (1, 5e-324)]],
)
def test_a_chart_can_be_drawn_of_whatever_there_is(values):
    assert "figure" in charts.lines("x", [Series("x", values)])
    assert "nan" not in charts.lines("x", [Series("x", values)])


def test_ticks_are_round_numbers_around_the_values():
    assert charts._ticks(0, 9) == [0, 5, 10]
    assert charts._ticks(51.3, 68.2) == [50, 55, 60, 65, 70]


def test_what_is_unknown_is_a_dash():
    assert (words.number(None), words.gain(None), words.moment(None), words.size(None)) == ("–",) * 4
    assert (words.gain(-0.0312), words.size(1536), words.span(7300)) == ("-3.1", "1.5 KiB", "2 h")
    assert words.clock(1e30).endswith("00:00") or words.clock(1e30)
