"""``rfm data``: a published data set, written as a file that the other commands read."""

import argparse
from collections.abc import Callable

from rfm.command_line.arguments import path

SUMMARY = "write a published data set to a file"

_NAMES = {
    "airports": "airports and landing strips of the world; it comes with the installation",
    "earthquakes": "6,120 earthquakes",
    "volcanoes": "827 volcanic eruptions",
    "floods": "4,875 floods",
    "fires": "12,809 fires",
    "steel": "orientations of the grains of a duplex steel, as an .ang file",
    "desk": "a camera carried round a desk, as a track of TUM RGB-D",
}
_OFFLINE = "those but airports are looked for in the folder RFM_DATA, and the four of the earth then downloaded"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `run`."""
    listed = "\n".join(f"{name}: {what}" for name, what in _NAMES.items())
    parser.add_argument("dataset", choices=tuple(_NAMES), metavar="NAME", help=f"{listed};\n{_OFFLINE}")
    parser.add_argument(
        "--out", required=True, type=path, metavar="FILE", help="file to write, .csv for those of the earth"
    )
    parser.add_argument("--force", action="store_true", help="replace the file")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(arguments: argparse.Namespace) -> None:
    """Write a data set."""
    import shutil

    from rfm import datasets
    from rfm.command_line.messages import report
    from rfm.command_line.table_output import checked_output

    out = checked_output(arguments)
    assert out is not None
    published = {"earthquakes": "earthquake", "volcanoes": "volcano", "floods": "flood", "fires": "fire"}
    if arguments.dataset in published:
        earth = datasets.load(published[arguments.dataset])
        datasets.write_table(out, ("latitude", "longitude"), earth.degrees)
        count, own = len(earth), (earth.source, earth.licence, earth.citation)
    else:
        loaders: dict[str, Callable[[], datasets.Dataset | datasets.MapDataset | datasets.TrackDataset]] = {
            "airports": datasets.airports,
            "steel": datasets.steel,
            "desk": datasets.desk,
        }
        found = loaders[arguments.dataset]()
        # With all columns, in its own format.
        shutil.copyfile(found.path, out)
        count, own = len(found), (found.source, found.licence, found.citation)
    source, licence, citation = own
    record = {"file": str(out), "rows": count, "source": source, "licence": licence, "citation": citation}
    report(arguments, record, f"{out}: {count:,} rows\nsource: {source}\nlicence: {licence}\ncite: {citation}")
