"""The report of a sweep as files: Markdown, charts, and the same figures as JSON."""

from pathlib import Path

from etude import durable
from etude.sweep.charts import sweep_charts
from etude.sweep.deliverables import Deliverables
from etude.sweep.sections import write_sections
from etude.sweep.studies import studies_file


def write_deliverables(made: Deliverables, folder: Path) -> Path:
    """Write report.md, its charts and report.json into a folder, and return the path of the report.

    The same journals give the same bytes, but of studies.db, the copy of the searches.
    """
    durable.make_folder(folder)
    durable.remove_leftovers(folder)
    charts = sweep_charts(made)
    for name, svg in charts.items():
        durable.write_file(folder / name, svg)
    durable.write_file(folder / "report.md", write_sections(made, list(charts)).encode())
    durable.write_json(folder / "report.json", made.to_dict())
    if made.sweep.studies:
        durable.write_file(folder / "studies.db", studies_file(made))
    return folder / "report.md"
