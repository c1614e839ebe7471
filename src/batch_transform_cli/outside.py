"""What the world outside can do to a command, in one line that says what to do.

An exception that is none of these is a mistake of ours, and keeps its traceback.
"""

from collections.abc import Callable

from botocore import exceptions
from botocore.parsers import ResponseParserError

AWS_ERRORS = (exceptions.BotoCoreError, exceptions.ClientError, ResponseParserError)
"""What any call of a boto3 client can raise."""

_NO_ANSWER = "a cloud must answer as AWS does, got something else; check --endpoint and proxies"
_LOG_IN_AGAIN = {
    "ExpiredToken",
    "ExpiredTokenException",
    "InvalidAccessKeyId",
    "InvalidClientTokenId",
    "RequestExpired",
    "SignatureDoesNotMatch",
    "UnrecognizedClientException",
}


def explained(error: Exception) -> str | None:
    """Return one line for an error of the world outside; None for one of ours."""
    if isinstance(error, AWS_ERRORS):
        return one_line(error)
    if _raised_by(error) == "botocore.parsers":
        return _NO_ANSWER
    if isinstance(error, OSError):
        return _of_the_machine(error)
    if isinstance(error, UnicodeError):
        return f"names and text must be UTF-8, got {error}; rename it, or save it again"
    if isinstance(error, RecursionError):
        return "a file must be nested less deep, got one without end; flatten it"
    return None


def one_line(error: Exception) -> str:
    """Say in one line what an AWS call could not do, and what to do."""
    say = next((say for kind, say in _WORDS if isinstance(error, kind)), told)
    return " ".join(say(error).split())


def told(error: Exception) -> str:
    """Say in one line what an AWS call could not do, for who knows better what to do."""
    if isinstance(error, exceptions.ClientError):
        details = error.response["Error"]
        code, said = details.get("Code", "nothing"), details.get("Message", "")
        return " ".join(f"{error.operation_name} must be allowed, got {code}: {said}".split())
    return " ".join(str(error).split())


def _raised_by(error: Exception) -> str:
    """Return the name of the module that it comes from."""
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    return "" if place is None else str(place.tb_frame.f_globals.get("__name__"))


def _unreachable(error: Exception) -> str:
    url = str(getattr(error, "kwargs", {}).get("endpoint_url", ""))
    late = isinstance(error, exceptions.ReadTimeoutError | exceptions.ConnectTimeoutError)
    got = "no answer in time" if late else "no connection"
    is_aws = "amazonaws.com" in url
    remedy = "check the network, proxies and the region" if is_aws else "is it running?"
    return f"a cloud must answer at {url}, got {got}; {remedy}"


def _of_the_machine(error: OSError) -> str:
    where = f" for {error.filename!r}" if error.filename is not None else ""
    return (
        f"the machine must do what is asked of it, got {error.strerror or error}{where}; "
        "see that it is there, that you may, and that there is room"
    )


def _refused(error: Exception) -> str:
    code = getattr(error, "response", {})["Error"].get("Code")
    return told(error) + ("; log in again" if code in _LOG_IN_AGAIN else "")


_WORDS: list[tuple[type[Exception], Callable[[Exception], str]]] = [
    (exceptions.ClientError, _refused),
    (exceptions.EndpointConnectionError, _unreachable),
    (exceptions.ConnectTimeoutError, _unreachable),
    (exceptions.ReadTimeoutError, _unreachable),
    (
        exceptions.NoRegionError,
        lambda _: "a region must be named, got none; set AWS_REGION, or name --endpoint",
    ),
    (
        exceptions.InvalidRegionError,
        lambda error: f"the region must be one of AWS, got {error}; correct AWS_REGION",
    ),
    (
        exceptions.NoCredentialsError,
        lambda _: (
            "AWS credentials must be there, got none; log in, set AWS_PROFILE, or name --endpoint"
        ),
    ),
    (
        exceptions.ProfileNotFound,
        lambda error: (
            f"the profile must be in your AWS configuration, got none: {error}; correct AWS_PROFILE"
        ),
    ),
    (
        exceptions.ConfigParseError,
        lambda error: (
            f"the AWS configuration must be readable, got: {error}; mend it, or set AWS_CONFIG_FILE"
        ),
    ),
    (ResponseParserError, lambda _: _NO_ANSWER),
    (
        exceptions.HTTPClientError,
        lambda error: (
            f"a cloud must answer as AWS does, got: {error}; check --endpoint and proxies"
        ),
    ),
]
