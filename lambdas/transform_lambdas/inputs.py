"""The objects that drops are versions of."""

from botocore.exceptions import ClientError

from transform_lambdas.drops import Drop
from transform_lambdas.objects import Objects


class Inputs(Objects):
    """Tells whether drops are still what their keys hold: a job reads keys, not versions."""

    def is_overtaken(self, drop: Drop) -> bool:
        """Whether the key holds another version, so that nobody knows which one a job has read.

        Versions only follow each other: if the drop's is there after the job, the job has read it.
        A key that holds none any more was not overwritten, but removed.
        """
        try:
            head = self._s3.head_object(Bucket=self.bucket, Key=drop.key)
        except ClientError as error:
            if error.response["Error"]["Code"] == "404":
                return False
            raise
        if drop.version_id:
            return bool(head.get("VersionId") != drop.version_id)
        return bool(head["ETag"].strip('"') != drop.etag)
