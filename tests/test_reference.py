"""The reference library: every phase against independent figures, the compiled form, the user's CIFs, the command."""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path

import gemmi
import numpy as np
import pytest

from xrdz import reference as reference_module
from xrdz.cif import read_cif
from xrdz.cli import CommandParser
from xrdz.commands import reference as command
from xrdz.crystal import reflections, structure_factor_squared
from xrdz.errors import InputError
from xrdz.line_list import line_list, reference_intensity_ratio
from xrdz.reference import (
    add_reference,
    compile_library,
    library_folder,
    library_sha256,
    load_library,
    reference,
    reference_from_cif,
    reference_ids,
)

CU_K_ALPHA1 = 1.5405929
AMCSD_FOLDER = Path(__file__).resolve().parents[2] / "shared" / "data" / "cif"

# id: formula units, atoms in the cell, published density in g/cm^3, position of the strongest line in degrees at
# Cu K-alpha1 and its indices. Densities of handbooks and powder cards; positions of the powder cards.
PUBLISHED = {
    "sn": (4, 4, 7.286, 30.64, (2, 0, 0)),
    "ni3sn4": (2, 14, 8.648, 30.41, (1, 1, 1)),
    "ni3sn2": (1, 5, 8.97, 43.9, (1, 1, 0)),
    "ni3sn": (2, 8, 9.46, 44.9, (2, 0, 1)),
    "ni": (4, 4, 8.908, 44.51, (1, 1, 1)),
    "sno2": (2, 6, 6.993, 26.61, (1, 1, 0)),
    "sno": (2, 4, 6.40, 29.87, (1, 0, 1)),
    "graphite": (4, 4, 2.26, 26.54, (0, 0, 2)),
    "cu": (4, 4, 8.93, 43.30, (1, 1, 1)),
    "corundum": (6, 30, 3.987, 43.35, (1, 1, 3)),
    "fluorite": (4, 12, 3.18, 47.00, (2, 2, 0)),
    "zincite": (2, 4, 5.68, 36.25, (1, 0, 1)),
    "brucite": (1, 5, 2.37, 38.02, (0, 1, 1)),
    "magnetite": (8, 56, 5.20, 35.45, (3, 1, 1)),
    "zircon": (4, 24, 4.66, 26.98, (2, 0, 0)),
    "anatase": (4, 12, 3.89, 25.30, (1, 0, 1)),
    "rutile": (2, 6, 4.25, 27.45, (1, 1, 0)),
    "baddeleyite": (4, 12, 5.81, 28.17, (-1, 1, 1)),
    "v2o5": (2, 14, 3.36, 20.30, (0, 0, 1)),
    "nio": (4, 8, 6.81, 43.28, (2, 0, 0)),
    "lab6": (1, 7, 4.71, 30.38, (1, 1, 0)),
    "si": (8, 8, 2.329, 28.44, (1, 1, 1)),
    "y2o3": (16, 80, 5.03, 29.15, (2, 2, 2)),
    "quartz": (3, 9, 2.65, 26.64, (0, 1, 1)),
    "halite": (4, 8, 2.164, 31.69, (2, 0, 0)),
}

CONTRACT_IDS = tuple(PUBLISHED)

# Calculated I/Ic of powder cards at Cu K-alpha
I_OVER_IC = {
    "sn": 10.5,
    "ni3sn4": 4.1,
    "sno2": 10.1,
    "cu": 9.5,
    "ni": 8.0,
    "zincite": 5.6,
    "si": 4.8,
    "fluorite": 4.2,
    "graphite": 2.3,
}

AMCSD_ENTRIES = {
    "magnetite": "0002400",
    "zircon": "0002643",
    "halite": "0003397",
    "zincite": "0005203",
    "quartz": "0006362",
    "brucite": "0007912",
    "fluorite": "0008645",
    "corundum": "0009325",
    "sno": "0009724",
    "cu": "0011145",
    "ni": "0011153",
    "si": "0012843",
    "v2o5": "0013891",
    "lab6": "0014189",
    "graphite": "0014675",
    "rutile": "0019092",
    "anatase": "0019093",
    "baddeleyite": "0019229",
    "sno2": "0019242",
}


