"""Form factors, dispersion and attenuation against gemmi's tables, xraydb, and published figures."""

from __future__ import annotations

import gemmi
import numpy as np
import pytest
import xraydb

from xrdz import scattering
from xrdz.errors import InputError
from xrdz.reference import reference
from xrdz.scattering import (
    atomic_mass,
    atomic_number,
    dispersion,
    form_factor,
    mass_attenuation,
    photoabsorption,
    tabulated_ion,
)
from xrdz.wavelength import HC_KEV_ANGSTROM

CU_K_ALPHA1 = 1.5405929
MO_K_ALPHA1 = 0.70931715
LIBRARY_ELEMENTS = ("H", "B", "C", "O", "F", "Na", "Mg", "Al", "Si", "Cl", "Ca", "Ti", "V", "Fe", "Ni", "Cu", "Zn", "Y")


@pytest.mark.parametrize("element", [*LIBRARY_ELEMENTS[1:], "Zr", "Sn", "La", "Pb", "U"])
def test_form_factor_agrees_with_international_tables(element):
    # gemmi's IT92 coefficients are four Gaussians fitted up to s = 2: 0.5 % of Z is their own error
    s = np.linspace(0.0, 1.0, 51)
    expected = np.array([gemmi.Element(element).it92.calculate_sf(value**2) for value in s])
    np.testing.assert_allclose(form_factor(element, s=s), expected, atol=0.006 * atomic_number(element))


@pytest.mark.parametrize("number", range(1, 99))
def test_form_factor_is_the_atomic_number_at_zero(number):
    element = gemmi.Element(number).name
    assert atomic_number(element) == number
    assert form_factor(element, s=np.zeros(1))[0] == pytest.approx(number, rel=2e-3)


# Amplitudes and exponents of four Gaussians and the constant of ions: International Tables C (1992), table 6.1.1.4.
IONS_OF_THE_TABLES = {
    ("Al", 3): ((4.17448, 3.3876, 1.20296, 0.528137), (1.93816, 4.14553, 0.228753, 8.28524), 0.706786),
    ("Ca", 2): ((15.6348, 7.9518, 8.4372, 0.8537), (-0.0074, 0.6089, 10.3116, 25.9905), -14.875),
    ("Ti", 4): ((19.5114, 8.23473, 2.01341, 1.5208), (0.178847, 6.67018, -0.29263, 12.9464), -13.28),
    ("Zn", 2): ((11.9719, 7.3862, 6.4668, 1.394), (2.9946, 0.2031, 7.0826, 18.0995), 0.7807),
    ("F", -1): ((3.6322, 3.51057, 1.26064, 0.940706), (5.27756, 14.7353, 0.442258, 47.3437), 0.653396),
}


@pytest.mark.parametrize(("element", "charge"), IONS_OF_THE_TABLES)
def test_form_factor_of_an_ion_agrees_with_international_tables(element, charge):
    amplitudes, exponents, constant = IONS_OF_THE_TABLES[element, charge]
    s = np.linspace(0.0, 1.0, 51)
    expected = constant + np.exp(-np.outer(s**2, exponents)) @ np.array(amplitudes)
    # four Gaussians, as for the neutral atoms above
    found = form_factor(element, s=s, charge=charge, formal=charge)
    np.testing.assert_allclose(found, expected, atol=0.006 * atomic_number(element))


@pytest.mark.parametrize(
    ("element", "charge", "formal"), [("Al", 1.5, 3), ("Ti", 2.0, 4), ("O", -2.0, -2), ("Fe", 1.3, 2.67)]
)
def test_form_factor_at_zero_is_the_number_of_electrons(element, charge, formal):
    found = form_factor(element, s=np.zeros(1), charge=charge, formal=formal)
    assert found[0] == pytest.approx(atomic_number(element) - charge, abs=0.02)


def test_a_charge_in_between_lies_on_the_line_to_the_formal_ion():
    s = np.linspace(0.05, 0.6, 12)
    ends = form_factor("Ti", s=s), form_factor("Ti", s=s, charge=4.0, formal=4.0)
    np.testing.assert_allclose(form_factor("Ti", s=s, charge=2.0, formal=4.0), 0.5 * (ends[0] + ends[1]), rtol=1e-12)
    assert tabulated_ion("Sn", 2.0) == 2
    assert tabulated_ion("Sn", 4.0) == 4
    assert tabulated_ion("Fe", 2.667) == 3


def test_an_ion_nobody_tabulated_is_refused():
    with pytest.raises(InputError, match=r"no ion of charge \+3"):
        tabulated_ion("Y", 3.0)


