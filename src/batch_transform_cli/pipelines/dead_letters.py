"""Dead letters go back to the queue that gave them up.

A message is sent to the queue before it is deleted among the dead letters. So whoever is
interrupted has some of them in both places, and loses none; their readers take a message twice.
"""

import json
from dataclasses import dataclass
from typing import Any, Self

from batch_transform_cli.errors import CommandError

_AT_ONCE = 10  # the most that SQS receives, sends and deletes
_WAIT_S = 1  # without waiting, SQS asks a part of its servers only and may find nothing


@dataclass(frozen=True, kw_only=True, slots=True)
class DeadLetters:
    """The dead-letter queue of one queue.

    :ivar what: its messages were, in the plural.
    :ivar count: how many it holds, about.
    """

    what: str
    queue_url: str
    url: str
    count: int

    @classmethod
    def of(cls, sqs: Any, queue_url: str, *, what: str) -> Self:
        """Find the dead-letter queue of a queue, which is of the same account and region."""
        policy = _attribute(sqs, queue_url, "RedrivePolicy")
        name = json.loads(policy)["deadLetterTargetArn"].rpartition(":")[2]
        url = f"{queue_url.rpartition('/')[0]}/{name}"
        count = int(_attribute(sqs, url, "ApproximateNumberOfMessages"))
        return cls(what=what, queue_url=queue_url, url=url, count=count)

    def move_back(self, sqs: Any) -> int:
        """Move all messages that are there back to their queue, and return how many.

        :raises CommandError: the queue takes one no more; that one stays.
        """
        moved = 0
        while True:
            letters = sqs.receive_message(
                QueueUrl=self.url, MaxNumberOfMessages=_AT_ONCE, WaitTimeSeconds=_WAIT_S
            ).get("Messages", [])
            if not letters:
                return moved
            sent = sqs.send_message_batch(
                QueueUrl=self.queue_url,
                Entries=[
                    {"Id": str(number), "MessageBody": letter["Body"]}
                    for number, letter in enumerate(letters)
                ],
            )
            there = [entry["Id"] for entry in sent.get("Successful", [])]
            if there:
                sqs.delete_message_batch(
                    QueueUrl=self.url,
                    Entries=[
                        {"Id": number, "ReceiptHandle": letters[int(number)]["ReceiptHandle"]}
                        for number in there
                    ],
                )
            moved += len(there)
            if refused := sent.get("Failed", []):
                raise CommandError(
                    f"{self.queue_url} must take every dead letter of {self.what}, got "
                    f"{refused[0]['Code']}: {refused[0].get('Message', '')} after {moved}; "
                    "the others are still there: run it again"
                )


def _attribute(sqs: Any, url: str, name: str) -> str:
    answer = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=[name])
    return str(answer["Attributes"][name])
