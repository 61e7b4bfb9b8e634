"""PROPFIND and PROPPATCH: live properties, dead ones, and their other spelling on the mount."""

from __future__ import annotations

from xml.etree.ElementTree import Element, tostring

import pytest

from archivia_fs.types import Caller
from tests.webdav.conftest import Answer, Client
from tests.webdav.toy import ToyVfs
from webdav.properties import clark_of, decode, key_of

ME = Caller("alice", 0, 0)
FILE = "/Documents/a.dng"
DC = "{http://purl.org/dc/elements/1.1/}"


def ask(dav: Client, *names: str, path: str = FILE) -> Answer:
    prop = Element("{DAV:}prop")
    prop.extend(Element(name) for name in names)
    body = Element("{DAV:}propfind")
    body.append(prop)
    return dav("PROPFIND", path, tostring(body), Depth="0")


def patch(dav: Client, content: str, path: str = FILE) -> Answer:
    names = 'xmlns:D="DAV:" xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:x="urn:x"'
    body = f"<D:propertyupdate {names}>{content}</D:propertyupdate>"
    return dav("PROPPATCH", path, body.encode())


def statuses(answer: Answer) -> dict[str, str]:
    assert answer.status == 207, answer
    found = {}
    for propstat in answer.xml.iter("{DAV:}propstat"):
        for element in propstat.find("{DAV:}prop") or ():
            found[element.tag] = (propstat.findtext("{DAV:}status") or "").split()[1]
    return found


@pytest.fixture(autouse=True)
def ino(dav: Client, vfs: ToyVfs) -> int:
    dav.put(FILE, b"data")
    return vfs.resolve(ME, FILE).ino


def test_live_properties_of_a_file(dav: Client) -> None:
    head = dav("HEAD", FILE).headers
    answer = dav("PROPFIND", FILE, Depth="0")
    assert answer.hrefs() == [FILE]
    for name, header in {
        "getcontentlength": "Content-Length",
        "getetag": "ETag",
        "getlastmodified": "Last-Modified",
    }.items():
        assert answer.prop(f"{{DAV:}}{name}").text == head[header]  # type: ignore[union-attr]
    assert answer.prop("{DAV:}getcontenttype").text == "image/x-adobe-dng"  # type: ignore[union-attr]
    assert len(answer.prop("{DAV:}resourcetype")) == 0  # type: ignore[arg-type]
    assert answer.prop("{DAV:}quota-available-bytes") is None  # RFC 4331: not in allprop


def test_live_properties_of_a_folder(dav: Client) -> None:
    answer = dav("PROPFIND", "/Documents", Depth="1")
    assert answer.hrefs() == ["/Documents/", FILE]
    assert answer.prop("{DAV:}resourcetype/{DAV:}collection") is not None
    assert answer.prop("{DAV:}getetag") is None
    assert answer.prop("{DAV:}getcontentlength") is None


def test_quota(dav: Client) -> None:
    answer = ask(dav, "{DAV:}quota-available-bytes", "{DAV:}quota-used-bytes", path="/Documents/")
    assert answer.prop("{DAV:}quota-available-bytes").text == str(2**39)  # type: ignore[union-attr]
    assert answer.prop("{DAV:}quota-used-bytes").text == str(2**39)  # type: ignore[union-attr]


def test_named_unknown_and_propname(dav: Client) -> None:
    assert statuses(ask(dav, "{DAV:}getetag", "{DAV:}nonsense", "{urn:x}no", "nothing")) == {
        "{DAV:}getetag": "200",
        "{DAV:}nonsense": "404",
        "{urn:x}no": "404",
        "nothing": "404",
    }
    patch(dav, "<D:set><D:prop><x:y>1</x:y></D:prop></D:set>")
    answer = dav("PROPFIND", FILE, b'<propfind xmlns="DAV:"><propname/></propfind>', Depth="0")
    assert {"{urn:x}y", "{DAV:}getetag"} <= statuses(answer).keys()
    assert answer.prop("{urn:x}y").text is None  # type: ignore[union-attr]
    body = b'<propfind xmlns="DAV:"><allprop/><include><quota-used-bytes/></include></propfind>'
    assert statuses(dav("PROPFIND", "/Documents", body, Depth="0"))["{DAV:}quota-used-bytes"] == "200"