@pytest.fixture
def user_folder(tmp_path, monkeypatch):
    """An empty user library and cache, and fresh caches in memory before and after."""
    monkeypatch.setenv("XRDZ_REFERENCES", str(tmp_path / "references"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "cache"))
    reference_module.clear_caches()
    reference_module._reference_from_text.cache_clear()
    yield tmp_path
    reference_module.clear_caches()
    reference_module._reference_from_text.cache_clear()


# --- the shipped library ----------------------------------------------------------------------------------------------


def test_library_holds_what_the_contract_names():
    assert reference_ids()[: len(CONTRACT_IDS)] == tuple(id for id in reference_ids() if id in CONTRACT_IDS)
    assert set(CONTRACT_IDS) == {path.stem for path in library_folder().glob("*.cif")}


def test_compiled_library_is_up_to_date():
    folder = library_folder()
    compiled = (folder / "compiled.json").read_text(encoding="utf-8")
    assert compiled == compile_library(folder), "run `xrdz reference build`"


@pytest.mark.parametrize("id", CONTRACT_IDS)
def test_phase_agrees_with_published_figures(id):
    formula_units, atoms, density, two_theta, hkl = PUBLISHED[id]
    phase = reference(id)
    assert phase.formula_units == formula_units
    assert sum(phase.group_counts) == pytest.approx(atoms)
    # handbooks round, and natural zircon swells
    assert phase.density == pytest.approx(density, rel=5e-3)
    strongest = max(line_list(phase, wavelength=CU_K_ALPHA1), key=lambda line: line.intensity)
    assert hkl in strongest.hkl
    # cards round to 0.01 degrees and their specimens differ by up to 0.1 % in the cell
    assert strongest.two_theta == pytest.approx(two_theta, abs=0.05)


@pytest.mark.parametrize("id", CONTRACT_IDS)
def test_formula_units_make_the_cell(id):
    phase = reference(id)
    expanded = phase.formula.replace("(OH)2", "O2H2")
    counts = dict.fromkeys(phase.groups, 0.0)
    for element, amount in re.findall(r"([A-Z][a-z]?)(\d*)", expanded):
        counts[element] += float(amount or 1)
    for element, count in zip(phase.groups, phase.group_counts, strict=True):
        assert count == pytest.approx(phase.formula_units * counts[element])
    assert sum(phase.composition.values()) == pytest.approx(1.0)


@pytest.mark.parametrize("id", I_OVER_IC)
def test_reference_intensity_ratio(id):
    ratio = reference_intensity_ratio(reference(id), corundum=reference("corundum"), wavelength=CU_K_ALPHA1)
    assert ratio == pytest.approx(I_OVER_IC[id], rel=0.10)


def test_traps_of_the_literature_are_avoided():
    # COD and AMCSD give these two cells in kX units, 0.2 % small
    assert reference("sn").cell[:3] == (5.8318, 5.8318, 3.1819)
    assert reference("nio").cell[0] == pytest.approx(4.177, abs=5e-4)
    # the layers of V2O5 are stacked along the axis of 4.37 angstrom
    vanadia = reference("v2o5")
    assert vanadia.texture_axes[0] == (0, 0, 1)
    assert vanadia.cell[2] == pytest.approx(4.37, abs=0.01)


def test_nickel_content_of_the_alloy_phase():
    assert reference("ni3sn4").composition["Ni"] == pytest.approx(0.2705, abs=5e-5)


