"""Coordinates: tables to points and back, in the conventions of the table."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from manifolds import SO3, Euclidean, FlatTorus, Manifold, Sphere
from rfm.datasets import (
    Angles,
    Cartesian,
    Coordinates,
    LatitudeLongitude,
    Table,
    TableError,
    choose_coordinates,
    coordinates_from_dict,
    read_table,
    write_table,
)
from rfm.datasets.angle_units import bare_name, unit_in_name


def table_of(*lines: str) -> Table:
    """A table from lines of text; the first is a header unless it starts with a number."""
    rows = [line.split(",") for line in lines]
    has_header = rows[0][0][:1].isalpha()
    names = rows[0] if has_header else [str(i + 1) for i in range(len(rows[0]))]
    rows = rows[has_header:]
    return Table.of_rows(
        "points.csv", tuple(names), has_header, rows, range(1 + has_header, 1 + has_header + len(rows))
    )


def message_of(manifold: Manifold, table: Table, columns: list[str] | None = None) -> str:
    with pytest.raises(TableError) as caught:
        choose_coordinates(manifold, table, columns).points(table)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert "points.csv" in message
    return message


# Round trips.


@settings(deadline=None)
@given(
    places=st.lists(st.tuples(st.floats(-90, 90), st.floats(-180, 360)), min_size=1, max_size=10),
    longitude_first=st.booleans(),
)
def test_latitudes_and_longitudes_round_trip(places: list[tuple[float, float]], longitude_first: bool) -> None:
    header, order = ("lon,lat", (1, 0)) if longitude_first else ("lat,lon", (0, 1))
    table = table_of(header, *(f"{place[order[0]]!r},{place[order[1]]!r}" for place in places))
    coordinates = choose_coordinates(Sphere(2), table)
    x = coordinates.points(table)
    Sphere(2).check_point(x)
    assert x.dtype == torch.float64
    back = coordinates.columns_of(x)
    assert coordinates.names == tuple(header.split(","))
    assert (np.abs(back[:, order[0]]) <= 90).all()
    again = coordinates.points(table_of(header, *(f"{a!r},{b!r}" for a, b in back.tolist())))
    torch.testing.assert_close(again, x, atol=1e-12, rtol=0)


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(-1e4, 1e4), st.floats(-1e4, 1e4)), min_size=1, max_size=10), st.booleans())
def test_angles_round_trip(rows: list[tuple[float, float]], radians: bool) -> None:
    table = table_of("phi,psi", *(f"{a!r},{b!r}" for a, b in rows))
    coordinates = choose_coordinates(FlatTorus(2), table, radians=radians)
    x = coordinates.points(table)
    assert ((x >= -math.pi) & (x < math.pi)).all()
    unit = 1 if radians else math.pi / 180
    expected = torch.tensor(rows, dtype=torch.float64) * unit
    torch.testing.assert_close(torch.exp(1j * x), torch.exp(1j * expected), atol=1e-11, rtol=0)
    back = coordinates.columns_of(x) * unit
    torch.testing.assert_close(FlatTorus(2).dist(x, torch.from_numpy(back)), torch.zeros(len(rows)).double())


def test_known_places() -> None:
    table = table_of("lat,lon", "0,0", "0,90", "90,17", "-90,300", "0,-180", "0,180", "0,270")
    x = LatitudeLongitude(("lat", "lon")).points(table)
    expected = [[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, -1], [-1, 0, 0], [-1, 0, 0], [0, -1, 0]]
    torch.testing.assert_close(x, torch.tensor(expected).double(), atol=1e-15, rtol=0)


def test_one_place_written_in_two_ways_is_one_point() -> None:
    table = table_of("lat,lon", "40,-10", "40,350", "12,180", "12,-180", "90,0", "90,123")
    x = LatitudeLongitude(("lat", "lon")).points(table)
    assert torch.equal(x[::2], x[1::2])
    angles = Angles(("1",)).points(table_of("-10", "350", "710"))
    assert len(set(angles.flatten().tolist())) == 1


@pytest.mark.parametrize(("longitudes", "positive"), [((10, 350), True), ((-10, 350), False), ((-10, 170), False)])
def test_longitudes_follow_the_input(longitudes: tuple[int, int], positive: bool) -> None:
    table = table_of("lat,lon", *(f"5,{longitude}" for longitude in longitudes))
    coordinates = choose_coordinates(Sphere(2), table)
    assert coordinates == LatitudeLongitude(("lat", "lon"), positive_longitudes=positive)
    out = coordinates.columns_of(Sphere(2).random_uniform(500, generator=torch.Generator().manual_seed(0)))[:, 1]
    assert (out.min() >= 0) == positive
    assert out.max() > (180 if positive else 0)
    assert out.max() < 360


def test_angles_follow_the_input() -> None:
    coordinates = choose_coordinates(FlatTorus(1), table_of("a", "5", "350"))
    assert coordinates == Angles(("a",), positive_angles=True)
    np.testing.assert_allclose(coordinates.columns_of(torch.tensor([[-1e-20], [-0.5]])), [[0.0], [360 - 90 / math.pi]])


def test_points_in_float32_are_written_in_degrees_of_float64() -> None:
    assert LatitudeLongitude().columns_of(torch.tensor([[1.0, 0, 0]])).dtype == np.float64


def test_rows_near_the_sphere_are_projected() -> None:
    table = table_of("x,y,z", "0.577,0.577,0.577", "0,0,1.0009")
    Sphere(2).check_point(choose_coordinates(Sphere(2), table).points(table))


# Scores.


def test_scores_per_steradian_and_per_square_kilometre() -> None:
    uniform = torch.full((3,), -math.log(4 * math.pi))
    scores = LatitudeLongitude().score_columns(uniform)
    assert list(scores) == ["log_prob_nats_per_steradian", "log_prob_nats_per_km2"]
    assert scores["log_prob_nats_per_km2"].dtype == np.float32
    np.testing.assert_allclose(scores["log_prob_nats_per_km2"], -math.log(510065621.7), rtol=1e-6)


def test_scores_name_their_measure() -> None:
    score = torch.zeros(2, dtype=torch.float64)
    assert list(Cartesian(("x", "y", "z"), unit_norm=True).score_columns(score)) == ["log_prob_nats_per_steradian"]
    assert list(Cartesian(("x", "y")).score_columns(score)) == ["log_prob_nats"]
    degrees = Angles(("a", "b")).score_columns(score - 2 * math.log(2 * math.pi))
    assert list(degrees) == ["log_prob_nats_per_radian2", "log_prob_nats_per_degree2"]
    np.testing.assert_allclose(degrees["log_prob_nats_per_degree2"], -2 * math.log(360))
    assert list(Angles(("a",), radians=True).score_columns(score)) == ["log_prob_nats_per_radian"]


# The choice.


@pytest.mark.parametrize(
    ("manifold", "lines", "columns", "expected"),
    [
        (Sphere(2), ["LATITUDE,LONGITUDE", "1,2"], None, LatitudeLongitude(("LATITUDE", "LONGITUDE"))),
        (Sphere(2), ["lng,depth,Lat", "1,2,3"], None, LatitudeLongitude(("Lat", "lng"), longitude_first=True)),
        (Sphere(2), ["long,lat", "1,2"], ["long", "lat"], LatitudeLongitude(("lat", "long"), longitude_first=True)),
        (Sphere(2), ["a,b", "1,2"], ["B", "A"], LatitudeLongitude(("b", "a"), longitude_first=True)),
        (Sphere(2), ["a,lat", "1,2"], ["a", "lat"], LatitudeLongitude(("lat", "a"), longitude_first=True)),
        (Sphere(2), ["1,2"], ["1", "2"], LatitudeLongitude(("1", "2"))),
        (Sphere(2), ["a,b", "1,2"], ["1", "2"], LatitudeLongitude(("a", "b"))),
        (Sphere(2), ["Z,Y,X", "0,0,1"], None, Cartesian(("X", "Y", "Z"), unit_norm=True)),
        (Sphere(2), ["lat,lon,a,b,c", "9,9,0,0,1"], ["a", "b", "c"], Cartesian(("a", "b", "c"), unit_norm=True)),
        (Sphere(3), ["0,0,0,1"], None, Cartesian(("1", "2", "3", "4"), unit_norm=True)),
        (Euclidean(2), ["a,name,b", "1,x,2"], None, Cartesian(("a", "b"))),
        (FlatTorus(2), ["id,1,2,General", "id,3,4,Glycine"], None, Angles(("2", "3"))),
        (FlatTorus(1), ["a,b", "1,2"], ["b"], Angles(("b",))),
    ],
)
def test_choice(manifold: Manifold, lines: list[str], columns: list[str] | None, expected: Coordinates) -> None:
    has_header = lines[0] != "id,1,2,General"
    table = (
        table_of(*lines) if has_header else Table.of_rows("f", ("1", "2", "3", "4"), False, [lines[0].split(",")], [1])
    )
    assert choose_coordinates(manifold, table, columns) == expected


@pytest.mark.parametrize(
    ("manifold", "lines", "columns", "expected"),
    [
        (Sphere(2), ["a,b", "1,2"], None, "no columns are called latitude and longitude"),
        (Sphere(2), ["1,2"], None, "--columns 1 2 for latitude and longitude"),
        (Sphere(2), ["lat,latitude,lon", "1,2,3"], None, "'lat', 'latitude', 'lon'"),
        (Sphere(2), ["lat,lon,x,y,z", "1,2,0,0,1"], None, "not clear which columns"),
        (Sphere(2), ["lat,b", "1,2"], None, "not clear which columns"),
        (Sphere(2), ["lat,latitude", "1,2"], ["lat", "latitude"], "names the same coordinate twice"),
        (Sphere(2), ["lat,lon", "1,2"], ["lat"], "--columns names 1, and a point of Sphere(2) has 2"),
        (Sphere(2), ["lat,lon", "1,2"], ["lat", "1"], "named twice"),
        (Sphere(2), ["lat,lon", "1,2"], ["lat", "depth"], "no column 'depth'; its columns are 'lat', 'lon'"),
        (Sphere(2), ["a,a", "1,2"], ["1", "2"], "no name of its own"),
        (Euclidean(3), ["a,b", "1,2"], None, "2 columns hold numbers, and a point of Euclidean(3) has 3"),
        (FlatTorus(1), ["a,b", "1,2"], None, "'a', 'b'"),
        (Sphere(2), ["lat,lon", "1,200", "91,3"], None, "line 3: latitude 91 is not in -90 to 90 degrees; repair"),
        (Sphere(2), ["lat,lon", "1,2", "1,-181"], None, "line 3: longitude -181"),
        (Sphere(2), ["lat,lon", "1,2", "120,3"], None, "look swapped: if so, correct the header"),
        (Sphere(2), ["120,3", "1,2"], ["1", "2"], "look swapped: if so, use --columns 2 1; else repair"),
        (
            Sphere(2),
            ["x,y,z", "0,0,1", "0,0,1.5"],
            None,
            "line 3: this point is not on the unit sphere, its norm is 1.5",
        ),
        (Sphere(2), ["x,y,z", "0,0,0"], None, "its norm is 0"),
        (Sphere(2), ["x,y,z", "1e300,0,0"], None, "its norm is inf"),
        (Sphere(2), ["lat,lon", "1,2", "nan,3"], None, "line 3: 'nan' is not a finite number"),
    ],
)
def test_what_cannot_be_chosen_or_read(
    manifold: Manifold, lines: list[str], columns: list[str] | None, expected: str
) -> None:
    assert expected in message_of(manifold, table_of(*lines), columns)


def test_points_of_other_shapes_do_not_come_from_tables() -> None:
    class Matrices(Euclidean):
        def __init__(self) -> None:
            Manifold.__init__(self, 4, (2, 2))
            self.n = 4

    assert "have shape (2, 2)" in message_of(Matrices(), table_of("1,2,3,4"))


@pytest.mark.parametrize(
    "coordinates",
    [LatitudeLongitude(("2", "1"), longitude_first=True), Cartesian(("1", "2")), Angles(("4", "5"), radians=True)],
)
def test_without_a_header_the_output_has_usual_names_and_is_found_again(
    tmp_path: Path, coordinates: Coordinates
) -> None:
    x = torch.tensor([[0.0, 0.6, 0.8], [0.0, 1.0, 0.0]]).double()[:, : 3 if len(coordinates.names[0]) > 8 else 2]
    write_table(tmp_path / "out.csv", coordinates.names, coordinates.columns_of(x))
    torch.testing.assert_close(coordinates.points(read_table(tmp_path / "out.csv")), x)


# JSON.


@pytest.mark.parametrize(
    "coordinates",
    [
        LatitudeLongitude(("a", "b"), positive_longitudes=True),
        Cartesian(("x", "y", "z"), unit_norm=True),
        Angles(("phi", "psi"), radians=True),
    ],
)
def test_json_round_trip(coordinates: Coordinates) -> None:
    assert coordinates_from_dict(json.loads(json.dumps(coordinates.to_dict()))) == coordinates


GOOD = LatitudeLongitude().to_dict()


@pytest.mark.parametrize(
    "record",
    [
        {},
        {**GOOD, "kind": "os.system"},
        {**GOOD, "kind": ["angles"]},
        {**GOOD, "columns": "ab"},
        {**GOOD, "columns": ["a"]},
        {**GOOD, "columns": ["a", "a"]},
        {**GOOD, "columns": ["a", 1]},
        {**GOOD, "positive_longitudes": "yes"},
        {**GOOD, "other": True},
        ["kind"],
        None,
    ],
)
def test_records_that_are_no_coordinates(record: object) -> None:
    with pytest.raises(ValueError, match="these are not coordinates"):
        coordinates_from_dict(record)  # type: ignore[arg-type]


# What is taken unasked.


def rows_of(*columns: tuple[float, float], n: int = 60) -> list[str]:
    """Rows of numbers, each column uniform between two bounds."""
    generator = np.random.default_rng(0)
    values = np.stack([generator.uniform(*bounds, n) for bounds in columns], axis=1)
    return [",".join(f"{value:.3f}" for value in row) for row in values]


TURN, SPEED, NARROW = (-179.0, 179.0), (0.0, 20.0), (-60.0, -40.0)


@pytest.mark.parametrize(
    ("header", "bounds", "expected"),
    [
        ("direction,speed", [(0, 359), SPEED], ("direction",)),
        ("speed,wind_direction", [SPEED, (0, 359)], ("wind_direction",)),
        ("winddirection,windspeed", [NARROW, SPEED], ("winddirection",)),
        ("WindDir,WindSpeed", [(0, 359), SPEED], ("WindDir",)),
        ("phi,psi,resolution", [NARROW, NARROW, (1, 3)], ("phi", "psi")),
        ("id,phi,psi", [(0, 300), TURN, TURN], ("phi", "psi")),
        ("chi1,chi_2,B-factor", [TURN, NARROW, (1, 99)], ("chi1", "chi_2")),
        ("Heading [deg],speed [m/s]", [NARROW, SPEED], ("Heading [deg]",)),
        ("direction,direction_std,year", [TURN, (0, 90), (1990, 2020)], ("direction",)),
        ("direction,angular_velocity", [TURN, TURN], ("direction",)),
        ("φ,ψ", [NARROW, TURN], ("φ", "ψ")),
        ("a,b", [TURN, (0, 359)], ("a", "b")),
        ("station_id,a", [(1, 300), TURN], ("a",)),
    ],
)
def test_angles_are_taken_by_name_or_range(
    header: str, bounds: list[tuple[float, float]], expected: tuple[str, ...]
) -> None:
    table = table_of(header, *rows_of(*bounds)) if header[0].isascii() else greek(header, rows_of(*bounds))
    assert choose_coordinates(FlatTorus(len(expected)), table).columns == expected


def greek(header: str, rows: list[str]) -> Table:
    names = tuple(header.split(","))
    return Table.of_rows("points.csv", names, True, [row.split(",") for row in rows], range(2, len(rows) + 2))


@pytest.mark.parametrize(
    ("header", "bounds"),
    [
        ("a,speed", [TURN, SPEED]),
        ("a,b", [NARROW, NARROW]),
        ("a,b", [TURN, (0, 1000)]),
        ("depth,magnitude", [(0, 600), (4, 9)]),
        ("speed,height", [SPEED, SPEED]),
    ],
)
def test_what_may_be_no_angle_is_not_taken_unasked(header: str, bounds: list[tuple[float, float]]) -> None:
    table = table_of(header, *rows_of(*bounds))
    assert "name them, with --columns" in message_of(FlatTorus(2), table)
    named = header.split(",")
    assert choose_coordinates(FlatTorus(2), table, named).columns == tuple(named)


@pytest.mark.parametrize("name", ["phi_{}", "a [{}]", "{}", "wind direction ({})", "tilt.{}"])
@pytest.mark.parametrize("unit", ["rad", "radians", "deg", "Degrees"])
def test_what_is_in_a_unit_of_angles_is_an_angle_in_it(name: str, unit: str) -> None:
    table = table_of(f"speed,{name.format(unit)},id", *rows_of((0.0, 20.0), (0.0, 6.0), (0.0, 300.0)))
    found = choose_coordinates(FlatTorus(1), table)
    assert isinstance(found, Angles)
    assert (found.columns, found.radians) == ((name.format(unit),), unit.startswith("rad"))
    assert found.describe().endswith("in radians" if found.radians else "in degrees")


def test_places_in_radians_say_so() -> None:
    found = choose_coordinates(Sphere(2), table_of("name,startLat_rad,startLon_rad", "a,0.1,3", "b,1.2,-2"))
    assert found.describe() == "columns startLat_rad, startLon_rad, in radians"


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("decimalLatitude,decimalLongitude", ("decimalLatitude", "decimalLongitude")),
        ("Latitude (deg),Longitude (deg)", ("Latitude (deg)", "Longitude (deg)")),
        ("lon_deg,lat_deg,lat_error", ("lat_deg", "lon_deg")),
        ("start_lat,latitude,lon", ("latitude", "lon")),
        ("GPS Latitude,GPS Longitude,platitude", ("GPS Latitude", "GPS Longitude")),
    ],
)
def test_places_are_found_by_names_alike(header: str, expected: tuple[str, str]) -> None:
    table = table_of(header, ",".join("1" for _ in header.split(",")))
    assert choose_coordinates(Sphere(2), table).columns == expected


def test_two_places_in_a_row_are_not_clear() -> None:
    table = table_of("start_lat,start_lon,end_lat,end_lon", "1,2,3,4")
    assert "not clear which columns" in message_of(Sphere(2), table)


@pytest.mark.parametrize("other", ["id", "event_id", "index", "Row", "time", "startTime", "year", "Unnamed: 0", ""])
def test_an_index_or_a_time_is_no_coordinate_unasked(other: str) -> None:
    table = Table.of_rows("points.csv", (other, "x", "y"), True, [["7", "1", "2"], ["9", "3", "4"]], [2, 3])
    assert choose_coordinates(Euclidean(2), table).columns == ("x", "y")
    assert "no index or time" in message_of(Euclidean(3), table)
    if other:
        assert choose_coordinates(Euclidean(3), table, [other, "x", "y"]).columns == (other, "x", "y")


def test_without_a_header_row_numbers_are_no_coordinate() -> None:
    table = table_of("0,0.5,2", "1,0.1,3", "2,0.7,9")
    assert choose_coordinates(Euclidean(2), table).columns == ("2", "3")
    assert choose_coordinates(Euclidean(3), table_of("0,0.5,2", "1,0.1,3", "3,0.7,9")).columns == ("1", "2", "3")


def test_columns_taken_for_something_else_are_no_coordinates() -> None:
    table = table_of("phi,chi,w", *rows_of(TURN, TURN, (1, 2)))
    assert choose_coordinates(FlatTorus(1), table, reserved=["CHI"]).columns == ("phi",)
    assert choose_coordinates(Euclidean(2), table, reserved=["w"]).columns == ("phi", "chi")


def test_a_column_whose_first_cell_is_empty_is_not_passed_over() -> None:
    assert "an empty cell in column 'y'" in message_of(Euclidean(2), table_of("x,y", "1,", "2,3", "4,5"))


def test_coordinates_say_what_they_read() -> None:
    assert LatitudeLongitude(("lat", "lon")).describe() == "columns lat, lon, in degrees"
    assert Angles(("a",), radians=True).describe() == "column a, in radians"
    assert Cartesian(("1", "2")).describe(table_of("x,y", "1,2")) == "columns x, y"


# Units of angles.


@pytest.mark.parametrize(
    ("name", "unit", "bare"),
    [
        ("phi1_deg", "degrees", "phi1"),
        ("latitude [deg]", "degrees", "latitude"),
        ("lon (°)", "degrees", "lon"),
        ("theta°", "degrees", "theta"),
        ("Latitude_Degrees", "degrees", "Latitude"),
        ("psiRad", "radians", "psi"),
        ("phi.rad", "radians", "phi"),
        ("lat(radians)", "radians", "lat"),
        ("phi", None, "phi"),
        ("grad", None, "grad"),
        ("GRAD", None, "GRAD"),
        ("comrad", None, "comrad"),
    ],
)
def test_units_in_names(name: str, unit: str | None, bare: str) -> None:
    assert (unit_in_name(name), bare_name(name)) == (unit, bare)


def angle_table(names: str, values: np.ndarray) -> Table:
    rows = [[repr(float(cell)) for cell in row] for row in values]
    return Table.of_rows("angles.csv", tuple(names.split()), True, rows, list(range(2, len(rows) + 2)))


ANGLE_CASES = {
    "torus": (FlatTorus(2), "phi psi", (2 * math.pi, 2 * math.pi)),
    "sphere": (Sphere(2), "latitude longitude", (math.pi / 2, math.pi)),
    "so3": (SO3(), "phi1 Phi phi2", (2 * math.pi, math.pi, 2 * math.pi)),
}


@pytest.mark.parametrize("kind", ANGLE_CASES)
@pytest.mark.parametrize("rows", [11, 200])
def test_angles_are_in_the_unit_that_something_says_or_are_asked_for(kind: str, rows: int) -> None:
    manifold, names, bounds = ANGLE_CASES[kind]
    radians = np.random.default_rng(0).uniform(0.05, 0.98, (rows, len(bounds))) * bounds
    wanted = choose_coordinates(manifold, angle_table(names, radians), radians=True)
    points = wanted.points(angle_table(names, radians))

    def found(suffix: str, values: np.ndarray, said: bool | None = None) -> torch.Tensor:
        table = angle_table(" ".join(name + suffix for name in names.split()), values)
        coordinates = choose_coordinates(manifold, table, radians=said)
        assert coordinates_from_dict(coordinates.to_dict()) == coordinates
        x = coordinates.points(table)
        again = angle_table(" ".join(coordinates.names), coordinates.columns_of(x))
        torch.testing.assert_close(coordinates.points(again), x, rtol=0, atol=1e-12)
        return x

    with pytest.raises(TableError, match=r"small enough to be radians .*; .*--radians or --degrees") as caught:
        found("", radians)
    assert len(str(caught.value).splitlines()) == 1
    for suffix, values, said in (
        ("_rad", radians, None),
        ("_rad", radians, True),
        ("_deg", np.degrees(radians), None),
        ("_deg", np.degrees(radians), False),
        ("", radians, True),
        ("", np.degrees(radians), False),
    ):
        torch.testing.assert_close(found(suffix, values, said), points, rtol=0, atol=1e-12)
    # Small degrees, by name or by word.
    small = found("", radians, False)
    torch.testing.assert_close(found("_deg", radians), small, rtol=0, atol=0)
    assert not torch.allclose(small, points)
    for suffix, said in (("_deg", True), ("_rad", False)):
        with pytest.raises(TableError, match="contradicts --"):
            found(suffix, radians, said)


def test_two_units_in_one_point_are_refused() -> None:
    table = angle_table("phi_deg psi_rad", np.array([[10.0, 1.0], [20.0, 2.0]]))
    with pytest.raises(TableError, match="degrees and radians, which contradicts each other"):
        choose_coordinates(FlatTorus(2), table)


def test_latitudes_in_radians_reach_the_poles() -> None:
    table = angle_table("lat_rad lon_rad", np.array([[1.571, 0.3], [-1.5708, 3.1416], [0.1, -3.1416]]))
    x = choose_coordinates(Sphere(2), table).points(table)
    torch.testing.assert_close(x[:2, 2].abs(), torch.ones(2, dtype=torch.float64))
    degrees = angle_table("lat_rad lon_rad", np.array([[45.0, 0.3]]))
    with pytest.raises(TableError, match="latitude"):
        choose_coordinates(Sphere(2), degrees).points(degrees)


def test_euler_angles_of_many_turns_are_no_radians() -> None:
    table = angle_table("phi1_rad Phi_rad phi2_rad", np.array([[90.0, 45.0, 10.0]]))
    with pytest.raises(TableError, match="line 2: 90 is no Euler angle in radians"):
        choose_coordinates(SO3(), table).points(table)


def test_torsions_of_many_turns_are_radians_where_the_names_say_so() -> None:
    table = angle_table("phi_rad", np.array([[100.0], [0.1]]))
    x = choose_coordinates(FlatTorus(1), table).points(table)
    torch.testing.assert_close(x[0, 0], torch.tensor(math.remainder(100.0, 2 * math.pi), dtype=torch.float64))
