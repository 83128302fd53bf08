"""Every example that people are shown, in README.md and on the pages of the commands, is understood, and runs."""

from __future__ import annotations

import os
import re
import shlex
import shutil

import click
import pytest

from respaldo.cli.run import group
from tests.cli import examples

PAGES = examples.of_pages()
BLOCKS = examples.of_readme()
COMMANDS = dict(examples.commands())
MISSING = [name for name in ("bash", "jq", "tar", "zstd", "sha256sum") if shutil.which(name) is None]

pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"examples take what is not here: {', '.join(MISSING)}")

FRESH = re.compile(
    r"^respaldo (init|forget|unpin|rewrite|key (remove|rotate|client (remove|renew))|prune|log check --accept)"
)
"""What takes away what the next line names."""

ELSEWHERE = {
    r"apt-get|pip install|^export PATH|^make ": "about the machine, not about a repository",
    r"^respaldo bench": "takes a minute: tests/cli/test_bench.py",
    r"respaldo unlock|respaldo lock|\bunlock --status": "keeps a process: tests/cli/test_unlock.py",
    r"respaldo mount|^umount|/mnt/back/latest": "takes FUSE: tests/views/mount",
    r"stats --browse": "takes a terminal: tests/cli/test_browse.py",
    r"--recovery|key recovery(?! --svg)": "takes a terminal: tests/cli/test_recovery.py",
    r"key passwd(?! --password-file)|kdf sensitive|key add --label|key test -r": "asks: tests/cli/test_passphrase.py",
    r"^respaldo init( -r /mnt/disk/backup$| +#)": "asks for a passphrase: tests/cli/test_passphrase.py",
    r"completion zsh": "evaluated by zsh",
}
"""Lines that are only understood here, and why."""

BEFORE = {
    r"init -r /srv/backup": "rm -rf /srv/backup",
    r"init -r /mnt/disk/backup": "rm -rf /mnt/disk/backup",
    r"init -r /mnt/second": "rm -rf /mnt/second/backup",
    r"--key-file /root/backup.key": "head -c 32 /dev/urandom > /root/backup.key",
    r"list --key-file ~/recovery.key": "respaldo key add --new-key-file ~/recovery.key",
    r"test --key-file /media/stick": "respaldo key add --new-key-file /media/stick/recovery.key",
    r"respaldo undo": "respaldo forget 3f358ae3 --grace 7d",
    r"respaldo unpin": "respaldo pin 3f358ae3",
    r"keyless -r /srv|parity mend -r /srv": "test -d /srv/backup || cp -a /mnt/disk/backup /srv/backup",
    r"parity (mend|off|status)": "respaldo parity on",
    r"dump latest /shop": "respaldo snapshot --command 'pg_dump -Fc shop' --stdin shop.dump",
    r"tar -xpf FILE": "mkdir DIRECTORY && respaldo export latest --format tar -o FILE",
    r"\(cd /tmp/back": "respaldo restore latest:/srv/www /tmp/back",
    r"--from /mnt/second": "rm -rf /mnt/second/* && respaldo init -r /mnt/second/backup --password-file ~/.second && "
    "respaldo copy 3f358ae3 --to /mnt/second/backup --other-password-file ~/.second",
    r"import .*/old/": "tar -czf /old/home-2026-11-20.tar.gz -C /home/ana Documents",
    r"import backup.tar.zst": "tar --zstd -cf backup.tar.zst -C /home/ana Documents",
    r"import laptop_": "respaldo export latest -o laptop_snapshot_20261120_1800_1f2e.tar.zst",
    r"respaldo log check .*head": "respaldo log head > head; cp head /somewhere/else/heads",
    r"^respaldo key client add web-1 --out": "rm -f web-1",
    r"client (remove|renew) web-1|(sync|reencrypt).* --client web-1": "respaldo key client add web-1 --out added",
    r"--client-file": "mv web-1* /etc/respaldo/",
    r"-r /mnt/backup": "ln -s disk/backup /mnt/backup",
    r"key passwd --password-file": "respaldo key add --new-password-file ./old",
}
"""What a line takes for granted."""

STATUS = {r"^respaldo diff|\| diff -|prune --free": (0, 1)}
"""Statuses other than 0 that are an answer."""