@pytest.mark.parametrize("id", AMCSD_ENTRIES)
def test_structure_agrees_with_amcsd(id):
    if not AMCSD_FOLDER.is_dir():
        pytest.skip(f"{AMCSD_FOLDER} with AMCSD structures is absent; it is not part of the project")
    path = next(AMCSD_FOLDER.glob(f"AMCSD_{AMCSD_ENTRIES[id]}*.cif"))
    block = gemmi.cif.read(str(path)).sole_block()
    # AMCSD's symbols leave the origin open; its operations do not
    operations = [gemmi.Op(gemmi.cif.as_string(text)) for text in block.find_values("_space_group_symop_operation_xyz")]
    phase = reference(id)
    found = reflections(phase, d_min=0.95)
    expected = np.zeros(found.n_reflections, dtype=complex)
    atoms = 0
    for site in gemmi.read_small_structure(str(path)).sites:
        images = np.array([operation.apply_to_xyz(site.fract.tolist()) for operation in operations])
        near = np.abs((images[:, None] - images) - np.round(images[:, None] - images)).max(axis=2) < 2e-3
        images = images[np.argmax(near, axis=1) == np.arange(len(images))]
        atoms += len(images)
        form = np.array([site.element.it92.calculate_sf(value**2) for value in found.s])
        expected += form * np.exp(2j * np.pi * found.hkl @ images.T).sum(axis=1)
    ours = np.abs(
        sum(
            np.array([gemmi.Element(group).it92.calculate_sf(value**2) for value in found.s])
            * found.geometry[:, column]
            for column, group in enumerate(phase.groups)
        )
    )
    assert atoms == len(phase.atom_group)
    assert phase.density == pytest.approx(float(block.find_value("_exptl_crystal_density_diffrn")), rel=1e-2)
    # positions of other authors: R factor between the two structures
    assert np.abs(ours - np.abs(expected)).sum() < 0.02 * np.abs(expected).sum()


def test_priors_are_plausible_and_sourced():
    for phase in load_library().values():
        assert len(phase.displacement) == len(phase.groups)
        for group, (value, su) in zip(phase.groups, phase.displacement, strict=True):
            assert 0.2 <= value <= (2.0 if group != "H" else 3.0)
            assert 0.05 <= su <= (0.3 if group != "H" else 1.0)
        assert phase.texture_axes
        assert any(letter.isdigit() for letter in phase.source)


def test_same_id_gives_the_same_object():
    assert reference("sn") is reference("sn")
    assert len(library_sha256()) == 64


def test_unknown_id_names_the_nearest():
    with pytest.raises(InputError, match="did you mean 'ni3sn4'"):
        reference("ni3snn4")


