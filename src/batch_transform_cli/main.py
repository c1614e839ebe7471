"""The command: `batch-transform run`, `validate`, `local up`, and what is asked of pipelines."""

import dataclasses
import json
import shlex
import sys
import tempfile
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console

from batch_transform_cli.errors import CommandError, JobRefused
from batch_transform_cli.run_request import (
    readings_from,
    readings_help,
    request_from,
    with_member_flags,
)
from batch_transform_cli.synthesis import synthesize

# What imports boto3 is imported by the commands that need it: it takes half a second.

commands = typer.Typer(
    help="Drop files in S3, get their predictions, look one up by id.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
local = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
commands.add_typer(local, name="local", help="The same pipelines on this machine.")

Endpoint = Annotated[
    str | None,
    typer.Option(help="URL of a local cloud. Default: AWS_ENDPOINT_URL, else AWS."),
]
Pipeline = Annotated[
    str | None,
    typer.Option(help="Id of the pipeline. Default: the only one that is deployed."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


def app() -> None:
    """Run the command; whatever it cannot do is one line on stderr."""
    try:
        commands()
    except CommandError as error:
        _end(str(error), error.exit_code)
    except Exception as error:
        from batch_transform_cli.pipeline_client import AWS_ERRORS, one_line

        if not isinstance(error, AWS_ERRORS):
            raise
        _end(one_line(error), 1)


@commands.command()
def status(
    pipeline: Pipeline = None,
    endpoint: Endpoint = None,
    newest: Annotated[int, typer.Option(min=1, help="How many drops and runs to show.")] = 20,
    as_json: AsJson = False,
) -> None:
    """Show how far a pipeline is behind, and its drops and runs."""
    from batch_transform_cli.pipeline_client import Cloud, PipelineClient
    from batch_transform_cli.views import overview

    client = PipelineClient.find(Cloud(endpoint), pipeline)
    found = client.status()
    load = client.load(found, now=datetime.now(UTC))
    if as_json:
        told = {"pipeline": client.pipeline_id, "load": dataclasses.asdict(load)}
        print(json.dumps({**told, **dataclasses.asdict(found)}, indent=1))
        return
    outputs = {run.run_id: client.outputs_of(run) for run in found.runs if run.status == "running"}
    console = Console()
    console.print(f"pipeline {client.pipeline_id}", style="bold", highlight=False)
    console.print(overview(found, outputs, load=load, newest=newest))


@commands.command()
def validate(
    files: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="FILES",
            help="Files of pipelines, and one of accounts. Default: pipelines.yaml, with "
            "accounts.yaml beside it if it is there.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check files of pipelines and of accounts, without an account and without a synthesis."""
    from batch_transform_cli.validation import PIPELINES_FILE, validate_files

    found = validate_files(files or [PIPELINES_FILE])
    if as_json:
        print(json.dumps([dataclasses.asdict(problem) for problem in found.problems], indent=1))
    else:
        for sentence in found.valid:
            print(sentence)
        for problem in found.problems:
            print(problem, file=sys.stderr)
    if found.problems:
        sys.exit(1)


@commands.command()
def schema(
    accounts: Annotated[bool, typer.Option("--accounts", help="Of the file of accounts.")] = False,
) -> None:
    """Print the JSON Schema of a file of pipelines, for editors and other programs."""
    from batch_transform.accounts_file import AccountsFile
    from batch_transform.pipelines_file import schema as schema_of

    print(json.dumps(schema_of(AccountsFile if accounts else None), indent=1))


@commands.command()
def lookup(
    record_ids: Annotated[list[str], typer.Argument(metavar="ID...", help="Ids of the records.")],
    pipeline: Pipeline = None,
    endpoint: Endpoint = None,
    as_json: AsJson = False,
) -> None:
    """Print the newest predictions of records: of one as it is, of several after their ids."""
    from batch_transform_cli.pipeline_client import Cloud, PipelineClient

    client = PipelineClient.find(Cloud(endpoint), pipeline)
    if len(record_ids) == 1:
        looked_up = {record_ids[0]: client.lookup(record_ids[0])}
    else:
        looked_up = client.lookup_many(record_ids)
    found = [prediction for prediction in looked_up.values() if prediction is not None]
    if as_json and found:
        told = [dataclasses.asdict(prediction) for prediction in found]
        print(json.dumps(told[0] if len(record_ids) == 1 else told, indent=1))
    elif not as_json:
        for prediction in found:
            before = "" if len(record_ids) == 1 else f"{prediction.record_id}\t"
            print(f"{before}{_plain(prediction.prediction)}")
    missing = [record_id for record_id, prediction in looked_up.items() if prediction is None]
    if missing:
        raise CommandError(
            f"the id must be that of a scored record, got {', '.join(map(repr, missing))}; "
            "see `batch-transform status` for which files are done"
        )


@commands.command()
def backfill(
    prefix: Annotated[
        str | None, typer.Argument(help="Prefix of keys, or one key. Default: all.")
    ] = None,
    pipeline: Pipeline = None,
    endpoint: Endpoint = None,
) -> None:
    """Score what lies in the input bucket already, but for what the pipeline knows."""
    from batch_transform_cli.pipeline_client import Cloud, PipelineClient

    client = PipelineClient.find(Cloud(endpoint), pipeline)
    asked = client.backfill(prefix)
    print(
        f"asked to score what lies under s3://{client.input_bucket}/{asked}; "
        "see `batch-transform status`"
    )


@commands.command()
def redrive(
    pipeline: Pipeline = None,
    endpoint: Endpoint = None,
    since: Annotated[
        str | None,
        typer.Option(
            metavar="WHEN", help="Only what failed since: 2026-03-01T14:00Z, or 30m, 2h, 7d ago."
        ),
    ] = None,
    key: Annotated[
        list[str] | None, typer.Option(metavar="KEY", help="Only drops of this key. Repeatable.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be tried again; change nothing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Try failed drops again, and move dead letters back to their queues, when that is mended.

    Each failed drop that is the newest version of its key waits again as if it had just come, and
    costs a transform job as it did before. Dead letters move if neither --since nor --key is given.
    Nothing is deleted, and doing it twice or stopping it anywhere does no harm.
    """
    from batch_transform_cli.pipeline_client import Cloud, PipelineClient
    from batch_transform_cli.redrive import choose, moment, requests
    from batch_transform_cli.views import redrive_view

    after = None if since is None else moment(since, now=datetime.now(UTC))
    client = PipelineClient.find(Cloud(endpoint), pipeline)
    choice = choose(client.status().drops, since=after, keys=key or ())
    letters = {} if since or key else {queue.what: queue for queue in client.dead_letters()}
    counts = {what: queue.count for what, queue in letters.items()}
    if not dry_run:
        for request in requests(choice.drops):
            client.ask_intake(request)
        counts = {what: client.move_back(queue) for what, queue in letters.items()}
    if as_json:
        told = {
            "pipeline": client.pipeline_id,
            "dry_run": dry_run,
            **dataclasses.asdict(choice),
            "dead_letters": counts,
        }
        print(json.dumps(told, indent=1))
    else:
        Console().print(redrive_view(choice, counts, dry_run=dry_run), highlight=False)


@commands.command()
def logs(
    run_id: Annotated[str, typer.Argument(metavar="RUN", help="Id of the run, from `status`.")],
    pipeline: Pipeline = None,
    endpoint: Endpoint = None,
    newest: Annotated[int, typer.Option(min=1, help="How many lines to show.")] = 50,
) -> None:
    """Print what the model server and the agent said in a run's transform jobs."""
    from batch_transform_cli.pipeline_client import Cloud, PipelineClient

    lines = PipelineClient.find(Cloud(endpoint), pipeline).log_lines(run_id, newest=newest)
    if not lines:
        raise CommandError(
            f"the run must have a transform job that logged something, got none for {run_id!r}; "
            "see `batch-transform status` for the runs"
        )
    print("\n".join(lines))


@commands.command()
@with_member_flags
def run(
    *,
    model: Annotated[
        list[str] | None,
        typer.Option(
            metavar="WHERE", help="Folder of model files, tar.gz, or s3:// URI of one. Repeatable."
        ),
    ] = None,
    image: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FOLDER|IMAGE",
            help="Folder with a program `serve`, or an image of docker or podman. Repeat it, with "
            "--model, for a pipeline of containers.",
        ),
    ] = None,
    model_url: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Of a model server that runs already."),
    ] = None,
    request: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="A CreateTransformJob request in JSON; flags win over it."
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Show what would be read and sent, and what to mend; start nothing."
        ),
    ] = False,
    as_json: AsJson = False,
    log_dir: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Keep the logs of the servers and the agent there."),
    ] = None,
    endpoint: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Of S3. Default: AWS_ENDPOINT_URL, else AWS."),
    ] = None,
    container_engine: Annotated[
        str,
        typer.Option(
            metavar="COMMAND",
            help="docker or podman with its options, and after the word `run` those of each run. "
            "Default: the first that has the image.",
        ),
    ] = "",
    ping_timeout_s: Annotated[
        float | None,
        typer.Option(
            min=1,
            metavar="SECONDS",
            help="How long a model server may take to be ready. Default: 120, and 3 until "
            "--model-url has its port open; 1800 on AWS.",
        ),
    ] = None,
    reading: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help=f"What no source tells about the service. Repeatable. Default: {readings_help()}.",
        ),
    ] = None,
    **members: Any,
) -> None:
    """Run one transform job on this machine; the other flags are CreateTransformJob's members."""
    try:
        from batch_transform_cli import run_job
    except ImportError as error:
        raise _not_installed("the engine", error) from None
    order = run_job.Order(
        request=request_from(request, members),
        models=model or (),
        images=image or (),
        model_url=model_url,
        container_engine=_words("--container-engine", container_engine),
        endpoint=endpoint,
        log_dir=log_dir,
        ping_timeout_s=ping_timeout_s,
        readings=readings_from(reading or ()),
        as_json=as_json,
    )
    try:
        code = run_job.dry_run(order) if dry_run else run_job.run_job(order)
    except KeyboardInterrupt:
        # Before the job has started; then it knows how to stop.
        _end("stopped; nothing had started", run_job.INTERRUPTED)
    raise typer.Exit(code)


