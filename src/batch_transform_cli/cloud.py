"""Where commands look: AWS as the user's environment says, or a local cloud."""

import ipaddress
import os
import re
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import boto3
from botocore.config import Config

from batch_transform_cli.errors import BadValue, CommandError
from batch_transform_cli.outside import AWS_ERRORS

if TYPE_CHECKING:
    from batch_transform_cli.local.project_cloud import ProjectCloud

LOCAL_ACCOUNT = "000000000000"
LOCAL_REGION = "us-east-1"
"""Where a local cloud has what names no account and region."""
AWS = "aws"
"""The endpoint that is none: AWS, whatever else there is."""

_CONNECT_LIMIT_S = 10
_READ_LIMIT_S = 30
_LOCAL_READ_LIMIT_S = 20  # a busy machine's


class Cloud:
    """Where the clients look: AWS as the user's environment says, or one endpoint.

    :param endpoint: of a local cloud, or AWS. Default: what AWS_ENDPOINT_URL says, else the cloud
        that `up` runs for the project of the working directory, which a line on stderr then says,
        else AWS.
    :param place: of a local cloud: account and region. Default: what the environment says, or where
        the project's pipelines are.
    :ivar is_of_project: whether it is the project's, and was not asked for.
    """

    def __init__(
        self, endpoint: str | None = None, *, place: tuple[str, str] | None = None
    ) -> None:
        asked = endpoint or os.environ.get("AWS_ENDPOINT_URL") or None
        found = None if asked else _cloud_of_project()
        self.is_of_project = found is not None
        self.endpoint = found.endpoint if found else None if asked == AWS else asked
        if self.endpoint is not None and not _is_url(self.endpoint):
            raise BadValue(
                f"the endpoint must be a URL such as http://127.0.0.1:4566, or {AWS}, got "
                f"{self.endpoint!r}; copy the one that `batch-transform up` printed"
            )
        if self.endpoint is not None and is_local(self.endpoint):
            # Who is not on this machine now will not be a few retries later.
            self._config = Config(
                connect_timeout=_CONNECT_LIMIT_S,
                read_timeout=_LOCAL_READ_LIMIT_S,
                retries={"total_max_attempts": 2},
            )
            account, region = place or _asked_place()
            if found:
                account, region = found.place(account, region)
                _say_where(found, account, region)
            # A user's own credentials have no business here, and may not even exist.
            self.session = boto3.Session(
                aws_access_key_id=account or LOCAL_ACCOUNT,
                aws_secret_access_key="local",
                region_name=region or LOCAL_REGION,
            )
        else:
            # The AWS CLI reads both variables, boto3 only AWS_DEFAULT_REGION.
            self.session = boto3.Session(region_name=os.environ.get("AWS_REGION") or None)
            self._config = Config(
                connect_timeout=_CONNECT_LIMIT_S,
                read_timeout=_READ_LIMIT_S,
                retries={"mode": "standard", "total_max_attempts": 3},
                # Else its clients would take AWS_ENDPOINT_URL.
                ignore_configured_endpoint_urls=asked == AWS,
            )
        self._lock = threading.Lock()
        self._clients: dict[str, Any] = {}
        self._resources: dict[str, Any] = {}

    @property
    def where(self) -> str:
        """Where it looks, as a person would say it."""
        if self.endpoint is None:
            return f"AWS region {self.session.region_name}"
        if not is_local(self.endpoint):
            return self.endpoint
        account = self.session.get_credentials().access_key
        return (
            f"{self.endpoint} in account {account}, region {self.session.region_name} "
            "(AWS_ACCESS_KEY_ID and AWS_REGION choose)"
        )

    def client(self, service: str) -> Any:
        """Return the client of an AWS service, which threads may share."""
        with self._lock:  # a session is not for several threads at once
            if service not in self._clients:
                self._clients[service] = self._made(self.session.client, service)
            return self._clients[service]

    def client_in(self, service: str, *, account: str, region: str, config: Config) -> Any:
        """Return a new client in another place.

        :param account: which a local cloud knows by the access key; AWS by the credentials.
        :param config: goes before this cloud's own.
        """
        local = self.endpoint is not None and is_local(self.endpoint)
        whose = {"aws_access_key_id": account, "aws_secret_access_key": "local"} if local else {}
        with self._lock:
            return self.session.client(
                service,
                region_name=region or None,
                endpoint_url=self.endpoint,
                config=self._config.merge(config),
                **whose,
            )

    def resource(self, service: str) -> Any:
        """Return the resource of an AWS service; each thread must make what it uses of it."""
        with self._lock:
            if service not in self._resources:
                self._resources[service] = self._made(self.session.resource, service)
            return self._resources[service]

    def _made(self, make: Callable[..., Any], service: str) -> Any:
        try:
            return make(service, endpoint_url=self.endpoint, config=self._config)
        except AWS_ERRORS:
            raise
        except ValueError as error:  # such as AWS_ENDPOINT_URL_SSM that is no URL
            raise CommandError(
                f"the settings of AWS must be usable, got: {error}; correct AWS_ENDPOINT_URL_* and "
                "your AWS configuration"
            ) from error


def _cloud_of_project() -> "ProjectCloud | None":
    if os.name != "posix":
        return None  # There is no local cloud.
    from batch_transform_cli.local.project_cloud import FOLDER, running_cloud

    found = running_cloud(Path.cwd())
    if found is not None and not is_local(found.endpoint):
        raise CommandError(
            f"the local cloud of {found.project} must be on this machine, got {found.endpoint}; "
            f"see who wrote {FOLDER} there, or name --endpoint"
        )
    return found


def _asked_place() -> tuple[str, str]:
    """Return the account and the region that the environment asks of a local cloud, or empty."""
    account = os.environ.get("AWS_ACCESS_KEY_ID", "")
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or ""
    return account if _is_account(account) else "", region


def _say_where(cloud: "ProjectCloud", account: str, region: str) -> None:
    """Let nobody take the project's cloud for AWS."""
    which = (
        f", account {account}, region {region} (AWS_ACCESS_KEY_ID and AWS_REGION choose)"
        if len(cloud.places) > 1
        else ""
    )
    said = f"local cloud at {cloud.endpoint}, of `batch-transform up` in {cloud.project}{which}"
    print(said, file=sys.stderr)


def is_local(url: str) -> bool:
    """Whether a URL is of this machine."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname)
        # The port is read only when asked for.
        return is_address and parts.port != 0 and not re.search(r"[^!-~]", text)
    except ValueError:
        return False


def _is_account(text: str) -> bool:
    return len(text) == 12 and text.isdecimal()