@pytest.mark.parametrize(
    "body", [b"<x", b"<x/>", b'<propfind xmlns="DAV:"/>', b'<propfind xmlns="DAV:"><prop/><allprop/></propfind>']
)
def test_malformed_bodies(dav: Client, body: bytes) -> None:
    assert dav("PROPFIND", FILE, body, Depth="0").status == 400


def test_entities_are_refused(dav: Client) -> None:
    bomb = b'<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa">]><D:propfind xmlns:D="DAV:"><D:prop><x>&a;</x></D:prop></D:propfind>'
    assert dav("PROPFIND", FILE, bomb, Depth="0").status == 400


def test_large_xml_is_refused(dav: Client) -> None:
    assert dav("PROPFIND", FILE, b" " * 1_100_000, Depth="0").status == 413


def test_chunked_xml(dav: Client) -> None:
    body = iter([b'<propfind xmlns="DAV:"><prop>', b"<getetag/></prop></propfind>"])
    assert statuses(dav("PROPFIND", FILE, body, Depth="0")) == {"{DAV:}getetag": "200"}


def test_dublin_core_is_the_xattr_of_the_mount(dav: Client, vfs: ToyVfs, ino: int) -> None:
    assert statuses(patch(dav, "<D:set><D:prop><dc:title>Brücke &amp; Fluß 🦉</dc:title></D:prop></D:set>")) == {
        f"{DC}title": "200"
    }
    assert vfs.properties(ino) == {"user.dc.title": "Brücke & Fluß 🦉".encode()}  # type: ignore[arg-type]
    assert ask(dav, f"{DC}title").prop(f"{DC}title").text == "Brücke & Fluß 🦉"  # type: ignore[union-attr]
    vfs.set_properties(ME, ino, {"user.dc.creator": b"<b>Anna</b>", "user.note": b"n"})  # type: ignore[arg-type]
    answer = dav("PROPFIND", FILE, Depth="0")
    assert answer.prop(f"{DC}creator").text == "<b>Anna</b>"  # type: ignore[union-attr]
    assert answer.prop("{archivia-fs:xattr}note").text == "n"  # type: ignore[union-attr]


def test_xml_values_keep_their_xml(dav: Client, vfs: ToyVfs, ino: int) -> None:
    patch(dav, '<D:set><D:prop><x:y xml:lang="de"><x:z a="1">text</x:z> tail</x:y></D:prop></D:set>')
    value = ask(dav, "{urn:x}y").prop("{urn:x}y")
    assert value is not None
    assert value.attrib == {"{http://www.w3.org/XML/1998/namespace}lang": "de"}
    assert (value[0].tag, value[0].attrib, value[0].text, value[0].tail) == ("{urn:x}z", {"a": "1"}, "text", " tail")
    assert list(vfs.properties(ino)) == ["{urn:x}y"]  # type: ignore[arg-type]


def test_remove_and_order(dav: Client, vfs: ToyVfs, ino: int) -> None:
    patch(dav, "<D:set><D:prop><x:y>1</x:y></D:prop></D:set>")
    answer = patch(
        dav, "<D:remove><D:prop><x:y/><x:none/></D:prop></D:remove><D:set><D:prop><x:z>2</x:z></D:prop></D:set>"
    )
    assert set(statuses(answer).values()) == {"200"}
    assert vfs.properties(ino) == {"{urn:x}z": b"2"}  # type: ignore[arg-type]
    patch(dav, "<D:set><D:prop><x:z>3</x:z></D:prop></D:set><D:remove><D:prop><x:z/></D:prop></D:remove>")
    assert vfs.properties(ino) == {}  # type: ignore[arg-type]


