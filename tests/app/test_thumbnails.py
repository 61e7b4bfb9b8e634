"""/Thumbnails with the program: a DNG copied into the mount has its preview, which both doors show as an ordinary file."""

from __future__ import annotations

import http.client
import io
import json
import subprocess
import time
from base64 import b64encode
from pathlib import Path

import pytest
from PIL import Image

from archivia_fs.commands import views
from archivia_fs.views.thumbnails.versions import decoder_name
from tests.app.drive import PASSWORD, Drive
from tests.views.pictures import dng, jpeg


def size_of(data: bytes) -> tuple[int, int]:
    return Image.open(io.BytesIO(data)).size


def ask(drive: Drive, method: str, path: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
    link = http.client.HTTPConnection("127.0.0.1", drive.port, timeout=60)
    token = b64encode(f"admin:{PASSWORD}".encode()).decode()
    link.request(method, path, headers={"Authorization": f"Basic {token}", **headers})
    answer = link.getresponse()
    found = answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    link.close()
    return found


def test_in_as_dng_out_as_jpeg(drive: Drive, tmp_path: Path) -> None:
    archive, previews = drive.mount / "Documents/archive", drive.mount / "Thumbnails/archive"
    (archive / "roll").mkdir()
    source = tmp_path / "page.dng"
    source.write_bytes(dng(previews=[jpeg(64, 48), jpeg(1600, 1200)], orientation=6).whole())
    subprocess.run(["rsync", "-a", str(source), f"{archive}/roll/"], check=True, timeout=60)
    (archive / "roll/broken.dng").write_bytes(source.read_bytes()[:500])
    (archive / "roll/notes.txt").write_text("no picture")
    wanted = ["broken.dng.jpg", "page.dng.jpg"]
    deadline = time.monotonic() + 30
    while sorted(each.name for each in (previews / "roll").iterdir()) != wanted:
        assert time.monotonic() < deadline
        time.sleep(0.1)

    data = (previews / "roll/page.dng.jpg").read_bytes()
    assert size_of(data) == (900, 1200)
    assert (previews / "roll/page.dng.jpg").stat().st_size == len(data)
    assert (previews / "roll/page.dng.jpg").stat().st_mtime_ns == source.stat().st_mtime_ns
    assert not (previews / "roll/notes.txt.jpg").exists()

    copy = tmp_path / "copy"
    for expected in ("2", "0"):
        done = subprocess.run(
            ["rsync", "-a", "--stats", f"{previews}/", f"{copy}/"],
            check=True,
            timeout=60,
            capture_output=True,
            text=True,
        )
        files = next(line for line in done.stdout.splitlines() if "files transferred" in line).split(":")[1].strip()
        assert files == expected
    assert (copy / "roll/page.dng.jpg").read_bytes() == data

    path = "/Thumbnails/archive/roll/page.dng.jpg"
    status, headers, body = ask(drive, "GET", path)
    assert (status, body, headers["content-type"]) == (200, data, "image/jpeg")
    tags = {headers["etag"]}
    assert ask(drive, "GET", path, **{"If-None-Match": headers["etag"]})[0] == 304
    assert ask(drive, "GET", path, Range="bytes=2-9")[::2] == (206, data[2:10])
    for side in (256, 512, 1200):
        status, headers, body = ask(drive, "GET", f"{path}?size={side}")
        assert (status, max(size_of(body))) == (200, side)
        status, head, nothing = ask(drive, "HEAD", f"{path}?size={side}")
        assert (status, int(head["content-length"]), nothing) == (200, len(body), b"")
        assert head["etag"] == headers["etag"]
        tags.add(head["etag"])
    assert len(tags) == 3
    assert ask(drive, "GET", f"{path}?size=300")[0] == 400
    assert ask(drive, "PUT", path)[0] == 403

    told = json.loads(drive.run("status", "--json").stdout)
    assert (told["previews"], told["previews_grey"]) == (1, 1)
    (failed,) = told["previews_failed"]
    assert (failed["path"], failed["failure"]) == ("/Documents/archive/roll/broken.dng", "corrupt")
    assert told["raw_decoding"] == "on"
    (line,) = (line for line in drive.run("status").stdout.splitlines() if line.startswith("no preview"))
    assert "broken.dng  corrupt: " in line
    assert f"(1 try with decoder {decoder_name()}; again with another decoder)" in line
    made = drive.run("thumbnails", "/Documents/archive", "--json")
    report = json.loads(made.stdout)
    assert made.returncode == 1
    assert (report["made"], report["there"], report["no_picture"], len(report["problems"])) == (0, 1, 1, 1)
    made = drive.run("thumbnails", "/Documents/archive/roll/page.dng")
    assert (made.returncode, made.stdout) == (0, "0 previews made, 1 were there, 0 files are no pictures.\n")
    assert drive.run("thumbnails", "/Thumbnails/archive").returncode == 2
    assert drive.end() == 0


def test_retry_is_for_what_is_below_the_path(drive: Drive) -> None:
    """And where there is no terminal, lines tell how far it is."""
    archive = drive.mount / "Documents/archive"
    data = jpeg(900, 700)
    for name in ("a", "b"):
        (archive / name).mkdir()
        (archive / name / "half.jpg").write_bytes(data[: 5000 + 100 * len(name)] + name.encode())
    assert drive.run("thumbnails").returncode == 1
    assert attempts(drive) == {"a": 1, "b": 1}
    assert drive.run("thumbnails").returncode == 1
    assert attempts(drive) == {"a": 1, "b": 1}
    made = drive.run("thumbnails", "/Documents/archive/a", "--retry")
    assert made.returncode == 1
    assert "half.jpg  corrupt: " in made.stdout
    assert attempts(drive) == {"a": 2, "b": 1}
    assert drive.end() == 0


def attempts(drive: Drive) -> dict[str, int]:
    told = json.loads(drive.run("status", "--json").stdout)
    return {Path(each["path"]).parent.name: each["attempts"] for each in told["previews_failed"]}


def test_lines_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(views, "TELL_SECONDS", 0.0)
    for quiet, expected in ((False, "1 of 70 files\n2 of 70 files\n"), (True, "")):
        with views._progress(70, quiet=quiet) as tell:
            tell(1)
            tell(2)
        assert capsys.readouterr().err == expected
    monkeypatch.setattr(views, "TELL_SECONDS", 3600.0)
    with views._progress(70, quiet=False) as tell:
        tell(1)
    assert capsys.readouterr().err == ""
