"""The study of crystals: what it measures on crystals that are known, its moves between forms, and a small run."""

from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("spglib", reason="spglib comes with the extra bench")
pytest.importorskip("gemmi", reason="gemmi comes with the extra protein")

from experiments.crystals.__main__ import main
from experiments.crystals.baselines import scattered, shaken, shuffled
from experiments.crystals.data import Crystal, reduced, split
from experiments.crystals.measures import measured, row
from experiments.crystals.model import Elements, NearestOrder, decoded, encoded, joint_flow, space, turned
from experiments.crystals.network import CrystalNetwork
from experiments.crystals.oxidation_states import balanced

_CORNERS = [[0.0, 0.0, 0.0], [0.0, 0.5, 0.5], [0.5, 0.0, 0.5], [0.5, 0.5, 0.0]]


def rock_salt() -> Crystal:
    """Sodium chloride in its cubic cell of eight atoms, with an edge of 5.640 angstroms."""
    places = np.array([*_CORNERS, *([a + 0.5, b, c] for a, b, c in _CORNERS)])
    return Crystal(np.array([11] * 4 + [17] * 4), places, 5.640 * np.eye(3))


def skewed() -> Crystal:
    return Crystal(
        np.array([8, 22, 8]),
        np.array([[0.1, 0.2, 0.3], [0.6, 0.15, 0.8], [0.35, 0.7, 0.5]]),
        np.array([[3.0, 0.0, 0.0], [0.4, 3.6, 0.0], [-0.7, 0.9, 4.4]]),
    )


def test_rock_salt_measures_what_is_known() -> None:
    m = measured(rock_salt())
    assert m.closest == pytest.approx(2.820)
    assert m.density == pytest.approx(2.163, abs=0.01)
    assert m.volume == pytest.approx(5.640**3 / 8)
    assert (m.balanced, m.space_group) == (True, 225)
    # Six neighbours at half an edge, twelve at half a diagonal.
    np.testing.assert_allclose(m.distances, [2.820] * 6 + [5.640 / 2**0.5] * 6)
    assert rock_salt().formula == "NaCl"


def test_no_choice_of_a_cell_changes_what_is_measured() -> None:
    primitive = reduced(rock_salt())
    assert primitive is not None
    assert len(primitive.numbers) == 2
    for crystal, other in ((rock_salt(), primitive), (skewed(), reduced(skewed()))):
        assert other is not None
        first, second = measured(crystal), measured(other)
        np.testing.assert_allclose(first.distances, second.distances, atol=1e-6)
        assert first.density == pytest.approx(second.density)
        assert first.space_group == second.space_group


@pytest.mark.parametrize(
    ("formula", "expected"),
    [
        ([11, 17], True),
        ([26, 26, 8, 8, 8], True),
        ([22, 8, 8], True),
        ([11, 17, 17], False),
        ([8, 8], True),  # an element
        ([29, 79], True),  # metals
        ([10, 8], False),  # neon has no state
    ],
)
def test_charges_balance(formula: list[int], expected: bool) -> None:
    assert balanced(np.array(formula)) is expected


def test_labels_and_points_are_the_crystals() -> None:
    crystals = [rock_salt(), skewed(), skewed()._replace(numbers=np.array([22, 8, 8]))]
    elements = Elements(crystals)
    batches = encoded(crystals, elements)
    assert [batch.labels.shape for batch in batches] == [(2, 3), (1, 8)]
    for batch in batches:
        space(batch.labels.shape[1]).check_point(batch.x)
    for before, after in zip([crystals[1], crystals[2], crystals[0]], decoded(batches, elements), strict=True):
        assert np.array_equal(before.numbers, after.numbers)
        np.testing.assert_allclose(measured(before).distances, measured(after).distances, atol=1e-6)
    # Other orders and directions of the edges, of the same crystals.
    for after in decoded(turned(batches[:1]), elements)[::2]:
        np.testing.assert_allclose(measured(crystals[1]).distances, measured(after).distances, atol=1e-6)


