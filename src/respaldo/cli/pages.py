"""Commands with a page of their own: description, options, exit statuses, examples; and the options common to all.

The common options may stand before or after the command: each occurrence goes into the `Settings` of the root context.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import click

from respaldo.cli import show
from respaldo.cli.known import CLIENT
from respaldo.cli.settings import Settings
from respaldo.core.errors import UsageError

F = TypeVar("F", bound=Callable[..., Any])

NAMES = ("-h", "--help")
WIDTH_MAX = 100
STATUSES = {
    0: "done",
    1: "failed",
    2: "wrong usage",
    3: "done but incomplete: a file could not be read or written",
    4: "damage found",
    10: "no repository there",
    12: "wrong passphrase or key",
    130: "interrupted",
}
_USUAL = (0, 1, 2, 4, 10, 12, 130)
_COMMON = "_common"


def _keep(ctx: click.Context, param: click.Parameter, value: Any) -> None:  # noqa: ANN401 - click's types
    settings = ctx.find_root().ensure_object(Settings)
    if not value or param.name is None:
        return
    field = param.name.removeprefix(_COMMON)
    if field == "verbose":
        settings.verbose += value
    else:
        setattr(settings, field, value)


def _option(*names: str, field: str, help: str, **more: Any) -> click.Option:  # noqa: A002, ANN401 - click's names and types
    return click.Option([*names, _COMMON + field], callback=_keep, expose_value=False, help=help, **more)


def group(name: str) -> Callable[[Callable[[], None]], click.Group]:
    """Makes a group of commands, which takes the common options and shows its page when it is called by itself."""
    return click.group(
        name,
        params=list(common_options()),
        context_settings={"help_option_names": NAMES, "max_content_width": WIDTH_MAX},
        no_args_is_help=True,
    )


def common_options() -> list[click.Option]:
    """Returns the options that every command takes."""
    path = click.Path(path_type=str)
    return [
        _option(
            "-r",
            "--repo",
            field="repo",
            metavar="DIRECTORY",
            help="The repository (or RESPALDO_REPOSITORY).",
            type=path,
        ),
        _option(
            "--password-file",
            field="password_file",
            metavar="FILE",
            type=path,
            help="Read the passphrase from a file. Else it comes from RESPALDO_PASSWORD_FILE, "
            "RESPALDO_PASSWORD_COMMAND or RESPALDO_PASSWORD, or is asked for.",
        ),
        _option(
            "--key-file",
            field="key_file",
            metavar="FILE",
            type=path,
            help="Open with a key of 32 bytes, raw or in hex, instead (or RESPALDO_KEY_FILE); a recovery key or shares "
            "as printed will do.",
        ),
        _option(
            "--recovery",
            field="recovery",
            is_flag=True,
            help="Open with a recovery key, or shares of one, that is asked for.",
        ),
        _option(
            "--client",
            field="client",
            metavar="NAME",
            type=CLIENT,
            help="Work on the area of this client, which writes and cannot read; see key client.",
        ),
        _option(
            "--client-file",
            field="client_file",
            metavar="FILE",
            type=path,
            help="Be the client whose credential this is (or RESPALDO_CLIENT_FILE), which writes and cannot read; "
            "see key client.",
        ),
        _option(
            "--cache-dir",
            field="cache_dir",
            metavar="DIRECTORY",
            type=path,
            help="Where the local index lies (or RESPALDO_CACHE_DIR). It can be removed at any time.",
        ),
        _option(
            "--accept-rollback",
            field="accept_rollback",
            is_flag=True,
            help="Go on although the repository shows less than it did before, and remember it as it is now.",
        ),
        _option(
            "--allow-unrecorded",
            field="allow_unrecorded",
            is_flag=True,
            help="Hand data over even where the access log of this machine cannot be written: its disk is full, say.",
        ),
        _option("--json", field="json", is_flag=True, help="Print one JSON document; errors too, on standard error."),
        _option("-q", "--quiet", field="quiet", is_flag=True, help="Print errors and warnings only."),
        _option("-v", "--verbose", field="verbose", count=True, help="Say more; -vv even more."),
        _option("--no-progress", field="no_progress", is_flag=True, help="No progress display."),
    ]


class Page(click.Command):
    """Is a command with examples and exit statuses on its page."""

    def __init__(
        self,
        *args: Any,  # noqa: ANN401 - click's types
        examples: Sequence[tuple[str, str]] = (),
        statuses: Sequence[int] = (),
        notes: str = "",
        **kwargs: Any,  # noqa: ANN401
    ) -> None:
        kwargs.setdefault("context_settings", {"help_option_names": NAMES, "max_content_width": WIDTH_MAX})
        super().__init__(*args, **kwargs)
        self._own = len(self.params)
        self.params += common_options()
        self._examples = examples
        self._statuses = sorted({*_USUAL, *statuses})
        self._notes = notes

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Remembers the order in which options stood, which decides for patterns."""
        rest = super().parse_args(ctx, list(args))
        if any(param.name == "include" for param in self.params) and not ctx.resilient_parsing:
            values, _, order = self.make_parser(ctx).parse_args(args=list(args))
            pending = {name: iter(value) for name, value in values.items() if isinstance(value, list)}
            ctx.meta["respaldo.order"] = [
                (param.name, next(pending[param.name])) for param in order if param.name in pending
            ]
        return rest

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the command's own options, the common ones, statuses and examples."""
        own = _records(ctx, self.params[: self._own])
        common = _records(ctx, self.get_params(ctx)[self._own :])
        if own:
            with formatter.section("Options"):
                formatter.write_dl(own)
        with formatter.section("Common options (before or after the command)"):
            formatter.write_dl(common)
        if self._notes:
            with formatter.section("JSON"):
                formatter.write_text(self._notes)
        with formatter.section("Exit status"):
            formatter.write_dl([(str(status), STATUSES[status]) for status in self._statuses])
        if self._examples:
            with formatter.section("Examples"):
                for number, (what, line) in enumerate(self._examples):
                    if number:
                        formatter.write("\n")
                    formatter.write_text(what)
                    formatter.write(textwrap.indent(line, " " * (formatter.current_indent + 2)) + "\n")


