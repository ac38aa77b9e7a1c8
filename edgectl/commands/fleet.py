"""edgectl fleet ping | enroll | install | run | data push | sync | train | status | collect"""

from __future__ import annotations

import functools
import inspect
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from edgectl.commands import TaskFlag, invocation

if TYPE_CHECKING:
    from edgectl.fleet.inventory import Host, Inventory
    from edgectl.fleet.results import HostResult, Recap
    from edgectl.fleet.runner import Plan, Work
    from edgectl.fleet.telling import Teller

group = typer.Typer(
    no_args_is_help=True,
    help="Many boards over SSH, from here.",
    rich_markup_mode=None,
    epilog="Exit codes: 12 some hosts failed, 13 some could not be reached (and none failed), 130 ended by you.",
)
data_group = typer.Typer(no_args_is_help=True, help="Samples for boards.", rich_markup_mode=None)


def register(app: typer.Typer) -> None:
    app.add_typer(group, name="fleet")
    group.add_typer(data_group, name="data")


@dataclass(frozen=True)
class Choices:
    """What every fleet command takes."""

    inventory: Annotated[
        str | None,
        typer.Option(
            "--inventory", "-i", metavar="FILE|-", help="YAML, or one host a line; else setting fleet_inventory."
        ),
    ] = None
    limit: Annotated[
        str | None,
        typer.Option("--limit", "-l", help="Only these: names, groups, globs, !not, &and, @FILE; with commas."),
    ] = None
    forks: Annotated[int, typer.Option("--forks", "-f", min=1, max=500, help="Boards at a time.")] = 25
    serial: Annotated[str | None, typer.Option("--serial", metavar="N|N%", help="In batches of that many.")] = None
    max_fail_percent: Annotated[
        float, typer.Option("--max-fail-percent", min=0, max=100, help="Of a batch; beyond it no other begins.")
    ] = 100.0
    timeout: Annotated[
        int | None, typer.Option("--timeout", min=0, help="Seconds on one board; 0: any. [default: by command]")
    ] = None
    retries: Annotated[int, typer.Option("--retries", min=0, max=20, help="After a lost connection.")] = 2
    ssh_config: Annotated[
        Path | None, typer.Option("--ssh-config", metavar="FILE", help="Instead of ~/.ssh/config.")
    ] = None
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say for whom it would be done, and connect to none.")] = (
        False
    )
    json: Annotated[bool, typer.Option("--json", help="A line of JSON per host, then a summary.")] = False
    operation: Annotated[
        str | None, typer.Option("--operation", metavar="ID", help="Go on with that one: nothing is done twice.")
    ] = None


