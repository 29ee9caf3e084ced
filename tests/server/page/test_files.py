"""The files of the page: policy, caching, and nothing but themselves."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from whisper.server.page.files import FOLDER, POLICY, files, version

from ..serving import client, error_of, server

MOST_LINES = 400


def test_the_page_has_a_strict_policy() -> None:
    one = client(server(keys=("key",)))  # the page asks for the key, so it opens without one
    answer = one.get("/")
    assert answer.status_code == 200
    assert answer.headers["content-security-policy"] == POLICY
    assert "unsafe" not in POLICY
    assert "http" not in POLICY
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-cache"
    assert one.get("/v1/models").headers["content-security-policy"].startswith("default-src 'none'")
    assert one.get("/", headers={"host": "evil.example"}).status_code == 403


def test_files_have_addresses_that_change_with_them() -> None:
    one = client()
    page = one.get("/").text
    found = re.findall(r'(?:href|src)="([^"]+)"', page)
    assert len(found) == 6
    for address in found:
        answer = one.get(address)
        assert (answer.status_code, answer.headers["cache-control"].split(",")[-1]) == (200, " immutable")
        again = one.get(address, headers={"if-none-match": answer.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
    assert one.get("/favicon.ico").headers["content-type"] == "image/svg+xml"
    assert error_of(one.get("/page/0000/app.js"))["code"] == "not_found"


@pytest.mark.parametrize(
    "name", ["files.py", "__init__.py", "../settings.py", "..%2fsettings.py", "vendor/", "vendor/LICENSE.htm"]
)
def test_nothing_else_is_served(name: str) -> None:
    assert client().get(f"/page/{version()}/{name}").status_code == 404


def test_scripts_load_only_each_other() -> None:
    for name, data in files().items():
        if not name.endswith(".js"):
            continue
        text = data.decode()
        for wanted in re.findall(r'(?:import|export)[^"\';]*?from\s*"([^"]+)"', text):
            base = name.rpartition("/")[0]
            path = "/".join(filter(None, [base, wanted.removeprefix("./")]))
            assert path in files(), (name, wanted)
        if not name.startswith("vendor/"):
            assert not re.search(
                r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|dangerouslySet|\beval\(|new Function", text
            ), name
            assert not re.search(r"https?://(?!www\.w3\.org)", text), name


def test_files_are_short() -> None:
    own = [path for kind in ("*.js", "*.css", "*.html") for path in FOLDER.glob(kind)]
    assert len(own) > 15
    assert {path.name: n for path in own if (n := len(path.read_text("utf-8").splitlines())) > MOST_LINES} == {}


def test_vendored_files_are_those_that_were_fetched() -> None:
    told = json.loads(files()["vendor/versions.json"])
    for package in told.values():
        assert package["licence"] in ("MIT", "Apache-2.0")
        for name, digest in package["files"].items():
            assert hashlib.sha256(files()[f"vendor/{name}"]).hexdigest() == digest
    listed = {name for package in told.values() for name in package["files"]}
    assert {
        name.removeprefix("vendor/") for name in files() if name.startswith("vendor/") and name.endswith(".js")
    } == listed


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
def test_scripts_are_modules_that_parse() -> None:
    for name, data in files().items():
        if name.endswith(".js"):
            command = ["node", "--check", "--input-type=module"]
            done = subprocess.run(command, input=data, capture_output=True, check=False)
            assert done.returncode == 0, (name, done.stderr.decode())


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
@pytest.mark.parametrize("name", ["editing", "sound"])
def test_what_node_can_run(name: str) -> None:
    """Changes of a transcript lose nothing; the microphone's sound is filtered, packed and written as it should be."""
    command = ["node", "--test", str(Path(__file__).with_name(f"{name}.test.mjs"))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:]
