"""Opening: empty, old, new, foreign, broken and unreachable databases."""

from __future__ import annotations

import stat
import subprocess
import sys
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine

from archivia_fs.errors import CatalogError, CatalogTooNew
from archivia_fs.types import Beginning, Part
from catalog import schema
from catalog.catalog import Catalog
from catalog.models import metadata
from tests.catalog.helpers import D, file, names, sql


def test_the_migrations_make_the_tables_of_the_models(catalog: Catalog, url: str) -> None:
    engine = create_engine(url)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    engine.dispose()


def test_head_is_the_newest_migration() -> None:
    config = Config()
    config.set_main_option("script_location", str(schema.MIGRATIONS))
    assert ScriptDirectory.from_config(config).get_current_head() == schema.HEAD


def test_an_archive_is_found_again(url: str) -> None:
    first = Catalog.open(url)
    ino = file(first, "a")
    first.close()
    second = Catalog.open(url)
    assert second.lookup(D, "a").stat.ino == ino
    assert second.origin != first.origin
    assert file(second, "b") == ino + 1
    second.close()


def test_a_catalog_of_the_first_version_is_migrated_with_what_is_in_it(url: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(schema.MIGRATIONS))
    engine = create_engine(url)
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
    engine.dispose()
    sql(
        url,
        "INSERT INTO uploads (id, object_key, origin, target, created_ns) VALUES ('u', 'k', 'gone', 'x', 1000)",
        "INSERT INTO upload_parts (upload, number, size, etag, crc32) VALUES ('u', 1, 5, 'e', 6)",
        "INSERT INTO revisions (id, object_key, size, stored, created_ns) VALUES ('r', 'objects/r', 5, 5, 1)",
        "INSERT INTO revisions (id, object_key, size, stored, created_ns) VALUES ('s', 'objects-', 5, 5, 1)",
    )
    catalog = Catalog.open(url)
    try:
        assert [each.upload_id for each in catalog.expired_uploads(1001)] == ["u"]
        assert catalog.expired_uploads(1000) == []
        assert [each.id for each in catalog.pending_revisions()] == ["r", "s"]
        assert [each.key for each in catalog.objects_in_use()] == ["objects-", "objects/r"]
        claimed = catalog.claim_upload(Beginning(1, 5, 6), "y")
        assert claimed is not None
        assert claimed.parts == (Part(1, 5, "e", 6),)
        assert file(catalog, "a")
    finally:
        catalog.close()


def test_a_newer_schema_is_refused_and_left_alone(url: str) -> None:
    Catalog.open(url).close()
    sql(url, "UPDATE alembic_version SET version_num = '9999'", "UPDATE archive SET written_by = '7.5'")
    for _ in range(2):
        with pytest.raises(CatalogTooNew, match=r"9999, written by Archivia FS 7\.5.*Install"):
            Catalog.open(url)
    sql(url, f"UPDATE alembic_version SET version_num = '{schema.HEAD}'")
    Catalog.open(url).close()


def test_a_much_newer_schema_is_refused(url: str) -> None:
    Catalog.open(url).close()
    sql(url, "UPDATE alembic_version SET version_num = '9999'", "DROP TABLE archive")
    with pytest.raises(CatalogTooNew, match="9999, and this version"):
        Catalog.open(url)


def test_processes_that_open_an_empty_database_at_once(url: str) -> None:
    root = Path(__file__).parents[2]
    program = (
        "import sys; from catalog.catalog import Catalog; from tests.catalog.helpers import file\n"
        "sys.stdin.readline(); c = Catalog.open(sys.argv[1]); file(c, sys.argv[2]); c.close()"
    )
    children = [
        subprocess.Popen([sys.executable, "-c", program, url, name], stdin=subprocess.PIPE, text=True, cwd=root)
        for name in "abcd"
    ]
    for child in children:
        assert child.stdin is not None
        child.stdin.write("\n")
        child.stdin.flush()
    for child in children:
        child.communicate()
    assert [child.returncode for child in children] == [0] * 4
    catalog = Catalog.open(url)
    assert names(catalog) == ["a", "b", "c", "d"]
    catalog.close()


def test_only_its_owner_may_read_the_file(tmp_path: Path) -> None:
    path = tmp_path / "catalog.db"
    catalog = Catalog.open(f"sqlite:///{path}")
    file(catalog, "a")
    modes = {each.name: stat.S_IMODE(each.stat().st_mode) for each in tmp_path.iterdir()}
    catalog.close()
    assert modes["catalog.db-wal"] == modes["catalog.db"] == 0o600


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("not a url", "ARCHIVIA_CATALOG_URL"),
        ("mysql://u:secret@h/d", "neither sqlite nor postgresql"),
        ("sqlite://", "needs a file"),
        ("sqlite:////nonexistent/folder/catalog.db", "folder exists and is writable"),
        ("postgresql://u:secret@127.0.0.1:1/d?connect_timeout=2", "cannot be reached.*ARCHIVIA_CATALOG_URL"),
        ("postgresql://u@127.0.0.1:1/d?password=secret", "cannot be reached.*ARCHIVIA_CATALOG_URL"),
    ],
)
def test_what_cannot_be_opened_says_why(url: str, says: str) -> None:
    with pytest.raises(CatalogError, match=says) as caught:
        Catalog.open(url)
    assert "secret" not in str(caught.value)


def test_a_file_that_is_no_catalog(tmp_path: Path) -> None:
    path = tmp_path / "catalog.db"
    path.write_bytes(b"these are no pages of a database, but a text of some length" * 100)
    with pytest.raises(CatalogError, match=r"no catalog.*backup"):
        Catalog.open(f"sqlite:///{path}")
    assert path.read_bytes().startswith(b"these")
