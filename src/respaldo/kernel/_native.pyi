from collections.abc import Sequence

from respaldo.core.seams import Buffer

REVISION: int

def cut(
    data: Buffer,
    table: Buffer,
    sip_key: Buffer,
    minimum: int,
    average: int,
    maximum: int,
    strict: int,
    loose: int,
    final: bool,
) -> bytes: ...
def scan(dir_fd: int, recent_ns: int, options: int) -> tuple[bytes, bytes, bytes]: ...
def gather(dir_fd: int, names: Buffer, meta: Buffer, ident: Buffer, out: bytearray | memoryview) -> bytes: ...
def scatter(
    dir_fd: int,
    names: Buffer,
    meta: Buffer,
    counts: Buffer,
    pieces: Sequence[Buffer],
    prefix: Buffer,
    options: int,
) -> bytes: ...
