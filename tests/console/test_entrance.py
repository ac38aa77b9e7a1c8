"""Who gets into the console, for how long, and what strangers, other sites and guessers meet."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa

from cloud_aug import accounts, audit, guesses, passwords, sessions
from cloud_aug.console import site, visitor
from cloud_aug.console.entry import LOGIN_COOKIE
from cloud_aug.console.live import Streams
from cloud_aug.console.visitor import COOKIE
from edgewire.errors import RateLimited, RetryLater, UsageError
from tests.console import world
from tests.console.visiting import ORIGIN

BOARD = f"b{3:016x}"
OPEN = {"/login", "/console/{name}"}
ROUTES = [route for page in site.PAGES for route in page.router.routes]


def spend_all(made, name, address, clock) -> float:
    """Guess until it is refused; returns for how long."""
    for _ in range(99):
        try:
            guesses.spend(made, name, address, now=clock())
        except RateLimited as slow:
            return slow.retry_after_s
    raise AssertionError("nobody was slowed down")


def test_a_login_gives_a_cookie_that_no_script_and_no_other_site_can_use(visit):
    answer = visit.log_in("ann")
    cookie = next(line for line in answer.headers.get_list("set-cookie") if line.startswith(f"{COOKIE}="))
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    assert {"HttpOnly", "Secure", "SameSite=strict", "Path=/"} <= set(cookie.split("; "))
    assert visit.client.get("/").status_code == 200


def test_a_wrong_name_and_a_wrong_password_get_the_same_answer(visit):
    wrong, unknown = visit.log_in("ann", "not her password"), visit.log_in("nobody")
    assert wrong.status_code == unknown.status_code == 401
    assert "name or the password is wrong" in wrong.text
    assert COOKIE not in visit.client.cookies


def test_a_wrong_name_makes_the_database_work_as_much_as_a_wrong_password_and_leaves_no_line(visit, made):
    written: list[str] = []
    sa.event.listen(made.database.engine, "before_cursor_execute", lambda *told: written.append(told[2]))
    for name in ("ann", "nobody"):
        written.clear()
        assert visit.log_in(name, "a wrong password").status_code == 401
        assert sum(statement.startswith("INSERT INTO audit") for statement in written) == 1, name
    assert [line.subject for line in audit.lines(made, action="log-in-refused", limit=9)] == ["ann"]


def test_a_planted_cookie_never_becomes_a_session(visit):
    planted = {"Cookie": f"{COOKIE}=planted"}
    answer = visit.client.get("/login", headers=planted)
    ticket = answer.cookies[LOGIN_COOKIE]
    fields = {"form_token": ticket, "name": "ann", "password": world.PASSWORD}
    headers = {**ORIGIN, "Cookie": f"{COOKIE}=planted; {LOGIN_COOKIE}={ticket}"}
    visit.client.cookies.clear()
    given = visit.client.post("/login", data=fields, headers=headers).cookies[COOKIE]
    visit.client.cookies.clear()
    assert given != "planted"
    assert visit.client.get("/", headers=planted).status_code == 303


def test_a_login_ends_the_session_that_came_along_and_makes_another(visit, made, clock):
    visit.log_in("ann")
    first = visit.client.cookies[COOKIE]
    again = sessions.log_in(made, "ann", world.PASSWORD, address="127.0.0.1", shown=first, now=clock())
    assert again != first
    assert sessions.find(made, first, now=clock(), used=True) is None
    assert sessions.find(made, again, now=clock(), used=True) is not None


def test_nothing_in_the_database_opens_a_session(visit, made):
    visit.log_in("ann")
    secret = visit.client.cookies[COOKIE]
    with made.database.reading() as connection:
        held = str(connection.exec_driver_sql("SELECT * FROM sessions").all())
        assert world.PASSWORD not in str(connection.exec_driver_sql("SELECT * FROM accounts").all())
    assert secret not in held


def test_a_session_ends_when_nobody_uses_it(visit, clock):
    visit.log_in("ann")
    clock.now += accounts.IDLE_S - 60
    assert visit.client.get("/jobs").status_code == 200
    clock.now += accounts.IDLE_S - 60
    assert visit.client.get("/jobs").status_code == 200
    clock.now += accounts.IDLE_S + 1
    assert visit.client.get("/jobs").status_code == 303


def test_a_session_that_has_ended_is_not_counted_as_open(visit, made, clock):
    visit.log_in("ann")
    assert [one.sessions for one in accounts.list_all(made, now=clock())] == [1, 0, 0]
    assert [one.sessions for one in accounts.list_all(made, now=clock() + accounts.IDLE_S + 1)] == [0, 0, 0]


def test_a_page_that_only_keeps_itself_true_keeps_no_session_alive(visit, clock):
    visit.log_in("ann")
    for _ in range(3):
        clock.now += accounts.IDLE_S / 2
        answer = visit.client.get("/jobs", headers={"X-Live": "1"})
    assert answer.status_code == 401


def test_a_stream_that_a_browser_opens_anew_by_itself_keeps_no_session_alive(visit, client, clock):
    visit.log_in("ann")
    client.app.state.streams = Streams(0)
    for _ in range(3):
        clock.now += accounts.IDLE_S / 2
        last = client.get("/live?of=jobs").status_code
    assert last == 303


def test_pages_are_there_to_look_at_though_nothing_can_be_written(visit, made, clock):
    visit.log_in("ann")
    with made.database.writing() as connection:
        full = "SELECT RAISE(FAIL, 'database or disk is full')"
        connection.exec_driver_sql(f"CREATE TRIGGER disk BEFORE UPDATE ON sessions BEGIN {full}; END")
    clock.now += sessions.NOTED_EVERY_S + 1
    assert visit.client.get("/").status_code == 200


def test_a_session_ends_with_the_day_however_busy_it_is(visit, clock):
    visit.log_in("ann")
    for _ in range(int(accounts.ABSOLUTE_S / 1500)):
        clock.now += 1500
        last = visit.client.get("/jobs").status_code
    clock.now += 1500
    assert (last, visit.client.get("/jobs").status_code) == (200, 303)


def test_who_logs_out_is_out(visit, made):
    visit.log_in("ann")
    secret = visit.client.cookies[COOKIE]
    assert visit.send("/logout").headers["location"] == "/login"
    assert visit.client.get("/", headers={"Cookie": f"{COOKIE}={secret}"}).status_code == 303
    assert [line.action for line in audit.lines(made, actor="console:ann", limit=9)] == ["log-out", "log-in"]


def test_a_stranger_is_led_to_the_login_and_then_back_but_never_to_another_host(visit):
    assert visit.client.get("/boards?state=hot").headers["location"] == "/login?next=/boards%3Fstate%3Dhot"
    long = visit.client.get("/boards", params={"q": "\u30dc" * 63, "profile": "x" * 63}).headers["location"]
    assert visit.client.get(long).status_code == 200
    for bad in (
        "//evil.example",
        "https://evil.example",
        "/\\evil.example",
        "javascript:alert(1)",
        "/a\nb",
        "\\\\e",
        "/\u30dc",
    ):
        assert visitor.inside(bad) == "/"
    assert visitor.inside("/boards?state=hot") == "/boards?state=hot"


def test_every_page_and_every_change_needs_a_session(visit):
    for route in ROUTES:
        path = re.sub(r"\{release\}", "0" * 16, route.path).replace("{board}", BOARD).replace("{step}", "abort")
        for method in route.methods if route.path not in OPEN else ():
            answer = visit.client.request(method, path.replace("{", "").replace("}", ""), headers=ORIGIN)
            assert answer.status_code == 303, (method, route.path)
            assert answer.headers["location"].startswith("/login"), (method, route.path)


@pytest.mark.parametrize(
    ("name", "allowed"),
    [
        ("vic", set()),
        ("olga", {"/boards/{board}/revoke", "/releases/{release}/{step}"}),
    ],
)
def test_a_role_may_change_what_it_may_and_nothing_else(visit, name, allowed):
    visit.log_in(name)
    for route in ROUTES:
        if "POST" in route.methods and route.path not in ("/login", "/logout"):
            path = route.path.replace("{board}", BOARD).replace("{release}", "0" * 16).replace("{step}", "abort")
            status = visit.send(path.replace("{name}", "vic"), {"revision": "1", "role": "admin"}).status_code
            assert (status != 403) == (route.path in allowed), route.path


def test_a_viewer_sees_neither_the_audit_log_nor_the_accounts(visit):
    visit.log_in("vic")
    assert [visit.client.get(path).status_code for path in ("/audit", "/accounts", "/boards")] == [403, 403, 200]
    assert "/audit" not in visit.client.get("/").text


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost"},
        {"Sec-Fetch-Site": "cross-site"},
        {},
    ],
)
def test_a_form_of_another_site_changes_nothing(visit, made, clock, headers):
    visit.log_in("olga")
    answer = visit.send(f"/boards/{BOARD}/revoke", headers=headers)
    assert (answer.status_code, "another site" in answer.text) == (403, True)
    assert not audit.lines(made, action="revoke", limit=1)


def test_a_form_without_this_sessions_token_changes_nothing(visit, made):
    visit.log_in("olga")
    for token in ("", "0" * 64, "ü"):
        answer = visit.send(f"/boards/{BOARD}/revoke", {"form_token": token})
        assert (answer.status_code, "another session" in answer.text) == (403, True)
    assert not audit.lines(made, action="revoke", limit=1)


def test_a_login_form_of_another_browser_is_refused(visit):
    visit.client.get("/login")
    fields = {"form_token": "x" * 32, "name": "ann", "password": world.PASSWORD}
    assert visit.client.post("/login", data=fields, headers=ORIGIN).status_code == 403


def test_every_tab_of_a_browser_may_log_in_whichever_was_loaded_last(visit):
    first, second = visit.token("/login"), visit.token("/login")
    fields = {"name": "ann", "password": world.PASSWORD, "next": "/jobs"}
    for token in (first, second):
        answer = visit.client.post("/login", data={**fields, "form_token": token}, headers=ORIGIN)
        assert (answer.status_code, answer.headers.get("location")) == (303, "/jobs")
    assert visit.client.get("/jobs").status_code == 200


def test_a_form_that_is_too_large_or_malformed_is_refused(visit):
    visit.log_in("olga")
    large = visit.send(f"/boards/{BOARD}/revoke", {"x": "y" * 20_000})
    many = visit.send(f"/boards/{BOARD}/revoke", {f"x{n}": "" for n in range(50)})
    assert (large.status_code, many.status_code) == (413, 422)


def test_guessing_a_password_gets_slower_and_the_right_one_waits_too(visit, clock):
    for _ in range(5):
        assert visit.log_in("ann", "a wrong password").status_code == 401
    refused = visit.log_in("ann")
    assert refused.status_code == 429
    assert 1 <= int(refused.headers["retry-after"]) <= 5
    clock.now += int(refused.headers["retry-after"]) + 1
    assert visit.log_in("ann").status_code == 303


def test_waits_double_and_end(made, clock):
    waits = []
    for _ in range(16):
        waits.append(spend_all(made, "ann", "192.0.2.1", clock))
        clock.now += waits[-1]
    assert waits[:4] == pytest.approx([2, 4, 8, 16], abs=0.01)
    assert max(waits) <= 900


def test_whoever_tries_one_name_after_the_other_is_slowed_by_address_and_others_are_not(made, clock):
    for number in range(20):
        guesses.spend(made, f"name-{number}", "2001:db8:1:2::77", now=clock())
    with pytest.raises(RateLimited):
        guesses.spend(made, "another", "2001:db8:1:2:ffff::1", now=clock())  # the same household
    guesses.spend(made, "another", "2001:db8:1:3::1", now=clock())


def test_guesses_at_once_are_all_counted(made, clock):
    def guess(_: int) -> bool:
        try:
            guesses.spend(made, "ann", "192.0.2.1", now=clock())
        except RateLimited:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(guess, range(40))) == 5


def test_the_table_of_guesses_does_not_grow_without_end(made, clock, monkeypatch):
    monkeypatch.setattr(guesses, "MOST_ROWS", 50)
    for number in range(80):
        guesses.spend(made, f"name-{number}", f"192.0.{number}.1", now=clock())
    with made.database.reading() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM guesses").scalar_one() <= 52


def test_too_many_logins_at_once_are_told_to_come_back():
    held = [passwords._queue.acquire() for _ in range(passwords.AT_ONCE + passwords.WAITING)]
    try:
        with pytest.raises(RetryLater):
            passwords.matches("whatever it is", None)
    finally:
        for _ in held:
            passwords._queue.release()


@pytest.mark.parametrize("weak", ["short", "aaaaaaaaaaaaaa", "annannann-ann", "x" * 2000])
def test_a_weak_password_is_refused(weak):
    with pytest.raises(UsageError):
        passwords.check(weak, name="annannann")


def test_a_password_is_the_same_however_its_letters_are_typed(monkeypatch):
    monkeypatch.setattr(passwords, "COST", (4, 8, 1))
    assert passwords.matches("cafe\u0301 au lait", passwords.hashed("caf\u00e9 au lait"))
    assert not passwords.matches("", None)


def test_a_changed_role_a_new_password_and_a_removal_count_from_the_next_request_on(visit, made, clock):
    visit.log_in("olga")
    accounts.set_role(made, "olga", "viewer", now=clock())
    assert visit.send(f"/boards/{BOARD}/revoke").status_code == 403
    accounts.set_password(made, "olga", "quite another one", now=clock())
    assert visit.client.get("/").status_code == 303
    assert visit.log_in("olga", "quite another one").status_code == 303
    accounts.remove(made, "olga", now=clock())
    assert visit.client.get("/").status_code == 303
    assert visit.log_in("olga", "quite another one").status_code == 401


def test_an_admin_changes_roles_ends_sessions_and_removes_but_not_their_own(visit, made, clock):
    visit.log_in("ann")
    assert visit.send("/accounts/vic/role", {"role": "operator"}).status_code == 303
    assert visit.send("/accounts/vic/role", {"role": "king"}).status_code == 400
    assert visit.send("/accounts/vic/end").status_code == 303
    assert visit.send("/accounts/vic/remove").status_code == 303
    assert visit.send("/accounts/ann/remove").status_code == 400
    assert [one.name for one in accounts.list_all(made, now=clock())] == ["ann", "olga"]
    told = {line.action for line in audit.lines(made, actor="console:ann", limit=9)}
    assert {"set-role", "end-sessions", "remove-account"} <= told


def test_pages_forbid_scripts_styles_frames_and_other_hosts(visit):
    for path in ("/login", "/", "/boards", "/tasks/toy", "/models"):
        answer = visit.client.get(path)
        if path == "/login":
            visit.log_in("ann")
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["cache-control"] == "no-store"
        assert not re.search(r"<style|\sstyle=|\son[a-z]+=\"|https?://", answer.text.replace("&#34;", ""))
        assert re.findall(r"<script[^>]*>", answer.text) == ['<script src="/console/console.js" defer>']
