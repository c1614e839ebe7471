"""What is wrong, wasteful or doubtful about a planned job, and which settings help.

Each rule looks at the plan of a dry run and the request, and says settings by their API names.
"""

import posixpath
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from batch_transform_cli.job.dry_run import Plan
from batch_transform_cli.job.request import Member
from batch_transform_cli.screen import counted, size
from transform_request.rules import media_type

Kind = Literal["wrong", "wasteful", "doubtful"]
Request = Mapping[str, Any]

_LARGEST_PAYLOAD_MB = 100
_TINY_SHARE = 20  # An object of less than a twentieth of a payload is tiny.
_MANY = 100
_SKEW = 1.5  # times the mean share
_MEDIA_TYPES = {
    ".csv": "text/csv",
    ".jsonl": "application/jsonlines",
    ".ndjson": "application/jsonlines",
    ".json": "application/json",
}
_NO_DATA = ("_SUCCESS", ".manifest", ".crc", ".tar.gz", ".out")

_SPLIT: Member = ("TransformInput", "SplitType")
_ASSEMBLE: Member = ("TransformOutput", "AssembleWith")
_BY_LINES: Mapping[Member, Any] = {_SPLIT: "Line", _ASSEMBLE: "Line"}


@dataclass(frozen=True, slots=True)
class Advice:
    """One thing to know.

    :param kind: `wrong` fails objects or scores what is no record; `wasteful` costs time or money;
        `doubtful` may be meant so.
    :param suggest: the members to set.
    """

    kind: Kind
    text: str
    suggest: Mapping[Member, Any] = field(default_factory=dict)


def advise(plan: Plan, request: Request) -> list[Advice]:
    """Return all that is to be said, what fails objects first."""
    found = [advice for rule in _RULES for advice in rule(plan, request)]
    order = ("wrong", "wasteful", "doubtful")
    return sorted(found, key=lambda advice: order.index(advice.kind))


