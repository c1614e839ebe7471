import os
import subprocess
import sys
from pathlib import Path

import pytest

from local_cloud import ImageRefused, Images

URI = "000000000000.dkr.ecr.us-east-1.amazonaws.com/cdk/assets:0a1b"


@pytest.fixture
def images(tmp_path: Path) -> Images:
    return Images(tmp_path / "images")


def test_an_image_is_a_copy_of_its_directory(
    images: Images, image_dir: Path, tmp_path: Path
) -> None:
    image = images.register(URI, image_dir)

    assert images.find(URI) == image
    assert image.directory.is_relative_to(tmp_path / "images")
    assert image.command == [str(image.directory / "serve")]
    assert os.access(image.command[0], os.X_OK)


@pytest.mark.parametrize(
    "uri",
    [
        pytest.param("../../escape", id="a path upwards"),
        pytest.param("/etc/passwd", id="an absolute path"),
        pytest.param("a" * 500, id="a long name"),
        pytest.param("..", id="dots"),
    ],
)
def test_no_uri_names_a_place_outside_the_registry(
    images: Images, image_dir: Path, tmp_path: Path, uri: str
) -> None:
    image = images.register(uri, image_dir)
    assert image.directory.resolve().is_relative_to(tmp_path / "images")
    assert uri in images


def test_names_that_look_alike_stay_apart(images: Images, image_dir: Path) -> None:
    one, other = images.register("a/b:1", image_dir), images.register("a/b-1", image_dir)
    assert one.directory != other.directory


def test_a_name_can_be_given_anew(images: Images, image_dir: Path, tmp_path: Path) -> None:
    newer = tmp_path / "newer"
    newer.mkdir()
    (newer / "serve").write_text("#!/bin/sh\n")
    (newer / "serve").chmod(0o755)
    images.register(URI, image_dir)
    image = images.register(URI, newer)

    assert Path(image.command[0]).read_text() == "#!/bin/sh\n"
    assert not (image.directory / "Dockerfile").exists()
    assert len(list((tmp_path / "images").iterdir())) == 1


def test_an_alias_names_the_same_content(images: Images, image_dir: Path) -> None:
    images.register("local", image_dir)
    images.alias(URI, of="local")
    assert Path(images.find(URI).command[0]).read_text() == (image_dir / "serve").read_text()


def test_its_programs_find_the_interpreter_that_has_our_packages(
    images: Images, image_dir: Path
) -> None:
    environment = images.register(URI, image_dir).environment
    found = subprocess.run(
        ["/usr/bin/env", "python3", "-c", "import boto3, sys; print(sys.prefix)"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.strip() == sys.prefix


def test_fails_when_no_image_has_that_name(images: Images) -> None:
    with pytest.raises(ImageRefused, match="got none of that name; register the directory"):
        images.find(URI)


def test_fails_when_the_directory_has_no_serve(images: Images, tmp_path: Path) -> None:
    with pytest.raises(ImageRefused, match=r"must hold a program `serve`.*add one"):
        images.register(URI, tmp_path)


def test_fails_when_serve_is_not_executable(images: Images, tmp_path: Path) -> None:
    (tmp_path / "serve").write_text("#!/bin/sh\n")
    with pytest.raises(ImageRefused, match=r"must be executable.*run: chmod \+x"):
        images.register(URI, tmp_path)
