"""The steps of a drop: look what is there, send, follow; what each says when it cannot go on."""

from collections.abc import Mapping

from rich.console import Console

from batch_transform_cli.cloud import Cloud
from batch_transform_cli.drop.files import Plan
from batch_transform_cli.drop.follow import Following
from batch_transform_cli.drop.follow import follow as follow_drops
from batch_transform_cli.drop.upload import Sent, UploadProgress, existing
from batch_transform_cli.drop.upload import send as send_uploads
from batch_transform_cli.errors import CommandError, Interrupted
from batch_transform_cli.job.progress import shown
from batch_transform_cli.outside import AWS_ERRORS, one_line
from batch_transform_cli.pipelines.client import PipelineClient
from batch_transform_cli.pipelines.records import Drop
from batch_transform_cli.screen import can_redraw, counted, printable


def look(cloud: Cloud, client: PipelineClient, plan: Plan) -> dict[str, int | None]:
    """Return the sizes of what has these keys already; `None` for one that cannot be seen."""
    keys = [upload.key for upload in plan.uploads]
    progress = UploadProgress(len(keys), phase="looking")
    try:
        with shown(progress, Console(stderr=True)) as show:
            return existing(cloud.client("s3"), client.input_bucket, keys, progress, show)
    except KeyboardInterrupt:
        raise Interrupted("stopped; nothing was sent") from None


def send(cloud: Cloud, client: PipelineClient, plan: Plan) -> Sent:
    """Send the drops, and when all are there the markers."""
    progress = UploadProgress(len(plan.uploads), plan.size)
    waves = [wave for wave in (plan.drops, plan.markers) if wave]
    with shown(progress, Console(stderr=True)) as show:
        return send_uploads(cloud.client("s3"), client.input_bucket, waves, progress, show)


def problem(plan: Plan, sent: Sent) -> CommandError | None:
    """Return why not all of it is well."""
    arrived = f"{len(sent.versions):,} of {counted(len(plan.uploads), 'file')} arrived"
    if sent.interrupted:
        return Interrupted(f"stopped; {arrived}, and of the others nothing is in the bucket")
    for key, error in sent.problems.items():
        reason = one_line(error) if isinstance(error, AWS_ERRORS) else str(error)
        return CommandError(
            printable(f"{key!r} must be sent, got {reason}; {arrived}, drop the others again")
        )
    changed = [upload for upload in plan.uploads if upload.has_changed]
    if changed:
        return CommandError(
            f"a file must not change while it is sent, got {str(changed[0].path)!r}; "
            "drop it again when it is written"
        )
    return None


def follow(
    client: PipelineClient, plan: Plan, sent: Sent, *, limit_s: float
) -> tuple[dict[str, Drop | None], CommandError | None]:
    """Wait for the drops, and return how they ended and why not all is well."""
    following = Following({upload.key: sent.versions[upload.key] for upload in plan.drops})
    console = Console(stderr=True, highlight=False)

    def say(line: str) -> None:
        if not can_redraw(console):
            console.print(line, soft_wrap=True, markup=False)

    try:
        with shown(following, console) as show:
            follow_drops(following, client, limit_s=limit_s, show=show, say=say)
    except CommandError as late:
        return following.drops, late
    except KeyboardInterrupt:
        return following.drops, Interrupted(
            "stopped; the drops go on without this command, see `batch-transform status`"
        )
    return following.drops, _failure(following.drops)


def _failure(drops: Mapping[str, Drop | None]) -> CommandError | None:
    failed = [drop for drop in drops.values() if drop is not None and drop.failed_at]
    if not failed:
        return None
    return CommandError(
        f"every drop must be scored, got {len(failed)} failed; mend and drop them again, or when "
        "the model was at fault `batch-transform redrive`"
    )


def next_commands(client: PipelineClient, plan: Plan, *, options: str) -> list[str]:
    """Return what to type next.

    :param options: by which another command finds the same pipeline.
    """
    if not client.watched.events:
        prefix = plan.uploads[0].key if len(plan.uploads) == 1 else client.input_prefix
        return [
            f"next: batch-transform backfill {prefix}{options}, for uploads alone start nothing"
        ]
    commands = [f"next: batch-transform status{options}"]
    if client.has_api:
        commands.append(f"      batch-transform lookup ID{options}")
    return commands
