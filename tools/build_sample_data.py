"""Build `sample_data/` from the simulated development scans: descriptive names, methods, truth, two scans as XRDML.

python tools/build_sample_data.py ../shared/data/simulated sample_data
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from xml.sax.saxutils import escape

SCANS = {
    "dev_05": "snni_z1.00_clean",
    "dev_01": "snni_z0.10_little_ni3sn4",
    "dev_04": "snni_z0.50_short_goniometer",
    "dev_11": "snni_z0.50_textured_tin",
    "dev_12": "snni_z2.00_low_counts",
    "dev_10": "snni_z1.00_fine_grains_hump",
}
AS_XRDML = ("dev_04", "dev_10")

XRDML = """\
<?xml version="1.0" encoding="UTF-8"?>
<xrdMeasurements xmlns="http://www.xrdml.com/XRDMeasurement/1.5" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"\
 xsi:schemaLocation="http://www.xrdml.com/XRDMeasurement/1.5 http://www.xrdml.com/XRDMeasurement/1.5/XRDMeasurement.xsd"\
 status="Completed">
  <comment><entry>Simulated, not measured; see sample_data/README.md</entry></comment>
  <sample type="To be analyzed"><id>{sample}</id></sample>
  <xrdMeasurement measurementType="Scan" status="Completed">
    <usedWavelength intended="K-Alpha">
      <kAlpha1 unit="Angstrom">1.5405929</kAlpha1>
      <kAlpha2 unit="Angstrom">1.5444274</kAlpha2>
      <kBeta unit="Angstrom">1.3922500</kBeta>
      <ratioKAlpha2KAlpha1>0.5000</ratioKAlpha2KAlpha1>
    </usedWavelength>
    <incidentBeamPath>
      <radius unit="mm">{radius:.2f}</radius>
      <xRayTube><anodeMaterial>Cu</anodeMaterial></xRayTube>
      <sollerSlit name="Soller slit {soller:.2f} deg"><opening unit="rad">{soller_rad:.4f}</opening></sollerSlit>
      <divergenceSlit name="Fixed slit {divergence:g} deg" xsi:type="fixedDivergenceSlitType"/>
    </incidentBeamPath>
    <diffractedBeamPath>
      <radius unit="mm">{radius:.2f}</radius>
      <filter name="Nickel"><material>Ni</material></filter>
    </diffractedBeamPath>
    <scan appendNumber="0" mode="Continuous" scanAxis="Gonio" status="Completed">
      <dataPoints>
        <positions axis="2Theta" unit="deg">
          <startPosition>{first}</startPosition>
          <endPosition>{last}</endPosition>
        </positions>
        <intensities unit="counts">{counts}</intensities>
      </dataPoints>
    </scan>
  </xrdMeasurement>
</xrdMeasurements>
"""


def main(source: Path, target: Path) -> None:
    """Write every scan with its method, and the truth of all of them."""
    target.mkdir(exist_ok=True)
    truths = json.loads((source / "truth.json").read_text())
    selected = {}
    for old, new in SCANS.items():
        truth = truths[old]
        scan = (source / f"{old}.xy").read_text()
        if old in AS_XRDML:
            file = f"{new}.xrdml"
            (target / file).write_text(as_xrdml(scan, new, truth["instrument"]))
        else:
            file = f"{new}.xy"
            (target / file).write_text(f"# Simulated, not measured; see sample_data/README.md\n{scan}")
        method = (source / f"{old}.toml").read_text().replace(f"simulated {old}", new)
        (target / f"{new}.toml").write_text(method)
        selected[new] = {**truth, "file": file, "options": ["--method", f"{new}.toml"], "origin": old}
    (target / "truth.json").write_text(json.dumps(selected, indent=1) + "\n")


def as_xrdml(scan: str, sample: str, instrument: dict[str, float]) -> str:
    """Return an evenly stepped text scan as XRDML 1.5."""
    rows = [line.split() for line in scan.splitlines() if not line.startswith("#")]
    return XRDML.format(
        sample=escape(sample),
        radius=instrument["R_mm"],
        soller=instrument["soller_deg"],
        soller_rad=instrument["soller_deg"] * 3.141592653589793 / 180.0,
        divergence=instrument["div_deg"],
        first=rows[0][0],
        last=rows[-1][0],
        counts=" ".join(count for _, count in rows),
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
