"""What SageMaker answers to a call that it does not accept."""

MODELLED = ("ResourceInUse", "ResourceLimitExceeded", "ResourceNotFound")
"""The error codes that SageMaker's API describes; Step Functions names them by their own class."""


class Refusal(Exception):
    """A refused call: the error's code as the API writes it, and the message."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def invalid(message: str) -> Refusal:
    """Refuse what is not valid; SageMaker does not model this error (reference §1)."""
    return Refusal("ValidationException", message)


def must_be_in_s3(uri: str) -> None:
    """Refuse the address of an object that is not the local cloud's."""
    if not uri.startswith("s3://"):
        raise invalid(
            f"a place in the local cloud's S3 must be an s3:// URI, got {uri}; "
            "write s3://bucket/key"
        )
