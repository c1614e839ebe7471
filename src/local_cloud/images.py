"""Model images of a cloud that needs no container engine: directories with a program `serve`.

An image is what its URI names. On AWS that is a container in a registry; here it is a copy of the
directory that the container is built from, and its `serve` runs as a process. What is not
registered like that can be an image that the machine's container engine has.
"""

import hashlib
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from local_cloud.errors import ImageRefused

_DESCRIPTION = "image.json"
_CONTENT = "content"


@dataclass(frozen=True, slots=True)
class Image:
    """A registered image."""

    uri: str
    directory: Path

    @property
    def command(self) -> list[str]:
        """The program that serves the model, as `docker run IMAGE serve` would start it."""
        return [str(self.directory / "serve")]

    @property
    def environment(self) -> dict[str, str]:
        """What the program needs of this machine: our interpreter and its packages come first."""
        own = os.path.dirname(sys.executable)
        return {"PATH": os.pathsep.join([own, os.environ.get("PATH", os.defpath)])}


class Images:
    """The images of one cloud, in a directory that several processes may read and write."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def register(self, uri: str, directory: str | os.PathLike[str]) -> Image:
        """Let `uri` name a copy of `directory`, in place of what it named before.

        :raises ImageRefused: the directory has no executable `serve`.
        """
        source = Path(directory)
        check_directory(source)
        self._root.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix=".new-", dir=self._root))
        shutil.copytree(source, fresh / _CONTENT)
        (fresh / _DESCRIPTION).write_text(json.dumps({"uri": uri, "source": str(source)}))
        place = self._place(uri)
        old = fresh.with_name(fresh.name.replace(".new-", ".old-"))
        if place.exists():
            place.rename(old)
        fresh.rename(place)
        shutil.rmtree(old, ignore_errors=True)  # Present only when the URI named another before.
        return Image(uri, place / _CONTENT)

    def alias(self, uri: str, of: str) -> Image:
        """Let `uri` name what `of` names, as `docker tag` does."""
        return self.register(uri, self.find(of).directory)

    def find(self, uri: str) -> Image:
        """Look the image up.

        :raises ImageRefused: nothing is registered under that URI.
        """
        content = self._place(uri) / _CONTENT
        if not content.is_dir():
            raise ImageRefused(
                f"image {uri!r} must be registered with the local cloud, got none of that name; "
                f"register the directory it is built from (a Dockerfile and an executable "
                f"`serve`): cloud.images.register({uri!r}, '<directory>'), or for a command: "
                f"--image {uri}=<directory>"
            )
        return Image(uri, content)

    def __contains__(self, uri: str) -> bool:
        return (self._place(uri) / _CONTENT).is_dir()

    def _place(self, uri: str) -> Path:
        # Readable for a person who looks, unique and safe by the digest.
        name = uri.rpartition("/")[2]
        readable = re.sub(r"[^A-Za-z0-9.]+", "-", name).strip("-.")[:40]
        return self._root / f"{readable}-{hashlib.sha256(uri.encode()).hexdigest()[:16]}"


class ImageSources:
    """Where a model's images are: directories that are registered, then a container engine.

    :param why_not_in_engine: says why the engine cannot run an image, or None when it can.
    """

    def __init__(self, images: Images, why_not_in_engine: Callable[[str], str | None]) -> None:
        self._images = images
        self._why_not_in_engine = why_not_in_engine

    def find(self, uri: str) -> Image | None:
        """Look an image up; None is one that the engine has.

        :raises ImageRefused: neither has it.
        """
        try:
            return self._images.find(uri)
        except ImageRefused as error:
            reason = self._why_not_in_engine(uri)
            if reason is None:
                return None
            raise ImageRefused(f"{error}; or else {reason}") from error


def check_directory(directory: Path) -> None:
    """Refuse a directory whose `serve` could not be started.

    :raises ImageRefused: it is missing or not executable.
    """
    serve = directory / "serve"
    if not serve.is_file():
        raise ImageRefused(
            f"a model image directory must hold a program `serve`, got none in {directory}; "
            "add one that answers GET /ping and POST /invocations"
        )
    if not os.access(serve, os.X_OK):
        raise ImageRefused(
            f"`serve` of a model image must be executable, got {serve} which is not; "
            f"run: chmod +x {serve}"
        )
