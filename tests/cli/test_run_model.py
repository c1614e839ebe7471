import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from batch_transform_cli.errors import JobRefused
from batch_transform_cli.job.model import containers
from transform_engine.ports import free_port
from transform_engine.spec import Container


def chosen(**options: Any) -> tuple[Container, ...]:
    nothing: dict[str, Any] = {
        "models": (),
        "images": (),
        "url": None,
        "container_engine": (),
        "port_limit_s": 0.2,
    }
    return containers(**(nothing | options))


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Puts a container engine on PATH that is a script, and nothing else."""
    monkeypatch.setenv("PATH", str(tmp_path))

    def put(name: str, script: str) -> None:
        path = tmp_path / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    return put


def test_a_folder_runs_its_serve_with_the_model_beside_it(
    image: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = image()
    (tmp_path / "a model").mkdir()
    monkeypatch.chdir(tmp_path)

    (container,) = chosen(models=["a model"], images=["image"])

    assert container.command == (str(home / "serve"),)
    assert container.cwd == str(home)
    assert container.model_data_url == f"file://{tmp_path}/a%20model/"


def test_pairs_make_a_pipeline_in_which_an_image_may_have_no_model(
    image: Callable[..., Path], tmp_path: Path
) -> None:
    first, second = image(name="first"), image(name="second")
    archive = tmp_path / "model.tar.gz"
    archive.touch()

    pipeline = chosen(models=["", str(archive)], images=[str(first), str(second)])

    assert [each.cwd for each in pipeline] == [str(first), str(second)]
    assert [each.model_data_url for each in pipeline] == [None, f"file://{archive}"]


def test_an_image_must_be_in_an_engine_before_anything_starts(
    engine: Callable[[str, str], None],
) -> None:
    engine("podman", 'echo \'[{"Config": {}}]\'; [ "$3" = churn:7 ]')

    (container,) = chosen(images=["churn:7"], models=["s3://bkt/model.tar.gz"])

    assert (container.image, container.model_data_url) == ("churn:7", "s3://bkt/model.tar.gz")
    with pytest.raises(JobRefused, match="got 'churn:8', which is no folder; the container engine"):
        chosen(images=["churn:8"])


def test_the_engine_that_is_named_is_asked_with_its_options(
    engine: Callable[[str, str], None], tmp_path: Path
) -> None:
    engine("podman", 'echo "[{}]"; [ "$1 $2 $3" = "--runtime runc image" ]')
    named = (str(tmp_path / "podman"), "--runtime", "runc", "run", "--network", "host")
    (container,) = chosen(images=["churn:7"], container_engine=named)
    assert container.image == "churn:7"


def test_fails_when_there_is_no_engine(engine: Callable[[str, str], None]) -> None:
    with pytest.raises(JobRefused, match="which is no folder; a container engine must be there"):
        chosen(images=["churn:7"])


def test_fails_when_the_folder_has_no_serve_that_can_run(
    image: Callable[..., Path], tmp_path: Path
) -> None:
    with pytest.raises(JobRefused, match=f"must hold a program `serve`, got none in {tmp_path}"):
        chosen(images=[f"{tmp_path}/"])
    (image() / "serve").chmod(0o644)
    with pytest.raises(JobRefused, match="must be executable"):
        chosen(images=[str(tmp_path / "image")])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        pytest.param({}, "got neither --image nor --model-url", id="nothing"),
        pytest.param({"models": ["m"]}, "got neither --image nor --model-url", id="model only"),
        pytest.param({"url": "http://127.0.0.1:9", "images": ["x"]}, "got both", id="both"),
        pytest.param(
            {"images": ["a", "b"], "models": ["m"]}, "once for each --image, got 1 and 2", id="pair"
        ),
        pytest.param({"url": "127.0.0.1:8080"}, "must be http://HOST:PORT", id="no scheme"),
        pytest.param({"url": "https://a:1"}, "must be http://HOST:PORT", id="https"),
        pytest.param({"url": "http://[::1"}, "must be http://HOST:PORT", id="bracket"),
        pytest.param({"url": "http://a:99999"}, "must be http://HOST:PORT", id="port"),
    ],
)
def test_fails_when_it_is_not_clear_which_server(options: dict[str, Any], message: str) -> None:
    with pytest.raises(JobRefused, match=message):
        chosen(**options)


def test_fails_when_the_model_is_not_there(image: Callable[..., Path]) -> None:
    home = image()
    with pytest.raises(
        JobRefused, match=r"must be a folder of model files or a tar.gz, got 'none'"
    ):
        chosen(images=[str(home)], models=["none"])


def test_fails_within_its_limit_when_nothing_listens_at_the_url() -> None:
    begun = time.monotonic()
    with pytest.raises(JobRefused, match=r"a model server must listen at http://127.0.0.1:9, got"):
        chosen(url="http://127.0.0.1:9")
    assert time.monotonic() - begun < 2


def test_a_server_may_open_its_port_a_little_later() -> None:
    port = free_port()
    listening: list[socket.socket] = []
    late = threading.Timer(0.3, lambda: listening.append(socket.create_server(("127.0.0.1", port))))
    late.start()
    try:
        url = f"http://127.0.0.1:{port}"
        assert chosen(url=url, port_limit_s=10) == (Container(url=url),)
    finally:
        late.join()
        for each in listening:
            each.close()
