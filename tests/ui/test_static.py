"""The files of the page are a table: a name in it or nothing."""

from pathlib import Path

from etude.ui.static import WEB, read_assets


def test_all_files_of_the_page_are_in_the_table_with_their_types() -> None:
    assets = read_assets()
    assert assets["index.html"].kind == "text/html; charset=utf-8"
    assert assets["index.html"].content == (WEB / "index.html").read_bytes()
    for name, asset in assets.items():
        assert asset.content == (WEB / name).read_bytes() and len(asset.etag) == 34


def test_links_and_unknown_types_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "vendor").mkdir()
    (tmp_path / "vendor/a.js").write_text("1")
    (tmp_path / "secret.key").write_text("1")
    (tmp_path / "leak.js").symlink_to("/etc/hostname")
    assert list(read_assets(tmp_path)) == ["vendor/a.js"]
