"""Answers of AWS for what moto does not have, held to the shapes of botocore's own models."""

import functools
import threading
from collections.abc import Mapping
from typing import Any

import boto3
from botocore import xform_name
from botocore.awsrequest import AWSResponse
from botocore.exceptions import ClientError
from botocore.validate import ParamValidator

from batch_transform_cli.doctor.findings import Place

Answer = Mapping[str, Any] | str
"""A document, or the code of an error."""


@functools.cache
def _client(service: str, region: str) -> Any:
    return boto3.client(service, region_name=region)  # It takes longer than all its calls.


class Answers:
    """Makes clients that ask moto, but for the operations that are answered here.

    :ivar asked: every operation that was called, answered here or not, with its requests' bodies.
    """

    def __init__(self, answers: Mapping[str, Answer]) -> None:
        self.asked: dict[str, list[str]] = {}
        self._answers = dict(answers)
        self._lock = threading.Lock()
        self._heard: set[Any] = set()

    def __call__(self, service: str, place: Place) -> Any:
        """Return a client, which is no longer of the answers before these."""
        client = _client(service, place.region)
        with self._lock:
            if client not in self._heard:
                hear, event = functools.partial(self._hear, service), f"before-call.{service}"
                client.meta.events.unregister(event, unique_id="answers")
                client.meta.events.register(event, hear, unique_id="answers")
                self._heard.add(client)
        return client

    def _hear(self, service: str, *, model: Any, params: Any, **event: Any) -> Any:
        name = f"{service}.{xform_name(model.name)}"
        self.asked.setdefault(name, []).append(str(params["body"]))
        answer = self._answers.get(name)
        if answer is None:
            return None
        if isinstance(answer, str):
            raise ClientError({"Error": {"Code": answer, "Message": answer}}, model.name)
        report = ParamValidator().validate(answer, model.output_shape)
        assert not report.has_errors(), report.generate_report()
        return AWSResponse("", 200, {}, None), answer
