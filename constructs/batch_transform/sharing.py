"""What the pipelines of one app may share: buckets, but neither ids nor outputs, in no circle."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from aws_cdk import Annotations, Stage
from constructs import Construct, IConstruct

from batch_transform.buckets import TransformBuckets, bucket_identity
from batch_transform.deployed import place_of
from batch_transform.places import REPORTS, RUNS
from batch_transform.settings import DataCapture
from batch_transform.tokens import is_token
from batch_transform.uploads import Uploads

#: The id of the warning, for `Annotations.of(pipeline).acknowledge_warning`.
SAME_DROPS = "@batch-transform:sameDrops"


@dataclass(frozen=True, kw_only=True, slots=True)
class _Keys:
    """All keys of a bucket that begin in a certain way, and end in one of some ways."""

    bucket: str
    prefix: str
    suffixes: tuple[str, ...] = ("",)

    def overlap(self, other: "_Keys") -> bool:
        return (
            self.bucket == other.bucket
            and (self.prefix.startswith(other.prefix) or other.prefix.startswith(self.prefix))
            and any(
                mine.endswith(its) or its.endswith(mine)
                for mine in self.suffixes
                for its in other.suffixes
            )
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Pipeline:
    path: str
    identity: tuple[str, ...]
    reads: _Keys
    predictions: _Keys
    writes: tuple[_Keys, ...]

    def feeds(self, other: "_Pipeline") -> bool:
        return any(written.overlap(other.reads) for written in self.writes)


_OF_APP: WeakKeyDictionary[IConstruct, list[_Pipeline]] = WeakKeyDictionary()


def check_sharing(
    pipeline: Construct,
    *,
    pipeline_id: str,
    buckets: TransformBuckets,
    uploads: Uploads,
    captures: Sequence[DataCapture],
) -> None:
    """Refuse a pipeline that gets in the way of those that the app has already.

    One that reads another's predictions is a chain, and welcome. One that scores the same drops is
    warned of: a challenger, or a mistake that doubles the bill.

    :raises ValueError: it would score its own output, also by way of others, replace the
        predictions of another, or has its id.
    """
    own = _described(pipeline, pipeline_id, buckets, uploads, captures)
    if own.feeds(own):
        raise ValueError(
            "what a pipeline writes must not be a drop of its own, got uploads under "
            f"{own.reads.prefix!r} of the bucket that holds its data capture; give the capture "
            "another prefix or bucket, or the pipeline would score its own output"
        )
    others = _OF_APP.setdefault(pipeline.node.root, [])
    for other in others:
        if own.identity == other.identity:
            raise ValueError(
                "pipeline_id must be the only one of its kind in account and region, got "
                f"{pipeline_id!r} for {other.path} and {own.path}; choose another, or leave it out"
            )
        if own.predictions.overlap(other.predictions):
            raise ValueError(
                "pipelines with one output bucket must have inputs of different keys, got "
                f"{other.path} and {own.path} both under {own.reads.prefix!r}; give one of them "
                "another output_bucket or prefix of uploads, or each would replace the other's "
                "predictions"
            )
        if own.reads.overlap(other.reads):
            Annotations.of(pipeline).add_warning_v2(
                SAME_DROPS,
                f"pipelines should take drops of different keys, got {other.path} under "
                f"{other.reads.prefix!r} and {own.path} under {own.reads.prefix!r} of one bucket; "
                "acknowledge this if both are to score them, or give one another prefix of uploads",
            )
    circle = _circle(own, others)
    if circle:
        raise ValueError(
            f"pipelines must not feed each other in a circle, got {' → '.join(circle)}; give one "
            "of them another prefix of uploads or bucket, or they would score their own output for "
            "ever"
        )
    others.append(own)


def _described(
    pipeline: Construct,
    pipeline_id: str,
    buckets: TransformBuckets,
    uploads: Uploads,
    captures: Sequence[DataCapture],
) -> _Pipeline:
    place = place_of(pipeline)
    # Where the stacks of another stage go is not known here, unless they say so.
    unknown = is_token(place.account) or is_token(place.region)
    stage = Stage.of(pipeline)
    where = stage.node.path if unknown and stage is not None else ""
    output = buckets.output_identity
    suffixes = tuple(uploads.suffixes) or ("",)
    # The output of input/a.csv is predictions/input/a.csv.out.
    predictions = _Keys(
        bucket=output,
        prefix=f"{buckets.output_prefix}{uploads.prefix}",
        suffixes=tuple(f"{suffix}.out" for suffix in suffixes),
    )
    writes = [
        predictions,
        _Keys(bucket=output, prefix=f"{REPORTS}{pipeline_id}-", suffixes=(".json",)),
        _Keys(bucket=output, prefix=f"{RUNS}{pipeline_id}-"),
    ]
    writes += [
        _Keys(bucket=bucket_identity(capture.bucket), prefix=capture.prefix) for capture in captures
    ]
    return _Pipeline(
        path=pipeline.node.path,
        identity=(where, place.account, place.region, pipeline_id),
        reads=_Keys(bucket=buckets.input_identity, prefix=uploads.prefix, suffixes=suffixes),
        predictions=predictions,
        writes=tuple(writes),
    )


def _circle(own: _Pipeline, others: list[_Pipeline]) -> list[str]:
    """Return the paths of a way from `own` back to it along what feeds what; none without one."""
    came_from: dict[str, _Pipeline] = {}
    ways = [own]
    while ways:
        feeder = ways.pop()
        if feeder is not own and feeder.feeds(own):
            return list(_way(own, feeder, came_from))
        for other in others:
            if other.path not in came_from and feeder.feeds(other):
                came_from[other.path] = feeder
                ways.append(other)
    return []


def _way(own: _Pipeline, last: _Pipeline, came_from: dict[str, _Pipeline]) -> Iterator[str]:
    way = [own.path, last.path]
    while last is not own:
        last = came_from[last.path]
        way.append(last.path)
    yield from reversed(way)