def test_loading_needs_neither_pymatgen_nor_scipy():
    program = (
        "import sys; from xrdz.reference import load_library; load_library();"
        "print([name for name in ('pymatgen', 'scipy', 'gemmi') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# --- CIFs of the user -------------------------------------------------------------------------------------------------

MINIMAL = """\
data_test
_cell_length_a {a}
_cell_length_b {b}
_cell_length_c {c}
_cell_angle_alpha {alpha}
_cell_angle_beta {beta}
_cell_angle_gamma {gamma}
{symmetry}
loop_
_atom_site_label
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
_atom_site_occupancy
{extra_tag}
{atoms}
"""


def cif_text(cell, operations, atoms, *, symmetry="", extra_tag=""):
    if operations:
        symmetry += "\nloop_\n_symmetry_equiv_pos_as_xyz\n" + "\n".join(f"'{text}'" for text in operations)
    names = dict(zip(("a", "b", "c", "alpha", "beta", "gamma"), cell, strict=True))
    return MINIMAL.format(symmetry=symmetry, atoms="\n".join(atoms), extra_tag=extra_tag, **names)


def operations_of(symbol: str) -> list[str]:
    return [operation.triplet() for operation in gemmi.SpaceGroup(symbol).operations()]


def family_intensities(phase, d_min=1.0) -> np.ndarray:
    """Return rows (1/d^2, m |F|^2) with coinciding families added, which no choice of axes changes."""
    lines = line_list(phase, wavelength=0.7, two_theta=(2.0, 2 * np.degrees(np.arcsin(0.35 / d_min))))
    return np.array([(line.d**-2, line.intensity / phase.volume**2) for line in lines])


def test_user_cif_equals_the_shipped_phase(user_folder):
    path = user_folder / "My_Tin.cif"
    path.write_text((library_folder() / "sn.cif").read_text(encoding="utf-8"), encoding="utf-8")
    phase = reference_from_cif(path)
    assert phase.id == "my_tin"
    assert phase.displacement == ((1.0, 0.3),)
    np.testing.assert_allclose(family_intensities(phase), family_intensities(reference("sn")), rtol=1e-9)


def test_user_cif_is_cached_without_pymatgen(user_folder, monkeypatch):
    path = user_folder / "tin.cif"
    path.write_text((library_folder() / "sn.cif").read_text(encoding="utf-8"), encoding="utf-8")
    first = reference_from_cif(path)
    reference_module._reference_from_text.cache_clear()
    monkeypatch.setattr(reference_module, "compile_cif", None)  # a second compilation would fail
    second = reference_from_cif(path)
    assert second.to_entry() == first.to_entry()


def test_an_unwritable_cache_does_no_harm(user_folder, monkeypatch):
    blocked = user_folder / "file"
    blocked.write_text("not a folder", encoding="utf-8")
    monkeypatch.setattr(reference_module, "_cache_folder", lambda: blocked)
    path = user_folder / "tin.cif"
    path.write_text((library_folder() / "sn.cif").read_text(encoding="utf-8"), encoding="utf-8")
    assert reference_from_cif(path).formula == "Sn"


def test_rhombohedral_axes_become_hexagonal():
    structure = gemmi.read_small_structure(str(library_folder() / "corundum.cif"))
    a, c = structure.cell.a, structure.cell.c
    length = np.sqrt(a**2 / 3 + c**2 / 9)
    angle = np.degrees(2 * np.arcsin(a / (2 * length)))
    # obverse setting: x_r = x + z, y_r = -x + y + z, z_r = -y + z
    atoms = []
    for site in structure.sites:
        x, y, z = site.fract.tolist()
        atoms.append(f"{site.element.name}1 {x + z:.8f} {-x + y + z:.8f} {-y + z:.8f} 1")
    text = cif_text((length, length, length, angle, angle, angle), operations_of("R -3 c:R"), atoms)
    crystal = read_cif(text, where="test")
    assert crystal.crystal_system == "trigonal"
    assert crystal.space_group_number == 167
    np.testing.assert_allclose(crystal.cell, (a, a, c, 90, 90, 120), rtol=1e-6)
    assert len(crystal.atom_element) == 30
    assert crystal.formula_units == 6


def test_monoclinic_axes_are_permuted_until_b_is_unique(user_folder):
    phase = reference("baddeleyite")
    a, b, c, _, beta, _ = phase.cell
    path = user_folder / "c_unique.cif"
    structure = gemmi.read_small_structure(str(library_folder() / "baddeleyite.cif"))
    atoms = []
    for site in structure.sites:
        x, y, z = site.fract.tolist()
        atoms.append(f"{site.label} {z} {x} {y} 1")  # a' = c, b' = a, c' = b
    path.write_text(cif_text((c, a, b, 90, 90, beta), operations_of("P 1 1 21/a"), atoms), encoding="utf-8")
    moved = reference_from_cif(path)
    assert moved.crystal_system == "monoclinic"
    found, expected = (
        structure_factor_squared(each, reflections(each, d_min=1.2), wavelength=CU_K_ALPHA1, displacement=[0.4, 0.5])
        for each in (moved, phase)
    )
    np.testing.assert_allclose(np.sort(found), np.sort(expected), rtol=1e-6)
    assert sorted(moved.cell[:3]) == pytest.approx(sorted((a, b, c)))
    assert moved.cell[1] == pytest.approx(b)


def test_mixed_sites_partial_occupancy_and_deuterium():
    atoms = ["Ni1 0 0 0 0.7", "Cu1 0 0 0 0.3", "D1 0.5 0.5 0.5 0.25"]
    crystal = read_cif(cif_text((3.6, 3.6, 3.6, 90, 90, 90), operations_of("F m -3 m"), atoms), where="test")
    assert crystal.elements == ("Ni", "Cu", "H")
    counts = np.bincount(crystal.atom_element, weights=crystal.atom_occupancy)
    np.testing.assert_allclose(counts, [2.8, 1.2, 1.0])


def test_rounded_thirds_are_special_positions():
    atoms = ["Ni 0 0 0 1", "Sn 0.3333 0.6667 0.25 1"]
    crystal = read_cif(cif_text((4.05, 4.05, 5.12, 90, 90, 120), operations_of("P 63/m m c"), atoms), where="test")
    assert len(crystal.atom_element) == 4
    assert crystal.formula_units == 2
    assert crystal.formula == "NiSn"


@pytest.mark.parametrize(
    ("tag", "value", "expected"),
    [
        ("_atom_site_B_iso_or_equiv", "0.82(3)", (0.82, 0.3)),
        ("_atom_site_U_iso_or_equiv", "0.01", (0.7896, 0.3)),
        ("_atom_site_U_iso_or_equiv", "?", (0.6, 0.4)),
        ("_atom_site_U_iso_or_equiv", "2.0", (0.6, 0.4)),  # a B under the wrong name
    ],
)
def test_displacement_of_the_cif_becomes_the_prior(user_folder, tag, value, expected):
    path = user_folder / "phase.cif"
    atoms = [f"Cu1 0 0 0 1 {value}"]
    path.write_text(
        cif_text((3.6, 3.6, 3.6, 90, 90, 90), operations_of("F m -3 m"), atoms, extra_tag=tag), encoding="utf-8"
    )
    assert reference_from_cif(path).displacement == (expected,)


def test_anisotropic_displacement_is_averaged():
    text = cif_text((4.0, 4.0, 5.0, 90, 90, 90), operations_of("P 4/m m m"), ["Cu1 0 0 0 1"])
    text += "loop_\n_atom_site_aniso_label\n_atom_site_aniso_U_11\n_atom_site_aniso_U_22\n_atom_site_aniso_U_33\n"
    text += "Cu1 0.006 0.006 0.012\n"
    assert read_cif(text, where="test").displacement["Cu"][0] == pytest.approx(8 * np.pi**2 * 0.008, abs=1e-4)


CUBIC = (3.6, 3.6, 3.6, 90, 90, 90)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("just some text", "not a CIF"),
        ("data_x\n_cell_length_a 3.6\n", "no atoms"),
        (cif_text(CUBIC, ["x,y,z"], ["Cu 0 0 0 1"]).replace("_cell_length_b 3.6\n", ""), "_cell_length_b is missing"),
        (cif_text((0.36, 0.36, 0.36, 90, 90, 90), ["x,y,z"], ["Cu 0 0 0 1"]), "not in angstrom"),
        (cif_text(CUBIC, [], ["Cu 0 0 0 1"]), "neither symmetry operations nor a space group"),
        (cif_text(CUBIC, [], ["Cu 0 0 0 1"], symmetry="_symmetry_space_group_name_H-M 'Z z z'"), "is not known"),
        (
            cif_text((5.4, 5.4, 5.4, 90, 90, 90), [], ["Si 0 0 0 1"], symmetry="_space_group_name_H-M_alt 'F d -3 m'"),
            "two origins",
        ),
        (cif_text(CUBIC, ["x,y,z", "-x,y,z", "x,-y,z"], ["Cu 0.1 0.2 0.3 1"]), "do not form a group"),
        (cif_text(CUBIC, ["x,y,z", "q,y,z"], ["Cu 0 0 0 1"]), "symmetry operation"),
        (
            cif_text((3.6, 3.6, 4.9, 90, 90, 90), operations_of("F m -3 m"), ["Cu 0 0 0 1"]),
            "does not have the symmetry",
        ),
        (cif_text(CUBIC, operations_of("F m -3 m"), ["Cu 0.01 0 0 1"]), "overlap"),
        (cif_text(CUBIC, ["x,y,z"], ["Cu 0 0 0 1.3"]), "occupancy 1.3"),
        (cif_text(CUBIC, ["x,y,z"], ["Cu 0 0 ? 1"]), "has no position"),
        (cif_text(CUBIC, ["x,y,z"], ["M1 0 0 0 1"]), "no element is known"),
        (
            cif_text(CUBIC, ["x,y,z"], ["Cu 0 0 0 1", "O 0.5 0.5 0.5 1"], symmetry="_chemical_formula_sum 'Cu2 O'"),
            "symmetry makes Cu1O1",
        ),
    ],
)
def test_unusable_cifs_say_what_is_wrong(text, message):
    with pytest.raises(InputError, match=message) as caught:
        read_cif(text, where="bad.cif")
    assert str(caught.value).startswith("bad.cif: ")


