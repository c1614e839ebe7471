"""Loads one part of a run's outputs into the prediction index."""

import logging
import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import boto3
from botocore.config import Config

from transform_lambdas import metrics
from transform_lambdas.parts import lines_in
from transform_lambdas.predictions import (
    RECORD_LIMIT_BYTES,
    Prediction,
    PredictionTable,
    RecordFormat,
    UnreadableRecord,
    record_format,
)
from transform_lambdas.run_files import RunFiles

_AT_ONCE = 8  # ranges of a part, each with its own connections to S3 and DynamoDB
_LOGGED_PROBLEMS = 5  # kinds of problems that a range may have in the log
_DAY_S = 24 * 3600

logger = logging.getLogger(__name__)


class Indexer:
    """Reads ranges of outputs and writes their predictions; doing so twice changes nothing."""

    def __init__(
        self,
        *,
        files: RunFiles,
        table: PredictionTable,
        record_format: RecordFormat,
        retention_days: int | None,
    ) -> None:
        self._files = files
        self._table = table
        self._format = record_format
        self._retention_days = retention_days

    def index(self, run_id: str, part: int) -> dict[str, int]:
        """Index a part of the run and return how many records were, and how many could not be."""
        ranges = self._files.read_index_part(run_id, part)
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            counts = list(pool.map(lambda entry: self._index_range(run_id, entry), ranges))
        return {
            "indexed": sum(written for written, _ in counts),
            "unindexed": sum(unreadable for _, unreadable in counts),
        }

    def _index_range(self, run_id: str, entry: Mapping[str, Any]) -> tuple[int, int]:
        start, end = entry["start"], entry["end"]
        chunks = self._files.chunks(entry["key"], start=max(start - 1, 0))
        problems = Counter[str]()

        def readable() -> Iterator[Prediction]:
            for line in lines_in(chunks, start=start, end=end, longest=RECORD_LIMIT_BYTES):
                if not line:
                    continue
                try:
                    yield self._format.read(line)
                except UnreadableRecord as problem:
                    problems[str(problem)] += 1

        expires_at = None
        if self._retention_days is not None:
            expires_at = int(time.time()) + self._retention_days * _DAY_S
        written = self._table.write(
            readable(),
            dropped_at=entry["dropped_at"],
            source_key=entry["source_key"],
            run_id=run_id,
            expires_at=expires_at,
        )
        for problem, count in problems.most_common(_LOGGED_PROBLEMS):
            logger.warning("%s: records not indexed: %d, %s", entry["key"], count, problem)
        return written, problems.total()


@cache
def _indexer() -> Indexer:
    environment = os.environ
    config = Config(max_pool_connections=_AT_ONCE)
    retention_days = environment["RETENTION_DAYS"]
    return Indexer(
        files=RunFiles(boto3.client("s3", config=config), environment["OUTPUT_BUCKET"]),
        table=PredictionTable(
            boto3.resource("dynamodb", config=config).Table(environment["PREDICTIONS_TABLE"])
        ),
        record_format=record_format(
            environment["RECORD_FORMAT"], environment["RECORD_ID"], environment["RECORD_VALUE"]
        ),
        retention_days=int(retention_days) if retention_days else None,
    )


def handle(event: Mapping[str, Any], context: object) -> dict[str, int]:
    """Lambda entry point: `{"run_id": …, "part": …}`."""
    counts = _indexer().index(event["run_id"], event["part"])
    metrics.emit(
        os.environ["PIPELINE_ID"],
        {"RecordsIndexed": counts["indexed"], "RecordsUnindexed": counts["unindexed"]},
    )
    return counts
