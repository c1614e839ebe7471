"""A local cloud in which much goes wrong; adversity.py says what."""

from pathlib import Path

from .adversity import Adversity


def test_every_drop_ends_once_with_its_own_output_whatever_goes_wrong(tmp_path: Path) -> None:
    adversity = Adversity(tmp_path, drops=200, seed=1, limit_s=270)

    adversity.run()

    assert {*adversity.done} == {
        "abort",
        "kill dispatch",
        "kill index",
        "kill instance",
        "kill intake",
        "kill settle",
        "restart",
        "tell twice",
    }
