"""What lay in the bucket and no event told of, scored once: on the local cloud."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from local_cloud import LocalCloud

from .conftest import Pipeline, eventually


@contextmanager
def silent(pipeline: Pipeline) -> Iterator[None]:
    """Let the input bucket tell nobody of uploads meanwhile."""
    bucket = pipeline.client.input_bucket
    told = pipeline.s3.get_bucket_notification_configuration(Bucket=bucket)
    told.pop("ResponseMetadata")
    assert told
    configure = pipeline.s3.put_bucket_notification_configuration
    configure(Bucket=bucket, NotificationConfiguration={})
    try:
        yield
    finally:
        configure(Bucket=bucket, NotificationConfiguration=told)


def test_what_no_event_told_of_is_scored_once_however_often_a_backfill_is_asked_for(
    cloud: LocalCloud, pipeline: Pipeline, build: Path
) -> None:
    first, second = sorted((build / "drops").iterdir())[:2]
    with silent(pipeline):
        untold = pipeline.drop("backfill/untold.csv", first.read_bytes())
    told = pipeline.drop("backfill/told.csv", second.read_bytes())
    pipeline.wait(told)
    assert pipeline.versions(untold) == []

    def messages_left() -> int:
        names = [
            "ApproximateNumberOfMessages",
            "ApproximateNumberOfMessagesNotVisible",
        ]
        found = cloud.client("sqs").get_queue_attributes(
            QueueUrl=pipeline.client.intake_queue_url, AttributeNames=names
        )
        return sum(int(found["Attributes"][name]) for name in names)

    for _ in range(2):
        pipeline.client.backfill("input/backfill/")
        eventually(messages_left, lambda left: left == 0)
        pipeline.wait(untold)

    scored = [pipeline.versions(key) for key in (untold, told)]
    assert [[drop.status for drop in versions] for versions in scored] == [["done"], ["done"]]
    assert pipeline.output(untold).count(b"\n") == first.read_bytes().count(b"\n")
