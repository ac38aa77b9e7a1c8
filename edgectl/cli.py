"""`edgectl`: the commands put together, and the one place where errors become exit codes (see `edgewire.errors`)."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import typer

from edgectl import __version__, config
from edgectl.commands import (
    Invocation,
    agent,
    bench,
    bundle,
    data,
    doctor,
    enroll,
    evaluate,
    fleet,
    infer,
    model,
    profile,
    round,
    status,
    sync,
    telemetry,
    train,
)
from edgectl.commands import config as config_command
from edgectl.output import say
from edgewire import errors

_CANCELLED = 130
_TRAINING_PARTS = ("torch", "onnx")  # of the extra `train`: a board may do without

_COMMANDS = (
    enroll,
    doctor,
    status,
    telemetry,
    profile,
    data,
    sync,
    train,
    round,
    evaluate,
    infer,
    model,
    bench,
    agent,
    fleet,
    bundle,
    config_command,
)
_EPILOG = (
    "Anywhere on the line: --state DIR (folder of keys, samples and models; else EDGECTL_STATE), -v or -vv (say"
    " more on stderr), --debug (show where in the program an error arose)."
)


@dataclass(frozen=True)
class Anywhere:
    """The options that count for every command, wherever they stand on the line: `edgectl train -v` as well as
    `edgectl -v train`. Taken off before typer sees the line, because typer knows an option only in one place."""

    state: str | None = None
    verbosity: int = 0
    debug: bool = False


def split(arguments: Sequence[str]) -> tuple[Anywhere, list[str]]:
    """The options for every command, and the rest of the line; what follows `--` is left alone. Raises UsageError."""
    state, verbosity, debug, rest = None, 0, False, list[str]()
    waiting = iter(arguments)
    for argument in waiting:
        name, _, value = argument.partition("=")
        if argument == "--":
            rest += ["--", *waiting]
        elif name == "--state":
            state = value or next(waiting, "")
            if not state:
                raise errors.UsageError("--state needs a folder", hint="edgectl --state DIR ...")
        elif argument in ("-v", "-vv", "--verbose"):
            verbosity += 2 if argument == "-vv" else 1
        elif argument == "--debug":
            debug = True
        else:
            rest.append(argument)
    return Anywhere(state, verbosity, debug), rest


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"edgectl {__version__}")
        raise typer.Exit


def board(
    ctx: typer.Context,
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
) -> None:
    """A small model of its own for every board, with help from others' shared samples where they measurably help."""
    places = config.Places.of_this_process()
    state = ctx.obj.state if isinstance(ctx.obj, Anywhere) else None
    ctx.obj = Invocation(config.load(places).override(state=state), places)


def _log(verbosity: int) -> None:
    import logging

    level = logging.INFO if verbosity == 1 else logging.DEBUG
    logging.basicConfig(stream=sys.stderr, level=level, format="%(name)s: %(message)s")
    logging.getLogger("urllib3").setLevel(logging.WARNING)  # it would print addresses with upload ids


def assemble() -> typer.Typer:
    """All commands as one app."""
    app = typer.Typer(
        name="edgectl",
        no_args_is_help=True,
        rich_markup_mode=None,  # plain help: importing rich would double the time to start
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
        epilog=_EPILOG,
    )
    app.callback()(board)
    for command in _COMMANDS:
        command.register(app)
    return app


def run(arguments: list[str]) -> int:
    """Run one command line; its exit code. Says on stderr what went wrong and what to do, without a traceback."""
    anywhere = Anywhere()
    try:
        anywhere, rest = split(arguments)
        if anywhere.verbosity:
            _log(anywhere.verbosity)
        assemble()(args=rest, prog_name="edgectl", obj=anywhere)
    except SystemExit as end:  # typer: done, usage error (2), cancelled (130)
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if code == errors.UsageError.exit_code:
            say("  -> edgectl --help, or edgectl COMMAND --help")
        return _flushed(code)
    except KeyboardInterrupt:
        return _CANCELLED
    except Exception as error:
        if anywhere.debug:
            raise
        known = _known(error)
        say(f"edgectl: {known.message}" + (f"\n  -> {known.hint}" if known.hint else ""))
        return _flushed(known.exit_code)
    return _flushed(0)


def _known(error: Exception) -> errors.EdgeError:
    if isinstance(error, errors.EdgeError):
        return error
    if isinstance(error, OSError):
        return errors.from_os_error(error, "running this command")
    if isinstance(error, ModuleNotFoundError) and (error.name or "").split(".")[0] in _TRAINING_PARTS:
        return errors.UnsupportedBoard(
            f"{error.name} is not installed: this board syncs and infers, but does not train",
            hint="install the training parts: pip install 'edgectl[train]'",
        )
    if isinstance(error, MemoryError):
        return errors.ResourcesRefused("out of memory", hint="stop other programs, or give fewer samples at once")
    return errors.EdgeError(
        f"unexpected {type(error).__name__}: {error}", hint="this is a fault in edgectl; run it again with --debug"
    )


def _flushed(code: int) -> int:
    """Flush stdout here: a reader that went away (`edgectl ... | head`) is no error worth a message."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:  # a full disk behind a redirection
        say(f"edgectl: {errors.from_os_error(error, 'writing to stdout').message}")
        return code or errors.EdgeError.exit_code
    return code


def main() -> None:
    """The console script."""
    sys.exit(run(sys.argv[1:]))