@local.command()
def up(
    assembly: Annotated[
        Path | None,
        typer.Option(help="Cloud assembly to deploy. Default: synthesize the app of ./cdk.json."),
    ] = None,
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Port of the cloud. Default: a free one.")
    ] = None,
    state_dir: Annotated[
        Path | None, typer.Option(help="Folder that keeps the cloud's data. Default: none does.")
    ] = None,
    ping_timeout_s: Annotated[
        float,
        typer.Option(min=1, help="How long a model server may take to be ready; 1800 on AWS."),
    ] = 120,
    image: Annotated[
        list[str] | None,
        typer.Option(
            metavar="URI=FOLDER",
            help="Run this folder's `serve` for a model whose image is that URI. Repeatable.",
        ),
    ] = None,
) -> None:
    """Start a cloud on this machine, deploy the app to it, and stay until Ctrl-C."""
    images = [image_folder(text) for text in image or ()]
    try:
        from local_cloud import LocalCloud, LocalCloudError
    except ImportError as error:
        raise _not_installed("the local cloud", error) from None
    try:
        with tempfile.TemporaryDirectory() as folder:
            if assembly is None:
                assembly = Path(folder)
                synthesize(Path.cwd(), assembly)
            with LocalCloud(port=port, state_dir=state_dir, ping_timeout_s=ping_timeout_s) as cloud:
                for uri, directory in images:
                    cloud.images.register(uri, directory)
                outputs = cloud.deploy(assembly)
                print(f"local cloud at {cloud.endpoint} (Ctrl-C ends it)")
                for stack, values in outputs.items():
                    for name, value in values.items():
                        print(f"{stack}.{name} = {value}")
                for line in hints(cloud.endpoint, outputs):
                    print(line, flush=True)
                while True:
                    time.sleep(1)
                    cloud.check()
    except LocalCloudError as error:
        raise CommandError(str(error)) from error
    except KeyboardInterrupt:
        print("stopped; nothing is left running", file=sys.stderr)


