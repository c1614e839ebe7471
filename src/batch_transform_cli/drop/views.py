"""What a drop looks like on a screen, and as JSON."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from batch_transform_cli.drop.files import Plan
from batch_transform_cli.drop.upload import Sent
from batch_transform_cli.pipelines.records import Drop
from batch_transform_cli.pipelines.views import status_text, why_not_done
from batch_transform_cli.screen import counted, plain_table, printable, size

_SHOWN = 20
_FIRST = ("failed", "superseded")

Existing = Mapping[str, int | None]
"""The sizes of objects by key; `None` for one that could not be seen."""


def plan_view(
    plan: Plan, there: Existing, *, bucket: str, sent: Sent | None = None
) -> RenderableType:
    """Return what is sent and what it does.

    :param there: what is in the bucket already.
    :param sent: what has arrived. Default: nothing was to, it is a dry run.
    """
    uploads = [each for each in plan.uploads if sent is None or each.key in sent.versions]
    table = plain_table()
    table.add_column("key", overflow="fold")
    table.add_column("size", justify="right", no_wrap=True)
    table.add_column("what it does", no_wrap=True)
    for upload in uploads[:_SHOWN]:
        told = _does(upload.key, there)
        style = "default" if told == "new" else "yellow"
        table.add_row(Text(printable(upload.key)), size(upload.size), Text(told, style=style))
    lines = _more(len(uploads))
    replaced = sum(there.get(upload.key) is not None for upload in uploads)
    if replaced:
        lines.append(
            f"{counted(replaced, 'object')} replaced: a version that still waits is superseded, "
            "and the newer predictions take the place of the older"
        )
    left_out = [f"left out: {printable(path)} ({why})" for path, why in plan.left_out.items()]
    lines += [*left_out[:_SHOWN], *_more(len(left_out))]
    files = f"{counted(len(uploads), 'file')}, {size(sum(each.size for each in uploads))}"
    lines.append(f"{files}, {'would be sent' if sent is None else 'sent'} to s3://{bucket}")
    return _below(table if uploads else None, lines)


def outcome_view(drops: Mapping[str, Drop | None], *, bucket: str) -> RenderableType:
    """Return how drops have ended, those that failed first, and where their predictions are.

    :param bucket: that of predictions.
    """
    table = plain_table()
    table.add_column("key", overflow="fold")
    table.add_column("status", no_wrap=True)
    table.add_column("predictions, or why not", overflow="fold")
    known = [drop for drop in drops.values() if drop is not None]
    known.sort(key=lambda drop: (drop.status not in _FIRST, drop.key))
    for drop in known[:_SHOWN]:
        told = drop.output_key or why_not_done(drop)
        table.add_row(Text(printable(drop.key)), status_text(drop.status), Text(printable(told)))
    counts = Counter("not taken yet" if drop is None else drop.status for drop in drops.values())
    lines = [
        *_more(len(known)),
        ", ".join(f"{count:,} {status}" for status, count in sorted(counts.items())),
    ]
    if any(drop.output_key for drop in known):
        lines.append(f"predictions are in s3://{bucket}")
    return _below(table if known else None, lines)


def document(
    plan: Plan,
    there: Existing,
    sent: Sent | None,
    drops: Mapping[str, Drop | None],
    *,
    output_bucket: str,
) -> dict[str, Any]:
    """Return all of it for programs."""
    told = []
    for upload in plan.uploads:
        version = sent.versions.get(upload.key) if sent else None
        drop = drops.get(upload.key)
        found = drop.output_key if drop else ""
        told.append(
            {
                "key": upload.key,
                "file": None if upload.path is None else str(upload.path),
                "size": upload.size,
                "new": None if _is_unseen(upload.key, there) else upload.key not in there,
                "sent": version is not None,
                "version_id": version.version_id if version else "",
                "status": drop.status if drop else "",
                "reason": drop.reason if drop else "",
                "predictions": f"s3://{output_bucket}/{found}" if found else "",
            }
        )
    return {"drops": told, "left_out": plan.left_out}


def _does(key: str, there: Existing) -> str:
    if _is_unseen(key, there):
        return "new, or replaces"
    return f"replaces {size(there[key] or 0)}" if key in there else "new"


def _is_unseen(key: str, there: Existing) -> bool:
    return key in there and there[key] is None


def _more(count: int) -> list[str]:
    return [f"the first {_SHOWN} of {count:,}"] if count > _SHOWN else []


def _below(table: Table | None, lines: Sequence[str]) -> RenderableType:
    shown = [] if table is None else [Padding(table, (1, 0, 1, 2), expand=False)]
    return Group(*shown, *map(Text, lines))