def test_space_group_by_symbol_alone():
    text = cif_text(CUBIC, [], ["Cu 0 0 0 1"], symmetry="_symmetry_space_group_name_H-M 'F m -3 m'")
    assert len(read_cif(text, where="test").atom_element) == 4


def test_every_amcsd_entry_is_read_with_its_density(user_folder):
    paths = sorted(AMCSD_FOLDER.glob("*.cif"))
    if not paths:
        pytest.skip(f"{AMCSD_FOLDER} with AMCSD structures is absent; it is not part of the project")
    for path in paths:
        stated = float(gemmi.cif.read(str(path)).sole_block().find_value("_exptl_crystal_density_diffrn"))
        # older entries were computed with older atomic masses
        assert reference_from_cif(path).density == pytest.approx(stated, abs=2e-3), path.name


def test_missing_file_is_an_input_error(user_folder):
    with pytest.raises(InputError, match="cannot be read"):
        reference_from_cif(user_folder / "absent.cif")


def test_added_reference_is_found(user_folder):
    before = library_sha256()
    path = user_folder / "Alpha.cif"
    path.write_text((library_folder() / "quartz.cif").read_text(encoding="utf-8"), encoding="utf-8")
    phase, target = add_reference(path)
    assert target.parent == user_folder / "references"
    assert reference("alpha") is phase
    assert reference_ids()[-1] == "alpha"
    assert library_sha256() != before
    with pytest.raises(InputError, match="ships with xrdz"):
        add_reference(path, id="quartz")
    with pytest.raises(InputError, match="reference id"):
        add_reference(path, id="../quartz")


