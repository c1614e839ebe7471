"""A job's request, together with what its container asks for, as the engine uses it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from transform_engine.spec import Readings

Strategy = Literal["MULTI_RECORD", "SINGLE_RECORD"]

_STRATEGIES: Mapping[str, Strategy] = {
    "MULTIRECORD": "MULTI_RECORD",
    "SINGLERECORD": "SINGLE_RECORD",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """How objects become requests, and replies outputs."""

    max_concurrent: int
    max_payload_mb: int
    strategy: Strategy
    content_type: str | None
    accept: str | None
    split: Literal["None", "Line", "RecordIO", "TFRecord"]
    assemble_lines: bool
    gzip: bool
    input_filter: str
    output_filter: str
    join: bool
    inference_id: bool
    timeout_s: float
    max_retries: int
    readings: Readings

    @property
    def limit_bytes(self) -> int | None:
        """The payload's limit; None is no limit: MaxPayloadInMB 0, sent in chunks."""
        return self.max_payload_mb * self.readings.bytes_in_mb or None

    @property
    def single(self) -> bool:
        """Whether each record is a request of its own."""
        return self.strategy == "SINGLE_RECORD"

    @property
    def log_line(self) -> str:
        """What the agent writes to the data-log when it starts."""
        return (
            f"MaxConcurrentTransforms={self.max_concurrent}, "
            f"MaxPayloadInMB={self.max_payload_mb}, BatchStrategy={self.strategy}"
        )


def settings_for(
    request: Mapping[str, Any], offered: Mapping[str, Any], readings: Readings
) -> Settings:
    """Return the effective settings: the job's value, else the container's, else the default.

    :param offered: the container's answer to `/execution-parameters`; malformed parts of it
        count as absent.
    """
    source, output = request["TransformInput"], request["TransformOutput"]
    processing = request.get("DataProcessing") or {}
    client = request.get("ModelClientConfig") or {}
    strategy = _strategy(request.get("BatchStrategy")) or _strategy(offered.get("BatchStrategy"))
    payload = request.get("MaxPayloadInMB")
    if payload is None:
        payload = _count(offered.get("MaxPayloadInMB"), default=6)
    return Settings(
        max_concurrent=request.get("MaxConcurrentTransforms")
        or _count(offered.get("MaxConcurrentTransforms"), default=1)
        or 1,
        max_payload_mb=payload,
        strategy=strategy or "MULTI_RECORD",
        content_type=source.get("ContentType"),
        accept=output.get("Accept"),
        split=source.get("SplitType", "None"),
        assemble_lines=output.get("AssembleWith", "None") == "Line",
        gzip=source.get("CompressionType", "None") == "Gzip",
        input_filter=processing.get("InputFilter", "$"),
        output_filter=processing.get("OutputFilter", "$"),
        join=processing.get("JoinSource", "None") == "Input",
        inference_id=bool((request.get("DataCaptureConfig") or {}).get("GenerateInferenceId")),
        timeout_s=client.get("InvocationsTimeoutInSeconds", 600),
        max_retries=client.get("InvocationsMaxRetries", 3),
        readings=readings,
    )


def container_environment(request: Mapping[str, Any], model: Mapping[str, str]) -> dict[str, str]:
    """Return a container's variables (reference §4): the model's, the job's, the service's."""
    environment = {**model, **(request.get("Environment") or {}), "SAGEMAKER_BATCH": "true"}
    if request.get("MaxPayloadInMB") is not None:
        environment["SAGEMAKER_MAX_PAYLOAD_IN_MB"] = str(request["MaxPayloadInMB"])
    if strategy := _strategy(request.get("BatchStrategy")):
        environment["SAGEMAKER_BATCH_STRATEGY"] = strategy
    # 0 stands for "as the container likes", so the container is not told that it is set.
    if request.get("MaxConcurrentTransforms"):
        environment["SAGEMAKER_MAX_CONCURRENT_TRANSFORMS"] = str(request["MaxConcurrentTransforms"])
    return environment


def _strategy(value: object) -> Strategy | None:
    return _STRATEGIES.get(value.replace("_", "").upper()) if isinstance(value, str) else None


def _count(value: object, *, default: int) -> int:
    whole = isinstance(value, int) and not isinstance(value, bool) and value >= 0
    return value if whole and isinstance(value, int) else default
