"""Method and instrument files: what is understood, what is refused, and the hash that names the content."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import xrdz
from xrdz.cli import main
from xrdz.commands.method import STARTER
from xrdz.errors import InputError
from xrdz.fields import Estimate
from xrdz.instrument import (
    INSTRUMENT_FIELDS,
    RESOLUTION_PARAMETERS,
    Instrument,
    IntensityResponse,
    Resolution,
    instrument_schema,
    read_instrument,
    write_instrument,
)
from xrdz.method import (
    METHOD_FIELDS,
    Decision,
    InternalStandard,
    Method,
    default_method,
    method_schema,
    parse_phases,
    parse_range,
    parse_ratio,
    read_method,
)
from xrdz.wavelength import EMISSION_LINES, Wavelength, wavelength_from_name

CONTRACT_METHOD = """
name = "Sn-Ni powder, Cu K-alpha"
version = "1"
phases = ["sn", "ni3sn4", "corundum"]
candidates = ["ni", "ni3sn2", "sno2", "graphite", "cu"]
ratio = "ni3sn4/sn"
two_theta = [20.0, 120.0]
exclude = [[42.9, 43.7]]
[instrument]
name = "Philips PW3020"
goniometer_radius_mm = 173.0
wavelength = "CuKa"
monochromator_two_theta_deg = 26.6
soller_deg = 2.3
[instrument.resolution]
u = 0.004
w = [0.003, 0.0001]
[particle_size_um]
sn = [5.0, 2.0]
[internal_standard]
phase = "corundum"
mass_fraction = 0.20
[decision]
rule = "guard-band"
coverage = 0.99
method_u_ln = 0.05
[laboratory]
name = "Powder laboratory"
"""


def written(folder: Path, text: str, name: str = "method.toml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_every_key_of_the_contract_is_understood(tmp_path: Path) -> None:
    method = read_method(written(tmp_path, CONTRACT_METHOD))
    assert method.phases == ("sn", "ni3sn4", "corundum")
    assert method.candidates == ("ni", "ni3sn2", "sno2", "graphite", "cu")
    assert method.ratio == ("ni3sn4", "sn")
    assert method.two_theta == (20.0, 120.0)
    assert method.exclude == ((42.9, 43.7),)
    assert method.instrument == Instrument(
        name="Philips PW3020",
        goniometer_radius_mm=173.0,
        wavelength=wavelength_from_name("CuKa"),
        monochromator_two_theta_deg=26.6,
        soller_deg=2.3,
        resolution=Resolution(u=Estimate(0.004), w=Estimate(0.003, 0.0001)),
    )
    assert method.particle_size_um == {"sn": Estimate(5.0, 2.0)}
    assert method.internal_standard == InternalStandard("corundum", 0.20)
    assert method.decision == Decision("guard-band", 0.99, 0.05)
    assert method.laboratory == {"name": "Powder laboratory"}
    assert method.directory == tmp_path.resolve()


def test_defaults_are_those_of_the_contract() -> None:
    method = default_method()
    assert method.phases == ("sn", "ni3sn4")
    assert method.ratio == ("ni3sn4", "sn")
    assert method.candidates == ("ni", "ni3sn2", "sno2", "graphite", "cu")
    assert method.instrument.wavelength is None
    assert method.decision == Decision("non-binary", 0.95, None)


@pytest.mark.parametrize(
    ("phases", "expected"),
    [
        ('["cu", "ni3sn4", "sn"]', ("ni3sn4", "sn")),
        ('["anatase", "zincite", "rutile"]', ("zincite", "anatase")),
        ('["corundum"]', None),
    ],
)
def test_the_default_ratio_follows_the_phases(tmp_path: Path, phases: str, expected: tuple[str, str] | None) -> None:
    assert read_method(written(tmp_path, f"phases = {phases}")).ratio == expected


def test_an_internal_standard_is_never_part_of_the_default_ratio(tmp_path: Path) -> None:
    text = 'phases = ["corundum", "cu", "ni"]\n[internal_standard]\nphase = "corundum"\nmass_fraction = [0.2, 0.001]'
    method = read_method(written(tmp_path, text))
    assert method.ratio == ("ni", "cu")
    assert method.internal_standard == InternalStandard("corundum", 0.2, 0.001)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('phasse = ["sn"]', ["method.toml", "'phasse'", "'phases'"]),
        ('wavelength = "CuKa"', ["'wavelength'", "belongs in [instrument]"]),
        ('[instrument]\nwave_length = "CuKa"', ["[instrument]", "'wave_length'", "'wavelength'"]),
        ('[instrument]\nwavelength = "CuKb"', ["[instrument] wavelength", "'CuKb'", "'CuKa'"]),
        ("[instrument]\nwavelength = [[1.54, -1.0]]", ["wavelength[0][1]", "-1.0", "positive"]),
        ("[instrument]\nwavelength = 15.4", ["[instrument] wavelength", "15.4", "angstrom"]),
        ("[instrument]\ngoniometer_radius_mm = -3", ["goniometer_radius_mm = -3", "mm"]),
        ("[instrument.resolution]\nuu = 3", ["[instrument.resolution]", "'uu'", "'u'"]),
        ("[instrument.resolution]\nu = [1, 2, 3]", ["[instrument.resolution] u", "[1, 2, 3]", "[value, standard"]),
        ('[instrument.resolution]\nparameters = ["u"]', ["parameters = ['u']"]),
        ('[instrument.resolution]\nu = 1\nparameters = ["u"]\ncovariance = [[1, 2]]', ["covariance", "1 x 1"]),
        ("exclude = [[44, 43]]", ["exclude[0] = [44, 43]", "[low, high]"]),
        ("two_theta = [true, 3]", ["two_theta[0] = True", "degrees"]),
        ("two_theta = [20, nan]", ["two_theta[1] = nan"]),
        ('two_theta = "20:100"', ["two_theta = '20:100'", "[low, high]"]),
        ('phases = "sn"', ["phases = 'sn'", 'such as ["sn", "ni3sn4"]']),
        ("phases = []", ["phases", "at least one"]),
        ('phases = ["sn", "Sn"]', ["'sn' is named twice"]),
        ('candidates = ["sn"]', ["'sn' is named twice"]),
        ('ratio = "ni3sn5/sn"', ["'ni3sn5'", "nearest is 'ni3sn4'"]),
        ('ratio = "sn"', ["ratio 'sn'", "such as ni3sn4/sn"]),
        ("version = 1", ["version = 1", "text"]),
        ('phases = ["missing.cif"]', ["missing.cif", "cannot be read"]),
        ("[decision]\ncoverage = 95", ["[decision] coverage = 95", "0.95"]),
        ('[decision]\nrule = "nonbinary"', ["rule = 'nonbinary'", '"non-binary"']),
        ('[internal_standard]\nphase = "corundum"\nmass_fraction = 0.2', ["'corundum'", "add it to phases"]),
        ('[internal_standard]\nphase = "sn"', ["'mass_fraction' is missing"]),
        ("[particle_size_um]\nsm = 3", ["'sm'", "nearest is 'sn'"]),
        ('instrument = "nowhere.toml"', ["nowhere.toml", "cannot be read"]),
        ("name = \nversion = 1", ["method.toml", "line 1"]),
    ],
)
def test_what_cannot_be_used_is_refused_with_place_value_and_remedy(tmp_path: Path, text: str, said: list[str]) -> None:
    with pytest.raises(InputError) as refused:
        read_method(written(tmp_path, text))
    for part in said:
        assert part in str(refused.value)


def test_a_missing_file_and_one_that_is_not_text_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_method(tmp_path / "none.toml")
    (tmp_path / "latin.toml").write_bytes(b'name = "M\xfcller"')
    with pytest.raises(InputError, match="UTF-8"):
        read_method(tmp_path / "latin.toml")


def test_the_hash_names_the_content_whatever_the_door(tmp_path: Path) -> None:
    method = read_method(written(tmp_path, CONTRACT_METHOD))
    lines = [f"{line}   # a comment" if "=" in line else line for line in CONTRACT_METHOD.splitlines()]
    assert read_method(written(tmp_path, "\ufeff" + "\n".join(lines), "other.toml")).sha256 == method.sha256
    inline = CONTRACT_METHOD[: CONTRACT_METHOD.index("[instrument]")]
    tables = CONTRACT_METHOD[CONTRACT_METHOD.index("[particle_size_um]") :]
    write_instrument(method.instrument, tmp_path / "instrument.toml")
    outside = read_method(written(tmp_path, f'{inline}instrument = "instrument.toml"\n{tables}', "outside.toml"))
    assert outside.sha256 == method.sha256
    assert read_method(written(tmp_path, "", "empty.toml")).sha256 == default_method().sha256


def test_the_hash_changes_with_the_content(tmp_path: Path) -> None:
    changes = {'"1"': '"2"', "173.0": "173.5", "0.99": "0.95", "20.0": "21.0", "43.7": "43.8", '"cu"]': '"si"]'}
    hashes = {read_method(written(tmp_path, CONTRACT_METHOD.replace(old, new))).sha256 for old, new in changes.items()}
    hashes.add(read_method(written(tmp_path, CONTRACT_METHOD)).sha256)
    assert len(hashes) == len(changes) + 1


def test_a_cif_is_an_absolute_path_and_hashed_by_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "phases").mkdir()
    cif = written(tmp_path / "phases", "data_one", "MyPhase.cif")
    path = written(tmp_path, 'phases = ["sn", "phases/MyPhase.cif"]')
    method = read_method(path)
    assert method.phases == ("sn", str(cif.resolve()))
    assert method.phase_ids == ("sn", "myphase")
    assert method.ratio == ("myphase", "sn")
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    written(moved, "data_one", "MyPhase.cif")
    assert read_method(written(moved, 'phases = ["sn", "MyPhase.cif"]')).sha256 == method.sha256
    cif.write_text("data_two")
    assert read_method(path).sha256 != method.sha256


def test_options_change_what_they_name_and_are_listed_as_deviations(tmp_path: Path) -> None:
    method = default_method()
    assert method.with_options() is method
    changed = method.with_options(phases=("anatase", "zincite"), two_theta=(20, 100), exclude=[(42.0, 43.0)])
    assert changed.ratio == ("zincite", "anatase")
    assert changed.two_theta == (20, 100)
    assert changed.deviations == (
        "phases = anatase, zincite",
        "two_theta = 20 to 100 deg",
        "exclude also 42 to 43 deg",
    )
    text = 'phases = ["anatase", "zincite"]\ntwo_theta = [20.0, 100.0]\nexclude = [[42, 43]]'
    assert changed.sha256 == read_method(written(tmp_path, text)).sha256


def test_option_cif_joins_the_phases_or_stands_in_for_its_id(tmp_path: Path) -> None:
    cif = written(tmp_path, "data_sn", "SN.cif")
    other = written(tmp_path, "data_alloy", "alloy.cif")
    method = default_method().with_options(cifs=[cif, other])
    assert method.phases == (str(cif.resolve()), "ni3sn4", str(other.resolve()))
    assert method.ratio == ("ni3sn4", "sn")
    assert default_method().with_options(phases=("ni", "alloy"), cifs=[other]).phase_ids == ("ni", "alloy")
    with pytest.raises(InputError, match=r"suffix \.cif"):
        default_method().with_options(cifs=[tmp_path / "alloy.txt"])


def test_option_ratio_must_name_fitted_phases() -> None:
    assert default_method().with_options(ratio=("sn", "ni3sn4")).ratio == ("sn", "ni3sn4")
    with pytest.raises(InputError, match="nearest is 'sn'"):
        default_method().with_options(ratio=("ni3sn4", "sm"))


def test_option_phases_keeps_a_ratio_that_still_applies_and_drops_doubled_candidates(tmp_path: Path) -> None:
    method = read_method(written(tmp_path, 'candidates = ["cu", "ni"]\nratio = "sn/ni3sn4"'))
    changed = method.with_options(phases=("sn", "ni3sn4", "cu"))
    assert changed.ratio == ("sn", "ni3sn4")
    assert changed.candidates == ("ni",)


def test_option_instrument_is_read_from_its_path(tmp_path: Path) -> None:
    path = written(tmp_path, "goniometer_radius_mm = 145.0", "aeris.toml")
    method = default_method().with_options(instrument=path)
    assert method.instrument.goniometer_radius_mm == 145.0
    assert method.sha256 != default_method().sha256


def test_a_method_travels_to_a_worker_process(tmp_path: Path) -> None:
    method = read_method(written(tmp_path, CONTRACT_METHOD))
    assert pickle.loads(pickle.dumps(method)) == method


def test_parse_range_ratio_and_phases() -> None:
    assert parse_range("20:100") == (20.0, 100.0)
    assert parse_ratio("Ni3Sn4/sn") == ("ni3sn4", "sn")
    assert parse_phases("sn, ni3sn4") == ("sn", "ni3sn4")


@pytest.mark.parametrize("text", ["20-100", "20", "100:20", "20:100:2", "a:b", "-5:20", "20:nan", "20:200", ""])
def test_parse_range_refuses(text: str) -> None:
    with pytest.raises(InputError, match="LOW:HIGH in degrees 2theta"):
        parse_range(text)


@pytest.mark.parametrize("text", ["sn", "sn/", "/sn", "a/b/c", "sn/sn", ""])
def test_parse_ratio_refuses(text: str) -> None:
    with pytest.raises(InputError, match="such as ni3sn4/sn"):
        parse_ratio(text)


def test_parse_phases_refuses_an_empty_id() -> None:
    with pytest.raises(InputError, match="separated by commas"):
        parse_phases("sn,,cu")


finite = st.floats(-1e6, 1e6)
estimates = st.builds(Estimate, finite, st.none() | st.floats(0.0, 1e3))
texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(lambda text: text == text.strip())


@st.composite
def resolutions(draw: st.DrawFn) -> Resolution:
    values = {name: draw(st.none() | estimates) for name in RESOLUTION_PARAMETERS}
    parameters = tuple(name for name, value in values.items() if value is not None)
    if not draw(st.booleans()):
        parameters = ()
    size = len(parameters)
    lower = [[abs(draw(finite)) if row == column else draw(finite) for column in range(row + 1)] for row in range(size)]
    covariance = tuple(tuple(lower[max(i, j)][min(i, j)] for j in range(size)) for i in range(size))
    return Resolution(**values, parameters=parameters, covariance=covariance)


instruments = st.builds(
    Instrument,
    name=st.just("") | texts,
    goniometer_radius_mm=st.none() | st.floats(11.0, 2000.0),
    wavelength=st.none()
    | st.sampled_from([*EMISSION_LINES, "CuKa1"]).map(wavelength_from_name)
    | st.builds(
        Wavelength,
        st.lists(st.tuples(st.floats(0.1, 5.0), st.floats(0.01, 10.0)), min_size=1, max_size=3).map(tuple),
        origin=st.just("method"),
    ),
    monochromator_two_theta_deg=st.none() | st.floats(1.0, 179.0),
    soller_deg=st.none() | st.floats(0.1, 20.0),
    resolution=st.none() | resolutions(),
    intensity_response=st.none()
    | st.builds(
        IntensityResponse,
        polynomial=st.sampled_from(["legendre", "chebyshev"]),
        two_theta=st.just((10.0, 150.0)),
        ln_coefficients=st.lists(estimates, min_size=1, max_size=4).map(tuple),
    ),
    calibration=st.dictionaries(texts, texts, max_size=3),
)


@given(instrument=instruments)
def test_an_instrument_is_read_back_as_it_was_written(
    tmp_path_factory: pytest.TempPathFactory, instrument: Instrument
) -> None:
    path = tmp_path_factory.getbasetemp() / "round_trip.toml"
    write_instrument(instrument, path)
    assert read_instrument(path) == instrument


def test_writing_an_instrument_into_a_missing_folder_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be written"):
        write_instrument(Instrument(), tmp_path / "none" / "instrument.toml")


@pytest.mark.parametrize(("name", "build"), [("method", method_schema), ("instrument", instrument_schema)])
def test_the_schema_files_agree_with_the_fields(name: str, build: object) -> None:
    path = Path(xrdz.__file__).parent / "schemas" / f"{name}.schema.json"
    assert json.loads(path.read_text()) == build(), f"run: xrdz method schema > {path}"  # type: ignore[operator]


def test_every_field_of_a_file_is_an_attribute() -> None:
    """The vocabulary and the dataclasses hold the same names, so that no key can be read and lost."""
    assert {field.name for field in METHOD_FIELDS} == set(default_method().to_dict())
    assert {field.name for field in INSTRUMENT_FIELDS} == set(Instrument.__dataclass_fields__)


def test_the_starter_is_a_method_commented_or_not(tmp_path: Path) -> None:
    assert read_method(written(tmp_path, STARTER)).phases == default_method().phases
    lines = [line for line in STARTER.splitlines() if not line.startswith(("# Method file", "# Check it"))]
    everything = "\n".join(line.removeprefix("# ") for line in lines if not line.startswith("# instrument ="))
    everything = everything.replace('phases = ["sn", "ni3sn4"]', 'phases = ["sn", "ni3sn4", "corundum"]')
    method = read_method(written(tmp_path, everything))
    assert method.decision.method_u_ln == 0.05
    assert method.candidates == ("ni", "ni3sn2", "sno2", "graphite", "cu")
    for field in METHOD_FIELDS:
        assert field.name in STARTER


def test_method_needs_no_numpy() -> None:
    code = "import sys, xrdz.method, xrdz.claims; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_method_built_directly_is_checked_and_hashed() -> None:
    assert Method(phases=("sn", "ni3sn4")).sha256 == default_method().sha256
    with pytest.raises(InputError, match="twice"):
        Method(phases=("sn", "sn"))


def test_a_logo_that_is_missing_is_noticed_before_any_fit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path, '[laboratory]\nlogo = "logo.svg"\n')
    for arguments in (["method", "check", str(path)], ["fit", "no.xy", "--method", str(path), "--report", "pdf"]):
        assert main(arguments) == 2
        assert "logo.svg cannot be read" in capsys.readouterr().err
    (tmp_path / "logo.svg").write_text("<svg/>")
    assert main(["method", "check", str(path)]) == 0
