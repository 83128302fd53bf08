"""`respaldo completion`: prints the completion script of a shell."""

from __future__ import annotations

import click

from respaldo.cli import show
from respaldo.cli.pages import page
from respaldo.cli.settings import Settings


@page(
    "completion",
    examples=(
        ("bash, in ~/.bashrc:", 'eval "$(respaldo completion bash)"'),
        ("zsh, in ~/.zshrc:", 'eval "$(respaldo completion zsh)"'),
        ("fish:", "respaldo completion fish > ~/.config/fish/completions/respaldo.fish"),
    ),
)
@click.argument("shell", type=click.Choice(("bash", "zsh", "fish")))
@click.pass_context
def command(ctx: click.Context, settings: Settings, *, shell: str) -> int:  # noqa: ARG001 - every command gets them
    """Print a script that completes commands, options, and the names of snapshots, keys and clients.

    No passphrase is asked for. Snapshots come from the local cache: what this machine has seen. Of keys and clients
    the ids are completed; their labels and names where "unlock" keeps the key, or it lies in a file.
    """
    from click.shell_completion import get_completion_class  # start-up time

    from respaldo.cli.run import COMPLETE_VARIABLE  # run imports this module by name

    kind = get_completion_class(shell)
    if kind is None:  # pragma: no cover - click knows all three
        raise click.UsageError(f"no completion for {shell}")
    script = kind(ctx.find_root().command, {}, "respaldo", COMPLETE_VARIABLE).source()
    show.out(script)
    return 0