def _records(ctx: click.Context, params: Sequence[click.Parameter]) -> list[tuple[str, str]]:
    options = (param for param in params if isinstance(param, click.Option))
    return [record for option in options if (record := option.get_help_record(ctx))]


def page(
    name: str, *, examples: Sequence[tuple[str, str]] = (), statuses: Sequence[int] = (), notes: str = ""
) -> Callable[[Callable[..., Any]], Page]:
    """Makes a function a command."""
    make = click.command(name, cls=Page, examples=examples, statuses=statuses, notes=notes)

    def decorate(function: Callable[..., Any]) -> Page:
        return make(click.pass_obj(function))

    return decorate


def patterns(ctx: click.Context) -> Iterator[str]:
    """Yields the patterns of --exclude, --include and --exclude-file in the order of the command line."""
    from respaldo.api import read_rules  # start-up time

    for name, value in ctx.meta.get("respaldo.order", ()):
        if name == "exclude":
            yield value
        elif name == "include":
            yield "!" + value
        elif name == "exclude_file":
            try:
                with click.open_file(value, "rb") as file:
                    rules = file.read()
            except OSError as error:
                raise UsageError(f"cannot read the patterns {show.shown(value)}: {show.reason(error)}") from None
            yield from read_rules(rules)


def kdf_option(function: F) -> F:
    """Adds --kdf."""
    option = click.option(
        "--kdf",
        type=click.Choice(("standard", "sensitive")),
        help="What guessing a new passphrase costs: 64 MiB of memory for 3 passes of Argon2id a guess, or 256 MiB.",
    )
    return option(function)


def pattern_options(function: F) -> F:
    """Adds --exclude, --include and --exclude-file."""
    for option in (
        click.option(
            "--exclude-file",
            multiple=True,
            metavar="FILE",
            type=click.Path(exists=True, allow_dash=True, path_type=str),
            help="Read patterns from a file, one a line, as in a .gitignore.",
        ),
        click.option(
            "--include",
            multiple=True,
            metavar="PATTERN",
            help="Take back what an earlier pattern left out (as !PATTERN).",
        ),
        click.option(
            "--exclude",
            multiple=True,
            metavar="PATTERN",
            help="Leave out what matches: a pattern as in a .gitignore, relative to the source; the last that matches "
            "decides.",
        ),
    ):
        function = option(function)
    return function
