"""What a job and an instance of it are told: plain values that travel as JSON."""

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self


@dataclass(frozen=True, kw_only=True, slots=True)
class Container:
    """One model server of the model: a process, a container, or a server that runs already.

    Exactly one of `command`, `image` and `url` is given.

    :param command: a program to run, such as `("/images/churn/serve", "serve")`.
    :param cwd: the folder it runs in.
    :param image: an image that the machine's container engine has, run as `IMAGE serve`.
    :param url: such as `http://127.0.0.1:8080`; neither started nor ended by the job.
    :param model_data_url: a `tar.gz` at an `s3://` or `file://` URI, or a folder at a `file://`
        URI that ends in `/`. An image finds it unpacked at `/opt/ml/model`, which it can only
        read, and a process where `SM_MODEL_DIR` says.
    :param environment: the model's variables; the job's win over them.
    :param name: ContainerHostname, which names the log stream in a pipeline.
    """

    command: tuple[str, ...] = ()
    cwd: str = "."
    image: str | None = None
    url: str | None = None
    model_data_url: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    name: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Readings:
    """What no source tells about the service; the defaults are reference §11's proposals.

    :param slice_end_included: `$[1:4]` is the second to the fifth element, not the fourth.
    :param bytes_in_mb: what MaxPayloadInMB counts: 2**20, or 10**6.
    :param line_feed_in_single_record: a record that is sent alone keeps its line feed.
    :param line_feed_after_last_record: a request of several lines ends with the last one's.
    :param carriage_return_in_record: a CR before the line feed is part of the record.
    :param blank_line_is_record: an empty line is sent, too.
    :param empty_object_fails: an object without a record fails instead of making an empty output.
    :param line_feed_only_where_missing: AssembleWith Line adds none to a reply that ends in one.
    :param retry_5xx: an answer of 500 and above is tried again.
    :param json_escapes_html: `<`, `>` and `&` are written as Go's encoder does, as `\\u003c` …
    :param scalar_as_text: a filter that selects one JSON string writes its text without quotes.
    """

    slice_end_included: bool = False
    bytes_in_mb: int = 2**20
    line_feed_in_single_record: bool = False
    line_feed_after_last_record: bool = True
    carriage_return_in_record: bool = True
    blank_line_is_record: bool = True
    empty_object_fails: bool = False
    line_feed_only_where_missing: bool = False
    retry_5xx: bool = True
    json_escapes_html: bool = False
    scalar_as_text: bool = False

    @property
    def lines_as_they_are(self) -> bool:
        """Whether requests of several lines are just what lies between two places of an object."""
        return (
            self.line_feed_after_last_record
            and self.carriage_return_in_record
            and self.blank_line_is_record
        )

    @property
    def changes_json(self) -> bool:
        """Whether JSON is not written as it was read."""
        return self.json_escapes_html or self.scalar_as_text


@dataclass(frozen=True, kw_only=True, slots=True)
class JobSpec:
    """One transform job.

    :param request: the CreateTransformJob request, as `transform_request.validate` takes it; its
        URIs may also be `file://` ones: local folders and files, with the rules of keys in S3.
    :param containers: one model server, or a pipeline of two and more.
    :param work_dir: an existing folder for scratch files; the job empties what it put there.
    :param s3_endpoint: S3's address; None is AWS's own.
    :param s3_folder: a folder whose sub-folders are buckets, instead of S3.
    :param log_endpoint: where CloudWatch Logs answers.
    :param log_dir: a folder for the logs, in files named as CloudWatch's streams are, with `.log`
        behind; unused with `log_endpoint`. With neither the logs are not kept.
    :param container_engine: the command of docker or podman with its global options, then, after
        the word `run`, options for each run: `("podman", "--runtime", "runc", "run", "--network",
        "host")`. Empty is the first of docker and podman that has the image.
    :param max_instances: how many instances this machine can take; None is its number of CPUs.
    """

    job_name: str
    request: Mapping[str, Any]
    containers: tuple[Container, ...]
    work_dir: str
    s3_endpoint: str | None = None
    s3_folder: str | None = None
    region: str = "us-east-1"
    log_endpoint: str | None = None
    log_dir: str | None = None
    container_engine: tuple[str, ...] = ()
    ping_timeout_s: float = 1800
    server_stop_timeout_s: float = 30
    model_size_limit_bytes: int = 30 * 2**30
    max_instances: int | None = None
    readings: Readings = field(default_factory=Readings)


@dataclass(frozen=True, kw_only=True, slots=True)
class InstanceSpec:
    """One instance of a job: the job and which share of the objects is its own.

    :param started_at: the job's start in seconds since 1970, the same for all its instances.
    :param share: a file that `objects.deal` wrote, with the instance's own objects; without it the
        instance looks them up and takes every `instance_count`th.
    """

    job: JobSpec
    instance_id: str
    instance_index: int
    instance_count: int
    started_at: int
    share: str | None = None

    def write(self, path: Path) -> None:
        """Write what `python -m transform_engine.instance` reads."""
        spec = asdict(self.job)
        spec["model"] = {"containers": spec.pop("containers")}
        spec |= {
            "instance_id": self.instance_id,
            "instance_index": self.instance_index,
            "instance_count": self.instance_count,
            "started_at": self.started_at,
            "share": self.share,
        }
        path.write_text(json.dumps(spec))

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read the spec of an instance.

        :raises TypeError, KeyError: a member is missing or unknown.
        """
        spec = json.loads(path.read_text())
        own = {name: spec.pop(name) for name in ("instance_id", "instance_index", "instance_count")}
        started_at = int(spec.pop("started_at", time.time()))
        share = spec.pop("share", None)
        containers = tuple(
            Container(**{**container, "command": tuple(container.get("command", ()))})
            for container in spec.pop("model")["containers"]
        )
        readings = Readings(**spec.pop("readings", {}))
        spec["container_engine"] = tuple(spec.get("container_engine", ()))
        job = JobSpec(containers=containers, readings=readings, **spec)
        return cls(job=job, started_at=started_at, share=share, **own)