def understood(line: str) -> None:
    """Has every command of a line parsed, which is as far as one can go without running it."""
    for part in re.split(r"&&|;", re.sub(r"\$\([^)]*\)", "x", line)):
        words = shlex.split(re.sub(r" [|>].*", "", part), comments=True)
        if words[:1] != ["respaldo"]:
            continue
        context = click.Context(group, info_name="respaldo")
        command: click.Command = group
        while isinstance(command, click.Group):
            words = words[1:]
            inner = command.get_command(context, words[0])
            assert inner is not None, f"{line}: no command {words[0]}"
            command = inner
        command.make_context("x", [os.path.expanduser(word) for word in words[1:]], parent=context)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Makes the world once; whoever uses it makes it again what it was."""
    with pytest.MonkeyPatch.context() as patch:
        root = tmp_path_factory.mktemp("examples") / "root"
        patch.chdir("/")
        for name, value in examples.World(root, {}, {}).environment.items():
            patch.setenv(name, value)
        for name in [name for name in os.environ if name.startswith("RESPALDO_OTHER_")]:
            patch.delenv(name)
        yield examples.build(root)
        os.chdir("/")


@pytest.fixture
def world(made):
    """Is the world as it was made."""
    made.renew()
    return made


def runs(world, lines):
    for line in lines:
        if any(re.search(pattern, line) for pattern in ELSEWHERE):
            understood(world.line(line))
            continue
        if FRESH.search(line):
            world.renew()
        for pattern, before in BEFORE.items():
            if re.search(pattern, line):
                status, said = world.run(before)
                assert status == 0, said
        status, said = world.run(line)
        wanted = next((statuses for pattern, statuses in STATUS.items() if re.search(pattern, line)), (0,))
        assert status in wanted, said


@pytest.mark.parametrize("name", COMMANDS)
def test_examples_of_a_page_run(world, name):
    """As they stand there, with every path, snapshot and key that they name."""
    runs(world, [line for _, line in getattr(COMMANDS[name], "_examples", ())])


def test_examples_of_the_first_page_run(world):
    """In their order."""
    runs(world, PAGES[:4])


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_examples_of_the_readme_run(world, number):
    """Line by line."""
    runs(world, BLOCKS[number])


def options(name: str) -> set[str]:
    """Returns the options of a command, or of all commands of a group."""
    found = [command for full, command in COMMANDS.items() if f"{full} ".startswith(f"respaldo {name} ")]
    return {word for command in found for param in command.params for word in (*param.opts, *param.secondary_opts)}


EVERY = set().union(*map(options, {name.split()[1] for name in COMMANDS})) | {"--help", "--version"}


@pytest.mark.parametrize("document", ["README.md", "CHANGELOG.md", "docs/security.md"])
def test_option_that_a_document_names_is_there(document):
    """Of the command that it is named with; where it stands alone, of any."""
    text = re.sub(r"^```.*?^```", "", (examples.CHECKOUT / document).read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    for line in text.splitlines() if document == "README.md" else [" ".join(text.split())]:
        row = re.match(r"\| `([a-z]+(?: [a-z]+)*)", line)
        for span in re.findall(r"`([^`]*)`", line):
            words = re.sub(r"^respaldo ", "", span).split()
            depth = next((n for n in (3, 2, 1) if options(" ".join(words[:n]))), 0) if words else 0
            named = " ".join(words[:depth]) if depth else row[1].split()[0] if row else ""
            for option in re.findall(r"(?<![\w-])--[a-z][a-z-]*", span):
                near = option if not option.endswith("-") else ""  # `--keep-…`
                assert not near or near in (options(named) or EVERY), (
                    f"{document}: {span!r} of {named or 'any command'}"
                )


def test_table_of_the_readme_has_every_command():
    """By the names that they have on the command line, and no others."""
    text = (examples.CHECKOUT / "README.md").read_text("utf-8")
    table = text.partition("| command | does |")[2].partition("\n\n")[0]
    found = set()
    for cell in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE):
        first, *others = (re.sub(r"[^a-z ].*", "", part.strip(" `")).strip() for part in cell.split("·"))
        group = first.rpartition(" ")[0]
        found |= {first, *(name if f"respaldo {name}" in COMMANDS else f"{group} {name}" for name in others)}
    assert found == {name.removeprefix("respaldo ") for name in COMMANDS}
