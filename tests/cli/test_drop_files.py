"""Which files a drop takes, under which keys, and what it refuses."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from batch_transform_cli.drop.files import Plan, Watched, plan
from batch_transform_cli.errors import NothingTried

ANY = Watched(prefix="input/")
CSV = Watched(prefix="input/", suffixes=(".csv", ".csv.gz"), marker="_SUCCESS", max_bytes=100)


@pytest.fixture
def tree(tmp_path: Path) -> Callable[..., Path]:
    """Makes files of a few bytes in a folder, which it returns."""

    def make(*names: str) -> Path:
        for name in names:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("1,2\n")
        return tmp_path

    return make


def keys(made: Plan) -> list[str]:
    return [upload.key for upload in made.uploads]


def test_a_file_is_called_by_its_name_and_a_folder_s_by_their_paths_below_it(
    tree: Callable[..., Path],
) -> None:
    home = tree("day/a.csv", "day/eu/b.csv", "c.csv")

    assert keys(plan([home / "day", home / "c.csv"], ANY)) == [
        "input/a.csv",
        "input/eu/b.csv",
        "input/c.csv",
    ]


def test_a_prefix_is_a_folder_of_keys_with_or_without_its_slash(
    tree: Callable[..., Path],
) -> None:
    home = tree("a.csv")

    for prefix in ("input/2026", "input/2026/"):
        assert keys(plan([home], ANY, prefix=prefix)) == ["input/2026/a.csv"]


def test_a_key_is_that_of_the_one_file(tree: Callable[..., Path]) -> None:
    home = tree("a.csv")

    assert keys(plan([home / "a.csv"], ANY, key="input/b.csv")) == ["input/b.csv"]


def test_markers_come_after_all_drops(tree: Callable[..., Path]) -> None:
    home = tree("_SUCCESS", "a.csv", "eu/_SUCCESS", "eu/b.csv")
    (home / "_SUCCESS").write_text("")

    made = plan([home], CSV)

    assert keys(made) == ["input/a.csv", "input/eu/b.csv", "input/_SUCCESS", "input/eu/_SUCCESS"]


def test_a_marker_that_no_file_is_is_made(tree: Callable[..., Path]) -> None:
    made = plan([tree("a.csv")], CSV, prefix="input/eu", marker=True)

    assert keys(made) == ["input/eu/a.csv", "input/eu/_SUCCESS"]
    assert made.markers[0].path is None


def test_what_a_folder_holds_by_the_way_is_left_out_and_told(tree: Callable[..., Path]) -> None:
    home = tree("a.csv", ".DS_Store", ".git/config", "README.md", "empty.csv")
    (home / "empty.csv").write_text("")

    made = plan([home], CSV)

    assert keys(made) == ["input/a.csv"]
    assert made.left_out == {
        str(home / ".DS_Store"): "hidden",
        str(home / ".git" / "config"): "hidden",
        str(home / "README.md"): "its name does not end with '.csv' or '.csv.gz'",
        str(home / "empty.csv"): "empty",
    }


def test_a_link_to_a_folder_is_followed_but_not_in_circles(tree: Callable[..., Path]) -> None:
    home = tree("all/a.csv", "elsewhere/b.csv")
    (home / "all" / "linked").symlink_to(home / "elsewhere")
    (home / "all" / "itself").symlink_to(home / "all")

    assert keys(plan([home / "all"], ANY)) == ["input/a.csv", "input/linked/b.csv"]


def test_a_file_that_is_named_twice_is_sent_once(tree: Callable[..., Path]) -> None:
    home = tree("a.csv")

    assert keys(plan([home / "a.csv", home], ANY)) == ["input/a.csv"]


@pytest.mark.parametrize(
    ("names", "options", "problem"),
    [
        pytest.param(["nope.csv"], {}, "must exist, got No such file or directory at", id="absent"),
        pytest.param(["README.md"], {}, "must end with '.csv' or '.csv.gz'", id="suffix"),
        pytest.param(["big.csv"], {}, "at most 100 B, got 101 B; cut it", id="too large"),
        pytest.param(["empty.csv"], {}, "at least 1 byte, got 0", id="empty"),
        pytest.param(["/dev/null"], {}, "must be a file or a folder, got '/dev/null'", id="device"),
        pytest.param(["x/a.csv", "y/a.csv"], {}, "no two files may have one key", id="one key"),
        pytest.param(["none"], {}, "there must be a file to drop, got none", id="nothing"),
        pytest.param(["x"], {"key": "input/b.csv"}, "--key must name the key of one", id="key"),
        pytest.param(["x/a.csv"], {"key": "b.csv"}, "write 'input/b.csv'", id="key outside"),
        pytest.param(["x"], {"prefix": "2026"}, "write 'input/2026/'", id="prefix outside"),
        pytest.param(
            ["x"], {"prefix": f"input/{'ä' * 455}"}, "at most 918 bytes, got 922", id="long"
        ),
    ],
)
def test_fails_when_a_file_would_not_be_scored(
    names: list[str], options: dict[str, Any], problem: str, tree: Callable[..., Path]
) -> None:
    home = tree("x/a.csv", "y/a.csv", "README.md", "big.csv", "empty.csv")
    (home / "none").mkdir()
    (home / "big.csv").write_text("1" * 101)
    (home / "empty.csv").write_text("")

    with pytest.raises(NothingTried) as refused:
        plan([home / name for name in names], CSV, **options)
    assert problem in str(refused.value)


def test_fails_when_a_marker_is_asked_for_that_batches_do_not_have(
    tree: Callable[..., Path],
) -> None:
    with pytest.raises(NothingTried, match=r"give it batch: {marker: _SUCCESS}"):
        plan([tree("a.csv")], ANY, marker=True)


def test_fails_when_a_name_is_no_text(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"\xff.csv")).write_text("1\n")

    with pytest.raises(NothingTried, match="its name must be UTF-8"):
        plan([tmp_path], ANY)


def test_every_problem_is_told_up_to_ten(tree: Callable[..., Path]) -> None:
    home = tree()

    with pytest.raises(NothingTried) as refused:
        plan([home / f"{number}.csv" for number in range(12)], ANY)
    lines = str(refused.value).splitlines()
    assert len(lines) == 11
    assert lines[-1] == "batch-transform: and 2 problems more; nothing was sent"


def test_a_file_that_was_written_to_has_changed(tree: Callable[..., Path]) -> None:
    home = tree("a.csv")
    (upload,) = plan([home / "a.csv"], ANY).uploads

    assert not upload.has_changed
    (home / "a.csv").write_text("1,2\n3,4\n")
    assert upload.has_changed
