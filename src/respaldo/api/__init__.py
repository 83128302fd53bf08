"""The façade: the only door for whatever lies outside the library, the command line included.

Re-exports what callers need: repositories, options, results, errors. Never reads the environment or a terminal: places,
secrets, progress and cancellation are arguments.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from respaldo.api.bench import Bench, Stage
    from respaldo.api.cached import cached_snapshots
    from respaldo.api.costing import Costing, Grew, directory_of
    from respaldo.api.exporting import FORMATS, TEMPLATE, Exported
    from respaldo.api.figures import Stats
    from respaldo.api.history import Checked, Logged, Rollback
    from respaldo.api.keyless import verify_keyless
    from respaldo.api.looking import Dumped, Looking
    from respaldo.api.machine import KernelState
    from respaldo.api.making import init
    from respaldo.api.naming import ID_SHOWN, Found, covers, plain_path, split_name
    from respaldo.api.parity import mend_objects
    from respaldo.api.places import Places, repository_path
    from respaldo.api.repository import Repository
    from respaldo.api.repository import Repository as _Repository
    from respaldo.api.retention import GROUP_BY, InTrash, Planned, RetentionPlan, view
    from respaldo.api.rewriting import RewriteResult
    from respaldo.api.trial import try_runs, try_verify
    from respaldo.catalog.labels import Bump, is_reserved, shown_labels
    from respaldo.catalog.policies import BUILT_IN, SPAN_FORM, choose, choose_for, parse_policies, parse_span
    from respaldo.catalog.retention import COUNTS, PERIODS, WINDOWS, Policy, describe, kind_of
    from respaldo.catalog.snapshots import Catalogue, Snapshot
    from respaldo.codec.keys import KEY_BYTES
    from respaldo.codec.slots import SENSITIVE, STANDARD, Kdf, Secret
    from respaldo.flows.backup.options import BackupOptions, BackupResult
    from respaldo.flows.check.options import Subset, VerifyOptions, parse_subset
    from respaldo.flows.check.result import Affected, Damage, KeylessResult, VerifyResult
    from respaldo.flows.gc.options import (
        FREE_REPACK_BELOW,
        REPACK_BELOW,
        Cost,
        Costs,
        Goal,
        PackPlan,
        PruneOptions,
        PrunePlan,
        PruneResult,
        Shares,
        SpacePlan,
    )
    from respaldo.flows.parity.options import Mended, MendResult, ParityChange, ParityStatus, parse_share, show_share
    from respaldo.flows.repair.options import RepairOptions, RepairPlan, RepairResult, Step
    from respaldo.flows.restore.options import Overwrite, RestoreOptions, RestorePlan, RestoreResult, Verb
    from respaldo.flows.rewrite.options import RewriteOptions, Rewritten
    from respaldo.format.figures import Changes, Figures
    from respaldo.format.header import Header
    from respaldo.format.snapshot import Manifest
    from respaldo.fs.match import Rules, read_rules
    from respaldo.store.slots import SlotInfo
    from respaldo.views.diff import Change
    from respaldo.views.diff import Verb as ChangeVerb
    from respaldo.views.find import Criteria, Version
    from respaldo.views.growth import Grown, Growth
    from respaldo.views.history import State
    from respaldo.views.usage import Usage, Used

    KERNEL: KernelState
    open_repository = _Repository.open


__all__ = [
    "BUILT_IN",
    "COUNTS",
    "FORMATS",
    "FREE_REPACK_BELOW",
    "GROUP_BY",
    "ID_SHOWN",
    "KERNEL",
    "KEY_BYTES",
    "PERIODS",
    "REPACK_BELOW",
    "SENSITIVE",
    "SPAN_FORM",
    "STANDARD",
    "TEMPLATE",
    "WINDOWS",
    "Affected",
    "BackupOptions",
    "BackupResult",
    "Bench",
    "Bump",
    "Catalogue",
    "Change",
    "ChangeVerb",
    "Changes",
    "Checked",
    "Cost",
    "Costing",
    "Costs",
    "Criteria",
    "Damage",
    "Dumped",
    "Exported",
    "Figures",
    "Found",
    "Goal",
    "Grew",
    "Grown",
    "Growth",
    "Header",
    "InTrash",
    "Kdf",
    "KernelState",
    "KeylessResult",
    "Logged",
    "Looking",
    "Manifest",
    "MendResult",
    "Mended",
    "Overwrite",
    "PackPlan",
    "ParityChange",
    "ParityStatus",
    "Places",
    "Planned",
    "Policy",
    "PruneOptions",
    "PrunePlan",
    "PruneResult",
    "RepairOptions",
    "RepairPlan",
    "RepairResult",
    "Repository",
    "RestoreOptions",
    "RestorePlan",
    "RestoreResult",
    "RetentionPlan",
    "RewriteOptions",
    "RewriteResult",
    "Rewritten",
    "Rollback",
    "Rules",
    "Secret",
    "Shares",
    "SlotInfo",
    "Snapshot",
    "SpacePlan",
    "Stage",
    "State",
    "Stats",
    "Step",
    "Subset",
    "Usage",
    "Used",
    "Verb",
    "VerifyOptions",
    "VerifyResult",
    "Version",
    "cached_snapshots",
    "choose",
    "choose_for",
    "covers",
    "describe",
    "directory_of",
    "init",
    "is_reserved",
    "kind_of",
    "mend_objects",
    "open_repository",
    "parse_policies",
    "parse_share",
    "parse_span",
    "parse_subset",
    "plain_path",
    "read_rules",
    "repository_path",
    "show_share",
    "shown_labels",
    "split_name",
    "try_runs",
    "try_verify",
    "verify_keyless",
    "view",
]

_WHERE = {
    "respaldo.api.bench": "Bench Stage",
    "respaldo.api.cached": "cached_snapshots",
    "respaldo.api.costing": "Costing Grew directory_of",
    "respaldo.api.exporting": "FORMATS TEMPLATE Exported",
    "respaldo.api.history": "Checked Logged Rollback",
    "respaldo.api.figures": "Stats",
    "respaldo.api.keyless": "verify_keyless",
    "respaldo.api.looking": "Dumped Looking",
    "respaldo.api.machine": "KernelState",
    "respaldo.api.making": "init",
    "respaldo.api.naming": "ID_SHOWN Found covers plain_path split_name",
    "respaldo.api.parity": "mend_objects",
    "respaldo.api.places": "Places repository_path",
    "respaldo.api.repository": "Repository",
    "respaldo.api.retention": "GROUP_BY InTrash Planned RetentionPlan view",
    "respaldo.api.rewriting": "RewriteResult",
    "respaldo.api.trial": "try_runs try_verify",
    "respaldo.catalog.labels": "Bump is_reserved shown_labels",
    "respaldo.catalog.policies": "BUILT_IN SPAN_FORM choose choose_for parse_policies parse_span",
    "respaldo.catalog.retention": "COUNTS PERIODS WINDOWS Policy describe kind_of",
    "respaldo.catalog.snapshots": "Catalogue Snapshot",
    "respaldo.codec.keys": "KEY_BYTES",
    "respaldo.codec.slots": "SENSITIVE STANDARD Kdf Secret",
    "respaldo.flows.backup.options": "BackupOptions BackupResult",
    "respaldo.flows.check.options": "Subset VerifyOptions parse_subset",
    "respaldo.flows.check.result": "Affected Damage KeylessResult VerifyResult",
    "respaldo.flows.gc.options": (
        "FREE_REPACK_BELOW REPACK_BELOW Goal PackPlan PruneOptions PrunePlan PruneResult Shares SpacePlan Cost Costs"
    ),
    "respaldo.flows.parity.options": "Mended MendResult ParityChange ParityStatus parse_share show_share",
    "respaldo.flows.repair.options": "RepairOptions RepairPlan RepairResult Step",
    "respaldo.flows.restore.options": "Overwrite RestoreOptions RestorePlan RestoreResult Verb",
    "respaldo.format.figures": "Changes Figures",
    "respaldo.flows.rewrite.options": "RewriteOptions Rewritten",
    "respaldo.format.header": "Header",
    "respaldo.format.snapshot": "Manifest",
    "respaldo.fs.match": "Rules read_rules",
    "respaldo.store.slots": "SlotInfo",
    "respaldo.views.diff": "Change",
    "respaldo.views.find": "Criteria Version",
    "respaldo.views.growth": "Grown Growth",
    "respaldo.views.history": "State",
    "respaldo.views.usage": "Usage Used",
}
"""What comes from where. Loaded when it is first asked for: defining all of it takes longer than many a command."""
_MODULES = {name: module for module, names in _WHERE.items() for name in names.split()}


def __getattr__(name: str) -> object:
    """Loads what is asked for."""
    value: object
    if name == "open_repository":
        value = import_module(_MODULES["Repository"]).Repository.open
    elif name == "KERNEL":
        kernel = import_module("respaldo.kernel")
        state = import_module(_MODULES["KernelState"]).KernelState
        value = state(native=kernel.NATIVE, reason=kernel.WHY_NOT_NATIVE)
    elif name == "ChangeVerb":
        value = import_module("respaldo.views.diff").Verb
    elif name in _MODULES:
        value = getattr(import_module(_MODULES[name]), name)
    else:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    globals()[name] = value
    return value
