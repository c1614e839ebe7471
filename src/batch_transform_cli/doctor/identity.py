"""Whose credentials these are, and whether they are of an account that the app names."""

from collections.abc import Iterator, Sequence

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    NoCredentialsError,
    PartialCredentialsError,
    ProfileNotFound,
    TokenRetrievalError,
)

from batch_transform_cli.doctor.findings import Finding, Place, fail, ok, skipped, warn
from batch_transform_cli.doctor.reader import Absent, NotAllowed, Reader
from batch_transform_cli.outside import told

_TOPIC = "credentials"
_LOG_IN = "log in (aws sso login, aws login), or set AWS_PROFILE or AWS_ACCESS_KEY_ID"
_OLD = ("ExpiredToken", "ExpiredTokenException", "RequestExpired")


def whose(reader: Reader) -> tuple[str, Finding]:
    """Return the account of the credentials, empty if they do not work, and what is to be said."""
    try:
        caller = reader.read("sts", "get_caller_identity")
        return caller["Account"], ok(_TOPIC, f"{caller['Arn']}")
    except (NoCredentialsError, PartialCredentialsError, ProfileNotFound) as error:
        return "", fail(_TOPIC, f"none that are whole: {told(error)}", _LOG_IN)
    except TokenRetrievalError as error:
        return "", fail(_TOPIC, told(error), _LOG_IN)
    except NotAllowed:
        return "", fail(_TOPIC, "refused by sts:GetCallerIdentity", _LOG_IN)
    except (ClientError, Absent) as error:
        old = isinstance(error, ClientError) and error.response["Error"]["Code"] in _OLD
        how = "expired" if old else f"not valid: {told(error)}"
        return "", fail(_TOPIC, how, _LOG_IN)
    except BotoCoreError as error:
        fix = "look whether AWS can be reached from here: a proxy, a VPN, AWS_CA_BUNDLE, the region"
        return "", fail(_TOPIC, f"not looked at: {told(error)}", fix)


def no_profile(error: ProfileNotFound) -> Finding:
    """Say that AWS_PROFILE names none."""
    return fail(_TOPIC, told(error), "aws configure list-profiles shows those that there are")


def region_finding(configured: str | None, regions: Sequence[str | None]) -> Finding:
    """Say whether there is a region, and whether it is one of the app's.

    :param regions: of the app's stacks; `None` where a stack is for any.
    """
    named = sorted({region for region in regions if region is not None})
    if configured is None:
        how = "none set"
        if named and None not in regions:
            fix = f"export AWS_REGION={named[0]}"
            return warn("region", f"{how}; the app's is {', '.join(named)}", fix)
        return fail("region", how, "export AWS_REGION=eu-west-1, or another one")
    if named and None not in regions and configured not in named:
        return warn(
            "region",
            f"{configured} is set, and the app's is {', '.join(named)}: other commands would look "
            "where nothing is",
            f"export AWS_REGION={named[0]}",
        )
    return ok("region", configured)


def other_accounts(account: str, places: Sequence[Place]) -> Iterator[Finding]:
    """Say which of the app's accounts are not looked at with these credentials."""
    others = [place for place in places if place.account != account]
    if others and len(others) == len(places):
        names = ", ".join(sorted({place.account for place in others}))
        yield fail(
            _TOPIC,
            f"of account {account}, and the app's stacks are for {names}",
            "set AWS_PROFILE to a profile of that account",
        )
        return
    for place in others:
        yield skipped(
            _TOPIC,
            f"{place} is another account's",
            "run this again with AWS_PROFILE set to a profile of that account",
        )
