"""The instance types that a transform job can have (reference §7.2)."""

import difflib
import re

_SIZES = {
    "m4": "xlarge 2xlarge 4xlarge 10xlarge 16xlarge",
    "c4": "xlarge 2xlarge 4xlarge 8xlarge",
    "p2": "xlarge 8xlarge 16xlarge",
    "p3": "2xlarge 8xlarge 16xlarge",
    "c5": "xlarge 2xlarge 4xlarge 9xlarge 18xlarge",
    "m5": "large xlarge 2xlarge 4xlarge 12xlarge 24xlarge",
    "m6i": "large xlarge 2xlarge 4xlarge 8xlarge 12xlarge 16xlarge 24xlarge 32xlarge",
    "c6i": "large xlarge 2xlarge 4xlarge 8xlarge 12xlarge 16xlarge 24xlarge 32xlarge",
    "r6i": "large xlarge 2xlarge 4xlarge 8xlarge 12xlarge 16xlarge 24xlarge 32xlarge",
    "m7i": "large xlarge 2xlarge 4xlarge 8xlarge 12xlarge 16xlarge 24xlarge 48xlarge",
    "c7i": "large xlarge 2xlarge 4xlarge 8xlarge 12xlarge 16xlarge 24xlarge 48xlarge",
    "r7i": "large xlarge 2xlarge 4xlarge 8xlarge 12xlarge 16xlarge 24xlarge 48xlarge",
    "g4dn": "xlarge 2xlarge 4xlarge 8xlarge 12xlarge 16xlarge",
    "g5": "xlarge 2xlarge 4xlarge 8xlarge 12xlarge 16xlarge 24xlarge 48xlarge",
    "trn1": "2xlarge 32xlarge",
    "inf2": "xlarge 8xlarge 24xlarge 48xlarge",
    "g6": "xlarge 2xlarge 4xlarge 8xlarge 12xlarge 16xlarge 24xlarge 48xlarge",
    "g6e": "xlarge 2xlarge 4xlarge 8xlarge 12xlarge 16xlarge 24xlarge 48xlarge",
}

INSTANCE_TYPES: tuple[str, ...] = tuple(
    f"ml.{family}.{size}" for family, sizes in _SIZES.items() for size in sizes.split()
)

# What else SageMaker has, for training, hosting or notebooks, and not for transform jobs.
_OTHERS = """
c5d c5n c6g c6gd c6gn c6id c6in c7g c7i-flex c8g c8i c8i-flex dl1 g7 g7e inf1 m5d m6g m6gd m6id
m7i-flex m8g m8i m8i-flex p3dn p4d p4de p5 p5e p5en p6-b200 p6-b300 p6e-gb200 r5 r5d r6g r6gd
r6id r7gd r8g r8i r8i-flex t2 t3 trn1n trn2
"""
OTHER_FAMILIES = frozenset(_OTHERS.split())
_TYPE = re.compile(r"ml\.([a-z]+\d+[a-z0-9]*(?:-[a-z0-9]+)?)\.(?:\d*xlarge|large|medium)")

#: Families with local NVMe storage, which AWS encrypts in hardware: no VolumeKmsKeyId there.
LOCAL_STORAGE_FAMILIES = frozenset({"g4dn", "g5", "g6", "g6e", "trn1"})


def has_local_storage(instance_type: str) -> bool:
    """Whether the type keeps its data on local NVMe storage."""
    return instance_type.split(".")[1:2] != [] and (
        instance_type.split(".")[1] in LOCAL_STORAGE_FAMILIES
    )


def may_be_new(instance_type: str) -> bool:
    """Whether it is of a family that AWS may have added since this list was made."""
    match = _TYPE.fullmatch(instance_type)
    return match is not None and match[1] not in _SIZES and match[1] not in OTHER_FAMILIES


def nearest(instance_type: str) -> list[str]:
    """Return the known types that look most like one; the best first, at least one."""
    return difflib.get_close_matches(instance_type, INSTANCE_TYPES, n=4, cutoff=0.7) or [
        "ml.m5.large"
    ]
