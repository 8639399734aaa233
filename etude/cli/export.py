"""What `etude export` prints."""

from pathlib import Path


def run_export(given: str, kind: str, out: Path, *, runs: Path) -> list[tuple[str, str]]:
    """Export, and say what is there now: (what, how much)."""
    from etude.export import export
    from etude.report.wording import size

    folder = export(given, kind, out, runs=runs)
    files = sorted(path for path in folder.iterdir())
    return [
        ("folder", str(folder)),
        *((path.name, size(path.stat().st_size)) for path in files),
        ("load with", "the lines under Use in README.md"),
    ]
