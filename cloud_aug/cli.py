"""`cloud-aug`: assembles the commands; the one place where errors become exit codes."""

from __future__ import annotations

import sys

import typer

from cloud_aug.commands import (
    admin,
    base,
    boards,
    index,
    init,
    keys,
    pool,
    release,
    round,
    serve,
    simulate,
    task,
    upkeep,
)
from cloud_aug.output import show_error
from edgewire.errors import EdgeError, from_os_error

app = typer.Typer(
    name="cloud-aug",
    help="The cloud's side of edgectl: a pool of samples shared by consent, a base model, and what boards match with.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.command("init")(init.init)
app.command("serve")(serve.serve)
app.command("simulate")(simulate.simulate)
for command in (upkeep.doctor, upkeep.backup, upkeep.restore, upkeep.gc):
    app.command()(command)
for name, group in (
    ("task", task.app),
    ("pool", pool.app),
    ("base", base.app),
    ("index", index.app),
    ("boards", boards.app),
    ("release", release.app),
    ("round", round.app),
    ("keys", keys.app),
    ("admin", admin.app),
):
    app.add_typer(group, name=name)


def main() -> None:
    """The console script. Never a traceback for what a user can mend."""
    as_json = "--json" in sys.argv
    try:
        app()
    except EdgeError as error:
        show_error(error, as_json=as_json)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
    except OSError as error:
        found = from_os_error(error, "working")
        show_error(found, as_json=as_json)
        sys.exit(found.exit_code)
    except Exception as error:
        of_database = _of_database(error)
        if of_database is None:
            raise
        show_error(of_database, as_json=as_json)
        sys.exit(of_database.exit_code)


def _of_database(error: Exception) -> EdgeError | None:
    """What to tell of a database's error. SQLAlchemy is not imported for this: if it raised, it is there."""
    if not type(error).__module__.startswith("sqlalchemy."):
        return None
    import sqlalchemy as sa

    from cloud_aug.database import first_line, from_database_error

    if not isinstance(error, sa.exc.DBAPIError):
        return None
    found = from_database_error(error)
    found.hint = found.hint or first_line(error)  # an operator may know more than a board
    return found