def _payload_limit(plan: Plan, request: Request) -> Iterator[Advice]:
    settings, (longest, name) = plan.settings, plan.longest
    limit = settings.limit_bytes
    # An input filter may make a record short enough; then nothing fails.
    if limit is None or longest <= limit or not plan.failing:
        return
    needed_mb = -(-(longest + 1) // settings.readings.bytes_in_mb)  # 1 for a line feed.
    whole = settings.split == "None"
    what = "object" if whole else "record"
    told = (
        f"MaxPayloadInMB must hold the largest {what}, got {settings.max_payload_mb} and "
        f"{size(longest)} in {name}"
    )
    if whole and _is(plan, "text/csv", "application/jsonlines"):
        yield Advice("wrong", f"{told}; cut objects into their lines", _BY_LINES)
    elif needed_mb <= _LARGEST_PAYLOAD_MB:
        suggest: dict[Member, Any] = {("MaxPayloadInMB",): needed_mb}
        if needed_mb * settings.max_concurrent > _LARGEST_PAYLOAD_MB:
            suggest["MaxConcurrentTransforms",] = _LARGEST_PAYLOAD_MB // needed_mb
        yield Advice("wrong", f"{told}; raise it", suggest)
    elif whole:
        yield Advice(
            "wrong",
            f"{told}; split the object, or send it in chunks if the model takes them",
            {("MaxPayloadInMB",): 0},
        )
    else:
        yield Advice("wrong", f"{told}, which no request can carry; make smaller records")


def _failing(plan: Plan, request: Request) -> Iterator[Advice]:
    if plan.failing:
        yield Advice(
            "wrong",
            f"every object must have an output, got {plan.failing_count:,} of {plan.count:,} that "
            f"would fail, first {plan.failing[0].name}; mend what is said of each",
        )


def _compression(plan: Plan, request: Request) -> Iterator[Advice]:
    if plan.gzipped and not plan.settings.gzip:
        yield Advice(
            "wrong",
            f"CompressionType must be Gzip for gzip data, got None and such objects, "
            f"first {plan.gzipped[0]}; the model would get compressed bytes",
            {("TransformInput", "CompressionType"): "Gzip"},
        )


def _idle_instances(plan: Plan, request: Request) -> Iterator[Advice]:
    count = len(plan.instances)
    if plan.count < count:
        yield Advice(
            "wasteful",
            f"InstanceCount should be at most the number of objects, got {count} and {plan.count}: "
            f"an object is never shared, so {count - plan.count} would be idle and billed; lower "
            "it, or split the objects",
            {("TransformResources", "InstanceCount"): plan.count},
        )
        return
    most = max(each.bytes for each in plan.instances)
    if count > 1 and most * count > _SKEW * plan.read_bytes:
        yield Advice(
            "wasteful",
            f"the {count} instances should get about equal shares, got one with "
            f"{100 * most // plan.read_bytes} % of the bytes, for which the others wait; split "
            "the large objects",
        )


def _payload_size(plan: Plan, request: Request) -> Iterator[Advice]:
    settings, limit = plan.settings, plan.settings.limit_bytes
    if settings.split == "None":
        if request.get("BatchStrategy") == "MultiRecord":
            yield Advice(
                "doubtful",
                "BatchStrategy acts only with a SplitType, got MultiRecord and None: each object "
                "is one request; set SplitType, or leave BatchStrategy out",
            )
    elif settings.single and plan.records >= _MANY:
        yield Advice(
            "wasteful",
            f"BatchStrategy should be MultiRecord for records of {size(plan.body_bytes)}, got "
            f"SingleRecord and so {plan.requests:,} requests; set it if the model takes several "
            "records in a request",
            {("BatchStrategy",): "MultiRecord"},
        )
    elif limit and plan.count >= _MANY and plan.body_bytes * _TINY_SHARE < limit:
        yield Advice(
            "wasteful",
            f"objects should fill a request of {settings.max_payload_mb} MB, got {plan.count:,} "
            f"of about {size(plan.body_bytes)}: a request never spans objects; put more "
            "records into an object",
        )


def _concurrency(plan: Plan, request: Request) -> Iterator[Advice]:
    busiest = max(each.requests for each in plan.instances)
    if not request.get("MaxConcurrentTransforms") and busiest >= _MANY:
        yield Advice(
            "wasteful",
            "MaxConcurrentTransforms should be the number of requests that the model server "
            f"answers at a time, got none and {busiest:,} requests on an instance: they go one by "
            "one unless the server says otherwise; set it to the server's workers",
        )


def _assembly(plan: Plan, request: Request) -> Iterator[Advice]:
    split, assembled = plan.settings.split, plan.settings.assemble_lines
    if split == "Line" and not assembled:
        yield Advice(
            "doubtful",
            "AssembleWith should be Line for SplitType Line, got None: results stand on lines of "
            "their own only if the model ends every reply with a line feed; set it",
            {_ASSEMBLE: "Line"},
        )
    elif split in ("RecordIO", "TFRecord") and assembled:
        yield Advice(
            "doubtful",
            f"AssembleWith should be None for SplitType {split} unless results are text, got Line: "
            "a line feed after a binary result damages it; leave it out",
            {_ASSEMBLE: "None"},
        )


def _formats(plan: Plan, request: Request) -> Iterator[Advice]:
    settings = plan.settings
    if settings.content_type is None:
        names = {posixpath.splitext(each.name.removesuffix(".gz"))[1] for each in plan.objects}
        types = {_MEDIA_TYPES[name] for name in names if name in _MEDIA_TYPES}
        yield Advice(
            "doubtful",
            "ContentType should be given, got none: model servers then guess, each in its way; "
            "set it",
            {("TransformInput", "ContentType"): types.pop()} if len(types) == 1 else {},
        )
    if settings.split == "None" and _is(plan, "application/jsonlines"):
        yield Advice(
            "doubtful",
            "SplitType should be Line for application/jsonlines, got None: each object is one "
            "request and must fit into it; set it",
            _BY_LINES,
        )
    if settings.split == "Line":
        starts = {name: start.split(b"\n", 1)[0].strip() for name, start in plan.samples.items()}
        documents = [name for name, line in starts.items() if line in (b"{", b"[")]
        if documents:
            yield Advice(
                "wrong",
                "every record must be one line for SplitType Line, got a JSON document over "
                f"several in {documents[0]}; write JSON Lines, or send objects whole",
                {_SPLIT: "None"},
            )


def _lines(plan: Plan, request: Request) -> Iterator[Advice]:
    csv = plan.settings.split == "Line" and _is(plan, "text/csv")
    headers = [name for name, start in plan.samples.items() if csv and _has_header(start)]
    if headers:
        first = plan.samples[headers[0]].split(b"\n", 1)[0].decode(errors="replace").strip()
        yield Advice(
            "doubtful",
            f"every line is a record, got one in {headers[0]} that looks like a header: "
            f"{first[:60]}; remove it, for the model will be asked to score it",
        )
    if csv and plan.open_quotes:
        yield Advice(
            "doubtful",
            f"a CSV record should stand on one line, got {counted(plan.open_quotes, 'line')} with "
            "a quote that stays open: SplitType Line cuts such a record; remove line feeds from "
            "fields",
        )
    if plan.blank:
        yield Advice(
            "doubtful",
            f"records should not be empty, got {counted(plan.blank, 'blank line')}, sent as "
            "records; remove them",
        )
    if plan.carriage_returns:
        yield Advice(
            "doubtful",
            f"lines should end with LF, got {plan.carriage_returns:,} with CR LF: the CR stays "
            "part of the record; convert them if the model minds",
        )


def _names(plan: Plan, request: Request) -> Iterator[Advice]:
    strays = [each.name for each in plan.objects if _is_stray(each.name)]
    if strays:
        yield Advice(
            "doubtful",
            f"every object of the input is sent to the model, got {len(strays)} whose names look "
            f"like no data, first {strays[0]}; move them, or name the others in a manifest",
        )
    if plan.empty:
        yield Advice(
            "doubtful",
            f"objects should hold records, got {plan.empty:,} without a byte; each makes an empty "
            "output and no request",
        )
    if plan.replaced:
        yield Advice(
            "doubtful",
            f"outputs should be new, got {plan.replaced:,} that exist and would be replaced; "
            "choose another place to keep them",
        )


_RULES = (
    _payload_limit,
    _compression,
    _failing,
    _idle_instances,
    _payload_size,
    _concurrency,
    _assembly,
    _formats,
    _lines,
    _names,
)


def _is_stray(name: str) -> bool:
    last = posixpath.basename(name)
    return last.startswith(".") or last.endswith(_NO_DATA)


def _is(plan: Plan, *types: str) -> bool:
    return media_type(plan.settings.content_type or "") in types


def _has_header(start: bytes) -> bool:
    """Whether the first line has no number and the second one has."""
    lines = start.split(b"\n")
    if len(lines) < 3:
        return False
    first, second = ([cell.strip(b' "\r') for cell in line.split(b",")] for line in lines[:2])
    named = len(first) == len(second) and all(first) and not any(map(_is_number, first))
    return named and any(map(_is_number, second))


def _is_number(cell: bytes) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
