"""Data: tables of numbers, the coordinates in which they hold points, published data sets, and splits.

Protein backbones are in `rfm.datasets.proteins`, the files that hold them in `rfm.datasets.structures`.
"""

from rfm.datasets.condition_columns import find_conditions, read_conditions
from rfm.datasets.coordinates import (
    Angles,
    Cartesian,
    Coordinates,
    LatitudeLongitude,
    choose_coordinates,
    coordinates_from_dict,
)
from rfm.datasets.download import DatasetError
from rfm.datasets.earth import Dataset, airports, earthquake, fire, flood, load, volcano
from rfm.datasets.splits import Split, deduplicated_split, group_split, raw_split
from rfm.datasets.tables import Table, TableError, read_table, write_table

__all__ = [
    "Angles",
    "Cartesian",
    "Coordinates",
    "Dataset",
    "DatasetError",
    "LatitudeLongitude",
    "Split",
    "Table",
    "TableError",
    "airports",
    "choose_coordinates",
    "coordinates_from_dict",
    "deduplicated_split",
    "earthquake",
    "find_conditions",
    "fire",
    "flood",
    "group_split",
    "load",
    "raw_split",
    "read_conditions",
    "read_table",
    "volcano",
    "write_table",
]
