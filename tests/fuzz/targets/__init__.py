"""All targets, in one list: to add a parser, add a `Target` to the module that it fits into."""

from __future__ import annotations

from tests.fuzz.targets import areas, caches, clients, files, imports, logs, mounts, packs, seals, stored, texts, whole

TARGETS = {
    target.name: target
    for module in (stored, seals, packs, logs, clients, caches, texts, files, imports, mounts, whole, areas)
    for target in sorted(module.TARGETS, key=lambda target: target.name)
}
