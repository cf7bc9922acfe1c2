"""Data: tables of numbers, the coordinates in which they hold points, published data sets, and splits.

Protein backbones are in `rfm.datasets.proteins`, the files that hold them in `rfm.datasets.structures`.
"""

from rfm.datasets.condition_columns import find_conditions, read_conditions
from rfm.datasets.coordinate_choice import choose_coordinates, coordinates_from_dict, read_points
from rfm.datasets.coordinates import Angles, Cartesian, Coordinates, LatitudeLongitude
from rfm.datasets.download import DatasetError
from rfm.datasets.earth import Dataset, airports, earthquake, fire, flood, load, volcano
from rfm.datasets.orientation_maps import OrientationMap, read_orientation_map
from rfm.datasets.orientations import Orientations
from rfm.datasets.pose_sets import MapDataset, TrackDataset, desk, steel
from rfm.datasets.poses import Poses
from rfm.datasets.splits import Split, block_labels, deduplicated_split, group_split, raw_split
from rfm.datasets.table_files import CSV, Layout, json_writer, table_writer, write_table
from rfm.datasets.tables import Table, TableError, read_table
from rfm.datasets.tracks import read_track

__all__ = [
    "CSV",
    "Angles",
    "Cartesian",
    "Coordinates",
    "Dataset",
    "DatasetError",
    "LatitudeLongitude",
    "Layout",
    "MapDataset",
    "OrientationMap",
    "Orientations",
    "Poses",
    "Split",
    "Table",
    "TableError",
    "TrackDataset",
    "airports",
    "block_labels",
    "choose_coordinates",
    "coordinates_from_dict",
    "deduplicated_split",
    "desk",
    "earthquake",
    "find_conditions",
    "fire",
    "flood",
    "group_split",
    "json_writer",
    "load",
    "raw_split",
    "read_conditions",
    "read_orientation_map",
    "read_points",
    "read_table",
    "read_track",
    "steel",
    "table_writer",
    "volcano",
    "write_table",
]
