"""The façade: the only door for whatever lies outside the library, the command line included.

Re-exports what callers need: repositories, options, results, errors. Never reads the environment or a terminal: places,
secrets, progress and cancellation are arguments.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from respaldo.api.accessed import Accessed
    from respaldo.api.bench.values import Bench, BenchOptions, Timing
    from respaldo.api.cached import cached_conditions, cached_snapshots
    from respaldo.api.clients import Added, ClientInfo
    from respaldo.api.copying import SyncResult, copy, repository_id, sync
    from respaldo.api.costing import Costing, Grew, directory_of
    from respaldo.api.exporting import FORMATS, TEMPLATE, Exported
    from respaldo.api.figures import Stats
    from respaldo.api.history import Checked, Logged, Rollback
    from respaldo.api.importing import import_archive, time_from_name
    from respaldo.api.keyless import areas_at, verify_keyless
    from respaldo.api.looking import Comparison, Dumped, Looking
    from respaldo.api.machine import KernelState
    from respaldo.api.making import init
    from respaldo.api.naming import ID_SHOWN, Found, covers, plain_path, split_name
    from respaldo.api.opening import open_area, open_as_client, open_repository
    from respaldo.api.parity import mend_objects
    from respaldo.api.places import Places, repository_path
    from respaldo.api.recovery import Printed, Typed, draw_recovery, parse_recovery
    from respaldo.api.reencrypting import Reencrypted, Under
    from respaldo.api.repository import Repository
    from respaldo.api.retention import GROUP_BY, InTrash, Planned, RetentionPlan, view
    from respaldo.api.rewriting import RewriteResult
    from respaldo.api.safety import PutAway, Restoring
    from respaldo.api.unasked import client_names, slot_names
    from respaldo.catalog.kinds import kind_of
    from respaldo.catalog.labels import Bump, is_reserved, shown_labels
    from respaldo.catalog.policies import BUILT_IN, SPAN_FORM, choose, choose_for, parse_policies, parse_span
    from respaldo.catalog.retention import COUNTS, PERIODS, WINDOWS, Policy, describe
    from respaldo.catalog.snapshots import Catalogue, Snapshot
    from respaldo.codec.keys import KEY_BYTES
    from respaldo.codec.slots import KDFS, STANDARD, Kdf, Opened, Secret
    from respaldo.flows.backup.options import BackupOptions, BackupResult
    from respaldo.flows.check.options import Subset, VerifyOptions, parse_subset
    from respaldo.flows.check.result import Affected, Damage, KeylessResult, VerifyResult
    from respaldo.flows.copying.options import Copied, CopyResult
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
    from respaldo.flows.importing.options import ImportOptions, ImportResult
    from respaldo.flows.parity.options import Mended, MendResult, ParityChange, ParityStatus, parse_share, show_share
    from respaldo.flows.repair.options import RepairOptions, RepairPlan, RepairResult, Step
    from respaldo.flows.restore.options import Overwrite, RestoreOptions, RestorePlan, RestoreResult, Verb
    from respaldo.flows.restore.preview import Preview, What
    from respaldo.flows.restore.preview import Row as PreviewRow
    from respaldo.flows.rewrite.options import RewriteOptions, Rewritten
    from respaldo.format.credential import Credential, parse_credential
    from respaldo.format.figures import Changes, Figures
    from respaldo.format.header import Header
    from respaldo.format.snapshot import Manifest
    from respaldo.format.verification import How, WasWhole
    from respaldo.fs.match import Rules, read_rules
    from respaldo.store.rotating import Rotated, RotationPlan
    from respaldo.store.slots import SlotInfo
    from respaldo.views.checksums import Checksum, sum_line
    from respaldo.views.criteria import Criteria
    from respaldo.views.diff import Change
    from respaldo.views.diff import Verb as ChangeVerb
    from respaldo.views.find import Unread, Version
    from respaldo.views.growth import Grown, Growth
    from respaldo.views.history import State
    from respaldo.views.usage import Usage, Used

    KERNEL: KernelState


__all__ = [
    "BUILT_IN",
    "COUNTS",
    "FORMATS",
    "FREE_REPACK_BELOW",
    "GROUP_BY",
    "ID_SHOWN",
    "KDFS",
    "KERNEL",
    "KEY_BYTES",
    "PERIODS",
    "REPACK_BELOW",
    "SPAN_FORM",
    "STANDARD",
    "TEMPLATE",
    "WINDOWS",
    "Accessed",
    "Added",
    "Affected",
    "BackupOptions",
    "BackupResult",
    "Bench",
    "BenchOptions",
    "Bump",
    "Catalogue",
    "Change",
    "ChangeVerb",
    "Changes",
    "Checked",
    "Checksum",
    "ClientInfo",
    "Comparison",
    "Copied",
    "CopyResult",
    "Cost",
    "Costing",
    "Costs",
    "Credential",
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
    "How",
    "ImportOptions",
    "ImportResult",
    "InTrash",
    "Kdf",
    "KernelState",
    "KeylessResult",
    "Logged",
    "Looking",
    "Manifest",
    "MendResult",
    "Mended",
    "Opened",
    "Overwrite",
    "PackPlan",
    "ParityChange",
    "ParityStatus",
    "Places",
    "Planned",
    "Policy",
    "Preview",
    "PreviewRow",
    "Printed",
    "PruneOptions",
    "PrunePlan",
    "PruneResult",
    "PutAway",
    "Reencrypted",
    "RepairOptions",
    "RepairPlan",
    "RepairResult",
    "Repository",
    "RestoreOptions",
    "RestorePlan",
    "RestoreResult",
    "Restoring",
    "RetentionPlan",
    "RewriteOptions",
    "RewriteResult",
    "Rewritten",
    "Rollback",
    "Rotated",
    "RotationPlan",
    "Rules",
    "Secret",
    "Shares",
    "SlotInfo",
    "Snapshot",
    "SpacePlan",
    "State",
    "Stats",
    "Step",
    "Subset",
    "SyncResult",
    "Timing",
    "Typed",
    "Under",
    "Unread",
    "Usage",
    "Used",
    "Verb",
    "VerifyOptions",
    "VerifyResult",
    "Version",
    "WasWhole",
    "What",
    "areas_at",
    "cached_conditions",
    "cached_snapshots",
    "choose",
    "choose_for",
    "client_names",
    "copy",
    "covers",
    "describe",
    "directory_of",
    "draw_recovery",
    "import_archive",
    "init",
    "is_reserved",
    "kind_of",
    "mend_objects",
    "open_area",
    "open_as_client",
    "open_repository",
    "parse_credential",
    "parse_policies",
    "parse_recovery",
    "parse_share",
    "parse_span",
    "parse_subset",
    "plain_path",
    "read_rules",
    "repository_id",
    "repository_path",
    "show_share",
    "shown_labels",
    "slot_names",
    "split_name",
    "sum_line",
    "sync",
    "time_from_name",
    "verify_keyless",
    "view",
]

_WHERE = {
    "respaldo.api.accessed": "Accessed",
    "respaldo.api.bench.values": "Bench BenchOptions Timing",
    "respaldo.api.cached": "cached_conditions cached_snapshots",
    "respaldo.api.clients": "Added ClientInfo",
    "respaldo.api.copying": "SyncResult copy repository_id sync",
    "respaldo.api.costing": "Costing Grew directory_of",
    "respaldo.api.exporting": "FORMATS TEMPLATE Exported",
    "respaldo.api.history": "Checked Logged Rollback",
    "respaldo.api.figures": "Stats",
    "respaldo.api.keyless": "areas_at verify_keyless",
    "respaldo.api.importing": "import_archive time_from_name",
    "respaldo.api.looking": "Comparison Dumped Looking",
    "respaldo.api.machine": "KernelState",
    "respaldo.api.making": "init",
    "respaldo.api.naming": "ID_SHOWN Found covers plain_path split_name",
    "respaldo.api.opening": "open_area open_as_client open_repository",
    "respaldo.api.parity": "mend_objects",
    "respaldo.api.places": "Places repository_path",
    "respaldo.api.recovery": "Printed Typed draw_recovery parse_recovery",
    "respaldo.api.reencrypting": "Reencrypted Under",
    "respaldo.api.repository": "Repository",
    "respaldo.api.retention": "GROUP_BY InTrash Planned RetentionPlan view",
    "respaldo.api.safety": "PutAway Restoring",
    "respaldo.api.rewriting": "RewriteResult",
    "respaldo.api.unasked": "client_names slot_names",
    "respaldo.catalog.kinds": "kind_of",
    "respaldo.catalog.labels": "Bump is_reserved shown_labels",
    "respaldo.catalog.policies": "BUILT_IN SPAN_FORM choose choose_for parse_policies parse_span",
    "respaldo.catalog.retention": "COUNTS PERIODS WINDOWS Policy describe",
    "respaldo.catalog.snapshots": "Catalogue Snapshot",
    "respaldo.codec.keys": "KEY_BYTES",
    "respaldo.codec.slots": "KDFS STANDARD Kdf Opened Secret",
    "respaldo.flows.backup.options": "BackupOptions BackupResult",
    "respaldo.flows.check.options": "Subset VerifyOptions parse_subset",
    "respaldo.flows.check.result": "Affected Damage KeylessResult VerifyResult",
    "respaldo.flows.copying.options": "Copied CopyResult",
    "respaldo.flows.gc.options": (
        "FREE_REPACK_BELOW REPACK_BELOW Goal PackPlan PruneOptions PrunePlan PruneResult Shares SpacePlan Cost Costs"
    ),
    "respaldo.flows.importing.options": "ImportOptions ImportResult",
    "respaldo.flows.parity.options": "Mended MendResult ParityChange ParityStatus parse_share show_share",
    "respaldo.flows.repair.options": "RepairOptions RepairPlan RepairResult Step",
    "respaldo.flows.restore.options": "Overwrite RestoreOptions RestorePlan RestoreResult Verb",
    "respaldo.format.credential": "Credential parse_credential",
    "respaldo.format.figures": "Changes Figures",
    "respaldo.flows.restore.preview": "Preview What",
    "respaldo.flows.rewrite.options": "RewriteOptions Rewritten",
    "respaldo.format.header": "Header",
    "respaldo.format.snapshot": "Manifest",
    "respaldo.format.verification": "How WasWhole",
    "respaldo.fs.match": "Rules read_rules",
    "respaldo.store.rotating": "Rotated RotationPlan",
    "respaldo.store.slots": "SlotInfo",
    "respaldo.views.checksums": "Checksum sum_line",
    "respaldo.views.diff": "Change",
    "respaldo.views.criteria": "Criteria",
    "respaldo.views.find": "Unread Version",
    "respaldo.views.growth": "Grown Growth",
    "respaldo.views.history": "State",
    "respaldo.views.usage": "Usage Used",
}
"""What comes from where. Loaded when it is first asked for: defining all of it takes longer than many a command."""
_MODULES = {name: module for module, names in _WHERE.items() for name in names.split()}


def __getattr__(name: str) -> object:
    """Loads what is asked for."""
    value: object
    if name == "KERNEL":
        kernel = import_module("respaldo.kernel")
        state = import_module(_MODULES["KernelState"]).KernelState
        value = state(native=kernel.NATIVE, reason=kernel.WHY_NOT_NATIVE)
    elif name == "PreviewRow":
        value = import_module("respaldo.flows.restore.preview").Row
    elif name == "ChangeVerb":
        value = import_module("respaldo.views.diff").Verb
    elif name in _MODULES:
        value = getattr(import_module(_MODULES[name]), name)
    else:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    globals()[name] = value
    return value
