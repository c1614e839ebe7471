"""The limits that a model server has of its own, raised to those of the job."""

from dataclasses import replace
from enum import StrEnum

from batch_transform.settings import TransformSettings

# The service's defaults (reference §1.1).
_PAYLOAD_BYTES = 6 * 2**20
_TIMEOUT_S = 600
# The largest number that these servers read; what a reply may have the service does not limit.
_NO_LIMIT = 2**31 - 1


class ModelServer(StrEnum):
    """What serves the model in its container; see `with_server_limits`."""

    TORCH_SERVE = "TorchServe"
    MULTI_MODEL_SERVER = "Multi Model Server"
    GUNICORN = "gunicorn"


_PREFIXES = {ModelServer.TORCH_SERVE: "TS", ModelServer.MULTI_MODEL_SERVER: "MMS"}


def with_server_limits(settings: TransformSettings, server: ModelServer) -> TransformSettings:
    """Return the settings with variables that let the server take as much as the job may send.

    Without them a server answers 413 to payloads above 6.25 MiB, or gives up after 60 s, whatever
    `max_payload` and `model_client` allow. For the images of AWS's frameworks (PyTorch:
    TorchServe; MXNet, Hugging Face: Multi Model Server; scikit-learn, XGBoost: gunicorn). A
    variable that the settings have already stays as it is.

    They are the job's variables, not the model's, so that a change makes no new model.
    """
    client = settings.model_client
    timeout = client.invocations_timeout if client is not None else None
    timeout_s = str(_TIMEOUT_S if timeout is None else int(timeout.to_seconds()))
    limits = {"SAGEMAKER_MODEL_SERVER_TIMEOUT": timeout_s}
    prefix = _PREFIXES.get(server)
    if prefix is not None:
        limits |= {
            f"{prefix}_DEFAULT_RESPONSE_TIMEOUT": timeout_s,
            f"{prefix}_MAX_REQUEST_SIZE": str(_request_bytes(settings)),
            f"{prefix}_MAX_RESPONSE_SIZE": str(_NO_LIMIT),
        }
    return replace(settings, environment=limits | dict(settings.environment))


def _request_bytes(settings: TransformSettings) -> int:
    payload = settings.max_payload
    payload_bytes = _PAYLOAD_BYTES if payload is None else int(payload.to_bytes())
    return payload_bytes or _NO_LIMIT