def takes_choices(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of `Choices`; it gets them as one argument, `choices`."""
    hints = get_type_hints(command, include_extras=True) | {"return": None}
    own = [p for p in inspect.signature(command).parameters.values() if p.name != "choices"]

    @functools.wraps(command)
    def whole(**given: Any) -> None:
        chosen = Choices(**{field.name: given.pop(field.name) for field in fields(Choices)})
        command(**given, choices=chosen)

    keyword = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=hints[p.name]) for p in own]
    whole.__signature__ = inspect.Signature([*keyword, *_shared()])  # type: ignore[attr-defined]
    whole.__annotations__ = {p.name: p.annotation for p in (*keyword, *_shared())}
    return whole


@functools.cache
def _shared() -> tuple[inspect.Parameter, ...]:
    kinds = get_type_hints(Choices, include_extras=True)
    return tuple(
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if field.default is MISSING else field.default,
            annotation=kinds[field.name],
        )
        for field in fields(Choices)
    )


@group.command()
@takes_choices
def ping(ctx: typer.Context, choices: Choices) -> None:
    """Which boards answer, with which edgectl, and whose clock is wrong?"""
    from edgectl.fleet import verbs

    _over(ctx, choices, "ping", verbs.ping(), limit_s=30)


@group.command()
@takes_choices
def enroll(
    ctx: typer.Context,
    choices: Choices,
    tokens: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="HOST.json, as `cloud-aug boards token --out` writes them.")
    ] = None,
    token_command: Annotated[
        str | None, typer.Option(metavar="COMMAND", help="Run once a board; prints what `cloud-aug boards token` does.")
    ] = None,
    keys_only: Annotated[bool, typer.Option("--keys-only", help="Only take the host keys of new boards.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Also boards that belong to a cloud.")] = False,
) -> None:
    """Give each board a one-time token of its own, and introduce it to the cloud.

    The only command that takes the host key of a board that is not known yet; a changed key is never taken. Tokens
    travel through the connection: they are on no command line and in no log.
    """
    from edgectl.fleet import enrolling
    from edgewire.errors import UsageError

    if [tokens is not None, token_command is not None, keys_only].count(True) != 1:
        raise UsageError("say where tokens come from", hint="--tokens FOLDER, --token-command COMMAND, or --keys-only")
    if tokens is not None:
        _there(str(tokens))
    token = (
        enrolling.from_folder(tokens) if tokens else enrolling.from_command(token_command) if token_command else None
    )
    with _scratch() as scratch:
        work = enrolling.enroll(token, scratch, force=force)
        # another attempt has another token, and is another operation
        _over(ctx, choices, "enroll", work, limit_s=120, accept_new=True, repeatable=False)


@group.command()
@takes_choices
def install(
    ctx: typer.Context,
    choices: Choices,
    bundle: Annotated[
        str | None, typer.Option(metavar="FOLDER", help="Of `edgectl bundle make`; may have {host} or {profile} in it.")
    ] = None,
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="[-- OPTION...]", help="For scripts/install.sh, as in -- --no-train")
    ] = None,
    prefix: Annotated[str, typer.Option(help="Where to on the boards.")] = "/opt/edgectl",
    root: Annotated[bool, typer.Option("--root/--no-root", help="Through sudo where it is needed.")] = True,
    again: Annotated[bool, typer.Option("--again", help="Also where just that is installed.")] = False,
) -> None:
    """Install edgectl on boards: this checkout with wheels from the index, or an offline bundle.

    Each board finds out what it is and takes the wheels that its lock names. What is half sent is not sent again.
    """
    from edgectl import bundle as bundles
    from edgectl.fleet.installing import Install
    from edgectl.fleet.packing import Packer

    source = None if bundle and _there(bundle) else bundles.checkout()
    with _scratch() as scratch:
        work = Install(source, bundle, tuple(arguments or ()), prefix, root, again, Packer(scratch)).work()
        _over(ctx, choices, "install", work, limit_s=3600)


@group.command()
@takes_choices
def run(
    ctx: typer.Context,
    choices: Choices,
    command: Annotated[
        list[str], typer.Argument(metavar="COMMAND...", help="One word: a line for the shell, with {host}.")
    ],
    root: Annotated[bool, typer.Option("--root", help="Through sudo where it is needed.")] = False,
) -> None:
    """Run any command on boards, once on each, however often the connection breaks."""
    from edgectl.fleet import verbs

    _over(ctx, choices, "run", verbs.run(command, root=root), limit_s=300)


@data_group.command("push")
@takes_choices
def push(
    ctx: typer.Context,
    choices: Choices,
    path: Annotated[str, typer.Argument(metavar="PATH", help="File or folder, as in samples/{host}.npz")],
    task: TaskFlag = None,
) -> None:
    """Give boards labelled samples: each its own file or folder. They are not stored anywhere in between."""
    from edgectl.fleet.packing import Packer
    from edgectl.fleet.verbs import Push

    with _scratch() as scratch:
        _over(ctx, choices, "data push", Push(_there(path), task, Packer(scratch)).work(), limit_s=1800)


@group.command("sync")
@takes_choices
def synchronize(ctx: typer.Context, choices: Choices) -> None:
    """`edgectl sync` on boards."""
    from edgectl.fleet import verbs

    _over(ctx, choices, "sync", verbs.edgectl_once(lambda host: ["sync"], verbs.synced), limit_s=900)


@group.command()
@takes_choices
def train(
    ctx: typer.Context,
    choices: Choices,
    arguments: Annotated[
        list[str] | None,
        typer.Argument(metavar="[-- OPTION...]", help="For `edgectl train`, as in -- --max-seconds 600"),
    ] = None,
    task: TaskFlag = None,
    detach: Annotated[bool, typer.Option("--detach", help="Begin, and do not wait; see --operation.")] = False,
    csv: Annotated[Path | None, typer.Option("--csv", metavar="FILE", help="Write the table of gains there.")] = None,
) -> None:
    """`edgectl train` on boards; ends with a table of what each gained.

    Training survives the connection. Ctrl-C stops it on the boards after the step that they are at, with a checkpoint;
    with --detach it goes on without you, and the same command without it, with --operation ID, follows it later.
    """
    from edgectl.fleet import collecting, verbs

    found = list[dict[str, Any]]()
    _folder_of(csv)

    def words(host: Host) -> list[str]:
        name = task or host.get("task")
        return ["train", *(["--task", name] if name else []), *(arguments or ())]

    def keep(result: HostResult) -> None:
        found.append(collecting.trained_row(result))

    def finish() -> str:
        if csv is not None:
            collecting.write_csv(csv, collecting.TRAINED, found)
        return "" if detach else collecting.gains(found)

    work = verbs.edgectl_once(words, verbs.trained, detach=detach)
    _over(ctx, choices, "train", work, limit_s=0, keep=keep, finish=finish)


@group.command()
@takes_choices
def status(ctx: typer.Context, choices: Choices) -> None:
    """`edgectl status` of boards: one line each."""
    from edgectl.fleet import verbs

    _over(ctx, choices, "status", verbs.edgectl_look(lambda host: ["status"], verbs.stood), limit_s=60)


@group.command()
@takes_choices
def collect(
    ctx: typer.Context,
    choices: Choices,
    out: Annotated[Path | None, typer.Option("--out", metavar="FOLDER", help="Write HOST.json there.")] = None,
    csv: Annotated[
        Path | None, typer.Option("--csv", metavar="FILE", help="Write a row per board and task there.")
    ] = None,
) -> None:
    """Gather what boards know of themselves: samples per label, models, running score, heat. No samples, no weights."""
    from edgectl.fleet import collecting

    found = list[dict[str, Any]]()
    _folder_of(csv)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)

    def keep(result: HostResult) -> None:
        if result.answer is not None and result.status == "ok":
            found.extend(collecting.rows(result.host, result.status, result.answer))

    def finish() -> str:
        if csv is not None:
            collecting.write_csv(csv, collecting.COLUMNS, found)
        return ""

    _over(ctx, choices, "collect", collecting.collect(out), limit_s=60, keep=keep, finish=finish)


def _folder_of(csv: Path | None) -> None:
    """Raises NotFound now, and not when hours of work are to be written."""
    from edgewire.errors import NotFound

    if csv is not None and not csv.parent.is_dir():
        raise NotFound(f"there is no folder {csv.parent}", hint="--csv FILE")


def _there(template: str) -> str:
    """Raises NotFound where no board would get anything: a misspelt path must not mean that there is nothing to do."""
    from edgewire.errors import NotFound

    fixed, place, _ = template.partition("{")
    path = Path(fixed).expanduser() if not place or fixed.endswith("/") else Path(fixed).expanduser().parent
    if not path.exists():
        raise NotFound(f"there is no {path}")
    return template


@contextmanager
def _scratch() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="edgectl-fleet-") as folder:
        yield Path(folder)


def _over(
    ctx: typer.Context,
    choices: Choices,
    verb: str,
    work: Work,
    *,
    limit_s: int,
    accept_new: bool = False,
    repeatable: bool = True,
    keep: Callable[[HostResult], object] = lambda result: None,
    finish: Callable[[], str] = lambda: "",
) -> None:
    """Do the work on the chosen hosts, tell of it, and end with the exit code that it deserves."""
    from edgectl.fleet.ssh import prepared

    hosts = _inventory(ctx, choices).limited(choices.limit)
    plan = _plan(choices, len(hosts), limit_s)
    with _teller(choices, verb, hosts) as teller:
        if choices.dry_run:
            recap = _dry(hosts, plan, teller)
        else:
            with prepared(choices.ssh_config, accept_new=accept_new) as ssh:
                recap = _really(hosts, work, plan, ssh, teller, keep)
        recap.repeatable = repeatable
        teller.recap(recap, "" if choices.dry_run else finish())
    if recap.exit_code:
        raise typer.Exit(recap.exit_code)


def _really(
    hosts: tuple[Host, ...], work: Work, plan: Plan, ssh: Any, teller: Teller, keep: Callable[[HostResult], object]
) -> Recap:
    import asyncio

    from edgectl.fleet import runner
    from edgectl.fleet.ssh import make_room

    make_room(min(plan.forks, len(hosts)))

    def ended(result: HostResult) -> None:
        keep(result)
        teller.ended(result)

    return asyncio.run(runner.run(hosts, work, plan, ssh, runner.Watching(teller.began, teller.said, ended)))


def _dry(hosts: tuple[Host, ...], plan: Plan, teller: Teller) -> Recap:
    from edgectl.fleet.results import HostResult, Recap

    recap = Recap(plan.operation, len(hosts))
    for host in hosts:
        result = HostResult(host.name, "skipped", "would be done here")
        recap.count(result)
        teller.ended(result)
    return recap


def _inventory(ctx: typer.Context, choices: Choices) -> Inventory:
    from edgectl.fleet import inventory
    from edgewire.errors import UsageError

    source = choices.inventory or invocation(ctx).settings.text("fleet_inventory")
    if source is None:
        raise UsageError(
            "which boards?", hint="-i FILE, or: edgectl config set fleet_inventory FILE; see docs/fleet.md"
        )
    return inventory.load(source)


def _plan(choices: Choices, hosts: int, limit_s: int) -> Plan:
    import re
    import secrets

    from edgectl.fleet.line import Patience
    from edgectl.fleet.runner import Plan, batch_size
    from edgewire.errors import UsageError

    operation = secrets.token_hex(6) if choices.operation is None else choices.operation
    if not re.fullmatch(r"[a-z0-9]{1,64}", operation):
        raise UsageError(f"'{operation}' is no id of an operation", hint="letters and digits, as the recap printed it")
    return Plan(
        operation,
        choices.forks,
        batch_size(choices.serial, hosts) if choices.serial else 0,
        choices.max_fail_percent,
        Patience(choices.retries, limit_s if choices.timeout is None else choices.timeout),
    )


def _teller(choices: Choices, verb: str, hosts: tuple[Host, ...]) -> Teller:
    from edgectl.fleet.telling import Ndjson

    if choices.json or not sys.stdout.isatty():
        return Ndjson()
    from edgectl.fleet.live import Live

    return Live(verb, len(hosts), min(40, max((len(host.name) for host in hosts), default=0)))
