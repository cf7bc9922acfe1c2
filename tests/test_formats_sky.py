"""Tables that astropy writes are read back, and the sky's coordinates are found by their names."""

from pathlib import Path

import astropy.table
import astropy.units
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits

from manifolds import Sphere
from rfm.datasets import LatitudeLongitude, TableError, choose_coordinates, read_table, table_from

RNG = np.random.default_rng(0)
COUNT = 80
SKY = SkyCoord(RNG.uniform(0, 360, COUNT), np.degrees(np.arcsin(RNG.uniform(-1, 1, COUNT))), unit="deg")


def catalogue() -> astropy.table.Table:
    return astropy.table.Table(
        {
            "RA": SKY.ra.deg * astropy.units.deg,
            "DEC": SKY.dec.deg.astype(np.float64) * astropy.units.deg,
            "mag": astropy.table.MaskedColumn(RNG.normal(size=COUNT).astype(np.float32), mask=np.arange(COUNT) == 3),
            "name": [f"star {i}" for i in range(COUNT)],
            "bands": RNG.normal(size=(COUNT, 3)),
        }
    )


@pytest.mark.parametrize("suffix", [".fits", ".fits.gz"])
def test_fits_tables(tmp_path: Path, suffix: str) -> None:
    own = catalogue()
    own.write(file := tmp_path / f"t{suffix}")
    for table in (read_table(file), table_from(own)):
        assert table.names == ("RA", "DEC", "mag", "name")
        np.testing.assert_array_equal(table.numbers(["RA", "DEC"])[:, 0], SKY.ra.deg)
        assert np.isnan(table.values("mag")[3])
        np.testing.assert_array_equal(np.delete(table.values("mag"), 3), np.delete(own["mag"].data.data, 3))
        assert table.texts("name")[5] == "star 5"
        coordinates = choose_coordinates(Sphere(2), table)
        assert isinstance(coordinates, LatitudeLongitude)
        np.testing.assert_allclose(coordinates.points(table), SKY.cartesian.xyz.value.T, atol=1e-15)


@pytest.mark.parametrize("name", ["ascii.ecsv", "ascii.csv", "ascii.tab"])
def test_text_tables_of_astropy(tmp_path: Path, name: str) -> None:
    own = catalogue()["RA", "DEC", "name"]
    own.write(file := tmp_path / "t.txt", format=name)
    np.testing.assert_array_equal(read_table(file).numbers(["RA", "DEC"])[:, 1], SKY.dec.deg)


@pytest.mark.parametrize(
    ("names", "values"),
    [
        (("ra", "dec"), (SKY.ra.deg, SKY.dec.deg)),
        (("RAJ2000", "DEJ2000"), (SKY.ra.deg, SKY.dec.deg)),
        (("ra (deg)", "dec (deg)"), (SKY.ra.deg, SKY.dec.deg)),
        (("glon", "glat"), (SKY.galactic.l.deg, SKY.galactic.b.deg)),
        (("ra_rad", "dec_rad"), (SKY.ra.rad, SKY.dec.rad)),
    ],
)
def test_names_of_the_sky(names: tuple[str, str], values: tuple[np.ndarray, np.ndarray]) -> None:  # type: ignore[type-arg]
    for order in (1, -1):
        table = table_from(dict(list(zip(names, values, strict=True))[::order]))
        coordinates = choose_coordinates(Sphere(2), table)
        assert coordinates.columns == (names[1], names[0])
        frame = SKY.galactic if names[0] == "glon" else SKY
        np.testing.assert_allclose(coordinates.points(table), frame.cartesian.xyz.value.T, atol=1e-14)


def test_two_pairs_of_coordinates_are_not_chosen_from() -> None:
    table = table_from({"ra": SKY.ra.deg, "dec": SKY.dec.deg, "glon": SKY.galactic.l.deg, "glat": SKY.galactic.b.deg})
    with pytest.raises(TableError, match="it is not clear which columns hold the points"):
        choose_coordinates(Sphere(2), table)
    assert choose_coordinates(Sphere(2), table, ["glon", "glat"]).columns == ("glat", "glon")


def test_hours_are_refused(tmp_path: Path) -> None:
    table = table_from({"ra": SKY.ra.hour, "dec": SKY.dec.deg})
    with pytest.raises(TableError, match="as hours do; multiply them by 15, or add --degrees"):
        choose_coordinates(Sphere(2), table)
    assert choose_coordinates(Sphere(2), table, radians=False).columns == ("dec", "ra")
    columns = [fits.Column(name="RA", format="D", unit="h", array=SKY.ra.hour)]
    columns.append(fits.Column(name="DEC", format="D", unit="deg", array=SKY.dec.deg))
    fits.BinTableHDU.from_columns(columns).writeto(file := tmp_path / "t.fits")
    with pytest.raises(TableError, match="column 'RA' is in hours"):
        read_table(file)


def test_several_tables_in_a_file(tmp_path: Path) -> None:
    units = [fits.table_to_hdu(catalogue()["RA", "DEC"]), fits.table_to_hdu(catalogue()["mag",])]
    for unit, name in zip(units, ("STARS", "MAGS"), strict=True):
        unit.name = name
    fits.HDUList([fits.PrimaryHDU(np.eye(3)), *units]).writeto(file := tmp_path / "t.fits")
    assert read_table(f"{file}#stars").names == ("RA", "DEC")
    with pytest.raises(TableError, match="there are 2 tables in it, STARS, MAGS; name one"):
        read_table(file)
    fits.PrimaryHDU(np.eye(3)).writeto(file := tmp_path / "picture.fits")
    with pytest.raises(TableError, match="there is no table with a table in it"):
        read_table(file)
    content = (tmp_path / "t.fits").read_bytes()
    (tmp_path / "cut.fits").write_bytes(content[:3000])
    with pytest.raises(TableError, match=r"cut.fits: "):
        read_table(tmp_path / "cut.fits")