def test_the_nearest_order_is_one_of_the_same_atoms_and_not_longer() -> None:
    m, g = space(5), torch.Generator().manual_seed(0)
    cells = torch.eye(3, dtype=torch.float64).expand(20, 3, 3)
    x_0, x_1 = (m.join(torch.rand(20, 5, 3, generator=g, dtype=torch.float64) - 0.5, cells) for _ in range(2))
    pairs = NearestOrder()(x_0, x_1)
    assert torch.equal(pairs.x_1, x_1)
    before, after = m.split(x_0)[0], m.split(pairs.x_0)[0]
    torch.testing.assert_close(before.sort(dim=1).values, after.sort(dim=1).values, atol=0, rtol=0)
    assert float(m.dist(pairs.x_0, x_1).square().mean()) < 0.9 * float(m.dist(x_0, x_1).square().mean())


def test_the_network_knows_no_origin_and_no_order() -> None:
    k, g = 4, torch.Generator().manual_seed(0)
    m = space(k)
    torch.manual_seed(0)
    network = CrystalNetwork(6, 5, width=16, layers=2).double()
    for weight in (network.move.weight, network.strain[2].weight):
        torch.nn.init.normal_(weight)
    a = torch.randn(3, 3, 3, generator=g, dtype=torch.float64)
    places = torch.rand(3, k, 3, generator=g, dtype=torch.float64) - 0.5
    x = m.projx(m.join(places, a @ a.mT + torch.eye(3)))
    labels, t = torch.randint(6, (3, k), generator=g), torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    logits, u = network(labels, x, t)
    m.check_tangent(x, u)
    moved = m.projx(m.join(places + 0.3, a @ a.mT + torch.eye(3)))
    torch.testing.assert_close(network(labels, moved, t), (logits, u))
    order = torch.tensor([2, 0, 3, 1])
    other = network(labels[:, order], m.join(m.split(x)[0][:, order], m.split(x)[1]), t)
    torch.testing.assert_close(other[0], logits[:, order])
    torch.testing.assert_close(m.split(other[1])[0], m.split(u)[0][:, order])


def test_baselines_and_rows() -> None:
    crystals = [rock_salt(), skewed(), skewed()._replace(numbers=np.array([22, 8, 8]))]
    test = [measured(crystal) for crystal in crystals]
    own = row("own", crystals, test, crystals)
    assert (own.volume, own.nearest, own.repeated, own.apart) == (0.0, 0.0, 1.0, 1.0)
    for make in (shuffled, scattered, shaken):
        made = make(crystals, 12, 0)
        assert len(made) == 12
        assert sorted({len(crystal.numbers) for crystal in made}) == [3, 8]
    for make in (scattered, shaken):
        assert row("made", make(crystals, 12, 0), test, crystals).nearest > 0
    parts = split([rock_salt()] * 20, 0)
    assert tuple(map(len, parts)) == (14, 2, 4)
    flow = joint_flow(crystals, Elements(crystals), 0, 16, 1)
    assert (flow.lengths, flow.shares) == ([3, 8], [2 / 3, 1 / 3])


@pytest.mark.slow
def test_quick_study(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        distribution("pymatgen")
    except PackageNotFoundError:
        pytest.skip("the crystals come with pymatgen: pip install --no-deps pymatgen")
    rows = main(["--quick", "--out", str(tmp_path / "page.md"), "--figure", str(tmp_path / "figure.png")])
    by_name = {r.name: r for r in rows}
    assert by_name["training"].repeated == 1.0
    assert by_name["joint flow"].repeated < 0.5 < by_name["real, held out"].touching
    assert "| joint flow |" in (tmp_path / "page.md").read_text(encoding="utf-8")
    assert (tmp_path / "figure.png").stat().st_size > 10_000
    assert "| joint flow |" in capsys.readouterr().out