def test_form_factor_keeps_the_shape_and_the_argument():
    s = np.linspace(0.0, 0.6, 6).reshape(2, 3)
    s.setflags(write=False)
    assert form_factor("Sn", s=s).shape == (2, 3)


def test_published_dispersion_at_copper_k_alpha():
    assert dispersion("Ni", wavelength=CU_K_ALPHA1).real == pytest.approx(-3.0, abs=0.1)
    assert dispersion("Sn", wavelength=CU_K_ALPHA1).imag == pytest.approx(5.4, abs=0.1)


@pytest.mark.parametrize("wavelength", [CU_K_ALPHA1, MO_K_ALPHA1, 1.788996])
@pytest.mark.parametrize("element", ["C", "O", "Al", "Si", "Ca", "Ti", "Ni", "Cu", "Zn", "Y", "Zr", "Sn", "La"])
def test_dispersion_agrees_with_cromer_and_liberman(element, wavelength):
    # two theories: they differ by up to 0.35 electrons in f' of heavy atoms and by 4 % in f''
    f_prime, f_double_prime = gemmi.cromer_liberman(
        z=atomic_number(element), energy=1000.0 * HC_KEV_ANGSTROM / wavelength
    )
    value = dispersion(element, wavelength=wavelength)
    assert value.real == pytest.approx(f_prime, abs=0.35)
    assert value.imag == pytest.approx(f_double_prime, rel=0.04, abs=0.002)


@pytest.mark.parametrize("element", ["O", "Al", "Ni", "Sn", "La", "Pb", "U"])
def test_tables_follow_their_source_between_their_points(element):
    for energy in np.geomspace(2.5, 124.0, 73):
        wavelength = HC_KEV_ANGSTROM / energy
        value = dispersion(element, wavelength=wavelength)
        # 0.2 % of the table and what the two interpolations differ by next to an edge
        assert value.imag == pytest.approx(xraydb.f2_chantler(element, 1000 * energy), rel=6e-3)
        total, photo = (xraydb.mu_elam(element, 1000 * energy, kind=kind) for kind in ("total", "photo"))
        assert mass_attenuation(element, wavelength=wavelength) == pytest.approx(total, rel=3e-3)
        assert photoabsorption(element, wavelength=wavelength) == pytest.approx(photo, rel=3e-3)


def test_nickel_edge_is_sharp():
    above, below = (HC_KEV_ANGSTROM / energy for energy in (8.3345, 8.3315))
    assert mass_attenuation("Ni", wavelength=above) > 7 * mass_attenuation("Ni", wavelength=below)
    assert dispersion("Ni", wavelength=above).imag > 3 * dispersion("Ni", wavelength=below).imag


@pytest.mark.parametrize("element", ["O", "Al", "Ni", "Sn", "La"])
def test_photoabsorption_and_dispersion_obey_the_optical_theorem(element):
    # mu/rho = 2 r_e lambda f'' N_A / A links two independent tables; Chantler and Elam differ by up to 5 %
    classical_radius_cm, avogadro = 2.8179403e-13, 6.02214076e23
    f_double_prime = dispersion(element, wavelength=CU_K_ALPHA1).imag
    expected = 2 * classical_radius_cm * CU_K_ALPHA1 * 1e-8 * f_double_prime * avogadro / atomic_mass(element)
    assert photoabsorption(element, wavelength=CU_K_ALPHA1) == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize(
    ("id", "low", "high"),
    [
        ("sn", 1756, 1794),
        ("ni3sn4", 1626, 1667),
        ("sno2", 1374, 1374),
        ("cu", 462, 462),
        ("ni", 434, 434),
        ("corundum", 126, 126),
        ("graphite", 10, 10),
    ],
)
def test_linear_attenuation_at_copper_k_alpha(id, low, high):
    # published values in 1/cm, rounded; photoabsorption and total differ by some percent
    assert low * 0.995 - 0.5 <= reference(id).linear_attenuation(CU_K_ALPHA1) <= high * 1.005 + 0.5


def test_atomic_masses():
    assert atomic_mass("Sn") == pytest.approx(118.71, abs=0.01)
    assert atomic_mass("Ni") == pytest.approx(58.6934, abs=0.001)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: form_factor("Sm1", s=np.zeros(1)), "did you mean 'Sm'"),
        (lambda: atomic_mass("Qq"), "Give a chemical symbol"),
        (lambda: dispersion("Cf", wavelength=1.5), "beyond uranium"),
        (lambda: dispersion("Sn", wavelength=15.4), "outside the scattering tables"),
        (lambda: mass_attenuation("Sn", wavelength=-1.0), "outside the scattering tables"),
    ],
)
def test_errors_say_what_to_do(call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_table_file_is_small():
    assert scattering._TABLE_FILE.stat().st_size < 600_000