def test_all_or_nothing(dav: Client, vfs: ToyVfs, ino: int) -> None:
    answer = patch(dav, "<D:set><D:prop><x:y>1</x:y><D:getetag>fake</D:getetag></D:prop></D:set>")
    assert statuses(answer) == {"{urn:x}y": "424", "{DAV:}getetag": "403"}
    assert vfs.properties(ino) == {}  # type: ignore[arg-type]


def test_times_as_clients_set_them(dav: Client) -> None:
    windows = '<D:set><D:prop><Z:{} xmlns:Z="urn:schemas-microsoft-com:">{}</Z:{}></D:prop></D:set>'
    name = "Win32LastModifiedTime"
    moment = "Sun, 09 Sep 2001 01:46:40 GMT"
    assert set(statuses(patch(dav, windows.format(name, moment, name))).values()) == {"200"}
    assert dav("HEAD", FILE).headers["Last-Modified"] == moment
    patch(dav, "<D:set><D:prop><D:getlastmodified>2001-09-09T01:46:41Z</D:getlastmodified></D:prop></D:set>")
    assert dav("HEAD", FILE).headers["Last-Modified"] == "Sun, 09 Sep 2001 01:46:41 GMT"
    assert statuses(patch(dav, windows.format(name, "rubbish", name))) == {
        f"{{urn:schemas-microsoft-com:}}{name}": "403"
    }
    attributes = "Win32FileAttributes"
    patch(dav, windows.format(attributes, "00000020", attributes))
    tag = f"{{urn:schemas-microsoft-com:}}{attributes}"
    assert ask(dav, tag).prop(tag).text == "00000020"  # type: ignore[union-attr]


def test_properties_travel(dav: Client) -> None:
    patch(dav, "<D:set><D:prop><dc:title>T</dc:title></D:prop></D:set>")
    dav("COPY", FILE, Destination="/Documents/b")
    dav("MOVE", "/Documents/b", Destination="/Documents/c")
    assert ask(dav, f"{DC}title", path="/Documents/c").prop(f"{DC}title").text == "T"  # type: ignore[union-attr]


@pytest.mark.parametrize("clark", [f"{DC}title", "{archivia-fs:xattr}note", "{urn:x}y", "{}plain"])
def test_spellings_are_inverse(clark: str) -> None:
    assert clark_of(key_of(clark)) == clark


@pytest.mark.parametrize("key", ["user.has space", "user.", "trusted.x", "security.capability", "user.dc.1st"])
def test_xattrs_without_an_xml_name_are_not_shown(key: str) -> None:
    assert clark_of(key) is None or clark_of(key) == "{archivia-fs:xattr}dc.1st"


@pytest.mark.parametrize("value", [b"\xff\xfe", b"a\0b", b"\x1b[0m"])
def test_values_that_xml_cannot_carry_are_not_shown(value: bytes) -> None:
    assert decode("{urn:x}y", value) is None


def test_dead_properties_of_a_folders_members_are_one_question(
    dav: Client, vfs: ToyVfs, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(250):
        dav.put(f"/Documents/{number}.dng", b"x")
    patch(dav, "<D:set><D:prop><dc:title>Leaf</dc:title></D:prop></D:set>", "/Documents/7.dng")
    questions, properties_of = [], vfs.properties_of
    alone = []
    monkeypatch.setattr(vfs, "properties_of", lambda inos: questions.append(len(inos)) or properties_of(inos))
    monkeypatch.setattr(vfs, "properties", lambda ino: alone.append(ino) or {})
    answer = dav("PROPFIND", "/Documents/", Depth="1")
    assert len(answer.hrefs()) == 252
    assert [each.text for each in answer.xml.iter(f"{DC}title")] == ["Leaf"]
    assert questions == [100, 100, 51]
    assert alone == [vfs.resolve(ME, "/Documents").ino]
    body = b'<D:propfind xmlns:D="DAV:"><D:prop><D:getetag/></D:prop></D:propfind>'
    assert len(dav("PROPFIND", "/Documents/", body, Depth="1").hrefs()) == 252
    assert len(questions) == 3