def test_damaged_user_library_names_the_file(user_folder):
    (user_folder / "references").mkdir()
    (user_folder / "references" / "broken.json").write_text("{", encoding="utf-8")
    with pytest.raises(InputError, match=r"broken\.json"):
        reference("not-shipped")


# --- the command ------------------------------------------------------------------------------------------------------


def run(*words: str) -> int:
    parser = CommandParser(prog="xrdz")
    command.register(parser.add_subparsers(dest="command", required=True))
    arguments: argparse.Namespace = parser.parse_args(["reference", *words])
    return int(arguments.run(arguments))


def test_list_prints_every_reference(capsys):
    assert run("list") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == list(reference_ids())
    assert run("list", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert [entry["id"] for entry in document["references"]] == list(reference_ids())
    assert document["sha256"] == library_sha256()


@pytest.mark.parametrize("id", CONTRACT_IDS)
def test_show_describes_a_reference(id, capsys):
    assert run("show", id) == 0
    text = capsys.readouterr().out
    assert reference(id).source in text
    assert run("show", id, "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["density"] == reference(id).density
    assert document["lines"][0]["relative_intensity"] == 1.0


def test_add_and_show_a_cif(user_folder, capsys):
    path = user_folder / "mine.cif"
    path.write_text((library_folder() / "ni3sn4.cif").read_text(encoding="utf-8"), encoding="utf-8")
    assert run("show", str(path)) == 0
    assert "mine" in capsys.readouterr().out
    assert run("add", str(path), "--id", "ours") == 0
    assert capsys.readouterr().out.startswith("ours")
    assert run("show", "ours") == 0


def test_registering_imports_nothing_heavy():
    program = (
        "import sys, argparse; from xrdz.commands import reference;"
        "reference.register(argparse.ArgumentParser().add_subparsers()); print('numpy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