def _words(flag: str, text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise JobRefused(
            f"{flag} must be a command as in a shell, got {text!r} ({error}); mend it"
        ) from error


def _not_installed(what: str, error: ImportError) -> CommandError:
    return CommandError(
        f"{what} must be installed, got no module {error.name}; "
        "pip install 'batch-transform[local]'"
    )


def image_folder(text: str) -> tuple[str, Path]:
    """Read an image's URI and the folder that stands for it here.

    :raises CommandError: it is not both.
    """
    uri, equals, folder = text.partition("=")
    if not (uri and equals and folder):
        raise CommandError(
            f"--image must be URI=FOLDER, got {text!r}; name the model's image and the folder "
            "with its `serve`"
        )
    return uri, Path(folder)


def hints(endpoint: str, outputs: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Return the command to try in each account and region that has a pipeline."""
    from batch_transform_cli.pipeline_client import LOCAL_ACCOUNT, LOCAL_REGION

    arns = [value for values in outputs.values() for value in values.values()]
    places = dict.fromkeys(
        (arn.split(":")[4], arn.split(":")[3]) for arn in arns if ":stateMachine:" in arn
    )
    return [
        "try: "
        + (
            ""
            if (account, region) == (LOCAL_ACCOUNT, LOCAL_REGION)
            else f"AWS_ACCESS_KEY_ID={account} AWS_REGION={region} "
        )
        + f"batch-transform status --endpoint {endpoint}"
        for account, region in places
    ]


def _plain(prediction: object) -> str:
    """Return a row as a row, text as text, and all else as JSON."""
    if isinstance(prediction, list) and not any(isinstance(v, list | dict) for v in prediction):
        return ",".join(_plain(value) for value in prediction)
    return prediction if isinstance(prediction, str) else json.dumps(prediction)


def _end(message: str, exit_code: int) -> NoReturn:
    print(f"batch-transform: {message}", file=sys.stderr)
    sys.exit(exit_code)


if __name__ == "__main__":
    app()
