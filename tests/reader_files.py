"""Small files of every format, packed here from the formats' descriptions rather than by the project's writers."""

from __future__ import annotations

import io
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"

START, STEP, N_POINTS = 20.0, 0.02, 1501


def shared_file(name: str) -> Path:
    """Return a measured file, or skip the test where the shared data are not installed."""
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"{path} is not here: the measured files are kept outside the project")
    return path


def grid(n: int = N_POINTS) -> np.ndarray:
    return np.round(START + STEP * np.arange(n), 6)


def expected_counts(two_theta: np.ndarray, *, level: float = 200.0) -> np.ndarray:
    """Five lines with K-alpha2 on a falling background, counts."""
    pattern = level * np.exp(-(two_theta - 20.0) / 60.0)
    for centre, height in ((25.3, 8.0), (31.0, 25.0), (36.2, 3.0), (43.9, 12.0), (48.1, 1.5)):
        for shift, weight in ((0.0, 1.0), (0.0025 * centre / 1.0 * 0.6, 0.5)):
            pattern = pattern + weight * height * level / (1 + ((two_theta - centre - shift) / 0.06) ** 2)
    return pattern


def counts(n: int = N_POINTS, *, seed: int = 7, level: float = 200.0) -> np.ndarray:
    """Poisson counts of `expected_counts` on `grid`."""
    generator = np.random.default_rng(seed)
    return generator.poisson(expected_counts(grid(n), level=level)).astype(float)


def rows(two_theta: np.ndarray, intensity: np.ndarray, form: str = "{:.2f} {:.0f}") -> str:
    return "".join(form.format(x, y) + "\n" for x, y in zip(two_theta, intensity, strict=True))


def xy(y: np.ndarray) -> bytes:
    return rows(grid(y.size), y).encode()


def csv(y: np.ndarray) -> bytes:
    return ("Angle,Intensity\n" + rows(grid(y.size), y, "{:.2f},{:.0f}")).encode()


def xye(y: np.ndarray) -> bytes:
    return "".join(f"{a:.2f} {v:.0f} {np.sqrt(max(v, 1)):.4f}\n" for a, v in zip(grid(y.size), y, strict=True)).encode()


def highscore_csv(y: np.ndarray) -> bytes:
    head = (
        "[Measurement conditions]\nSample identification,tin 7\nMeasurement date / time,2/3/2024 10:11:12\n"
        "Operator,A. Analyst\nAnode material,Cu\nK-Alpha1 wavelength,1.540598\nK-Alpha2 wavelength,1.544426\n"
        "Ratio K-Alpha2/K-Alpha1,0.5\nDiffractometer system,EMPYREAN\nScan axis,Gonio\n"
        f"Goniometer radius [mm],240\nNo. of points,{y.size}\nTime per step [s],3.5\n[Scan points]\nAngle,Intensity\n"
    )
    return (head + rows(grid(y.size), y, "{:.4f},{:.0f}")).encode()


def eva_xy(y: np.ndarray) -> bytes:
    head = (
        '\'Id: "tin 7" Comment: "" Operator: "A. Analyst" Anode: "Co" Scantype: "Coupled TwoTheta/Theta"'
        ' TimePerStep: "0.5"\n'
    )
    return (head + rows(grid(y.size), y, "{:.4f} {:.0f}")).encode()


def start_step_stop(y: np.ndarray, *, order: str = "step") -> bytes:
    end = START + STEP * (y.size - 1)
    first = f"{START:.3f} {STEP:.3f} {end:.3f}" if order == "step" else f"{START:.3f} {end:.3f} {STEP:.3f}"
    body = [" ".join(f"{v:7.0f}" for v in y[i : i + 8]) for i in range(0, y.size, 8)]
    return (f"{first}  tin 7\n" + "\n".join(body) + "\n").encode()


def xdd(y: np.ndarray) -> bytes:
    end = START + STEP * (y.size - 1)
    body = "\n".join(f"{v:.0f}" for v in y)
    return f"/* tin 7\nAnode: Cu */\n{START:.3f} {STEP:.3f} {end:.3f}\n{body}\n".encode()


def cpi(y: np.ndarray) -> bytes:
    end = START + STEP * (y.size - 1)
    body = "\n".join(f"{v:.0f}" for v in y)
    return (
        f"SIETRONICS XRD SCAN\n{START:.3f}\n{end:.3f}\n{STEP:.3f}\nCu\n1.54056\n1-2-1999\n0.600\ntin 7\n"
        f"SCANDATA\n{body}\n"
    ).encode()


def udf(y: np.ndarray) -> bytes:
    end = START + STEP * (y.size - 1)
    body = [", ".join(f"{v:7.0f}" for v in y[i : i + 8]) for i in range(0, y.size, 8)]
    return (
        "SampleIdent,tin 7 ,/\nTitle1,first,/\nTitle2,,/\nDiffrType,PW3710,/\nDiffrNumber,1,/\nAnode,Cu,/\n"
        "LabdaAlpha1, 1.54056,/\nLabdaAlpha2, 1.54439,/\nRatioAlpha21, 0.50000,/\nDivergenceSlit,Fixed, 1/2,/\n"
        "ReceivingSlit,0.2,/\nMonochromatorUsed,YES ,/\nGeneratorVoltage,  40,/\nTubeCurrent,  55,/\n"
        f"FileDateTime,  1-nov-1999,  21:06,/\nDataAngleRange, {START:.4f}, {end:.4f},/\nScanStepSize, {STEP:.3f},/\n"
        "ScanType,CONTINUOUS,/\nScanStepTime,    5.00,/\nRawScan\n" + ",\n".join(body) + "/\n"
    ).encode()


def packed_philips(y: np.ndarray) -> np.ndarray:
    """Return the stored values v whose counts v^2 // 100 are nearest to y; the counts a file can hold are theirs."""
    return np.minimum(np.round(10 * np.sqrt(y)), 65535).astype("<u2")


def philips_counts(y: np.ndarray) -> np.ndarray:
    return (packed_philips(y).astype(int) ** 2 // 100).astype(float)


def rd(y: np.ndarray, *, version: bytes = b"V3RD") -> bytes:
    first = {b"V3RD": 250, b"V5RD": 810}[version]
    data = bytearray(first)
    data[0:4] = version
    data[84], data[85], data[86] = 3, 0, 3
    packed = packed_philips(y)
    struct.pack_into("<3d", data, 94, 1.54056, 1.54439, 0.5)
    struct.pack_into("<H", data, 136, int(packed.max()))
    data[138:146] = b"TIN7    "
    data[146:151] = b"tin 7"
    struct.pack_into("<3d", data, 214, STEP, START, START + STEP * (y.size - 1))
    return bytes(data) + packed.tobytes()


def uxd(y: np.ndarray, *, pairs: bool = False) -> bytes:
    head = (
        "; written for a test\n_FILEVERSION=2\n_SAMPLE='tin 7'\n_USER='A. Analyst'\n_GONIOMETER_RADIUS=217.5\n"
        "_FIXED_DIVSLIT=0.6\n_ANODE='Cu'\n_WL_UNIT='A'\n_WL1=1.5406\n_WL2=1.54439\n_WL3=1.39222\n_WLRATIO=0.5\n"
        f"; (Data for Range number 1)\n_DRIVE='COUPLED'\n_STEPTIME=2.0\n_STEPSIZE={STEP}\n_START={START}\n"
        "_KV=40\n_MA=30\n"
    )
    if pairs:
        return (head + "_2THETACOUNTS\n" + rows(grid(y.size), y, "  {:.4f}  {:.0f}")).encode()
    body = [" ".join(f"{v:8.0f}" for v in y[i : i + 8]) for i in range(0, y.size, 8)]
    return (head + "_COUNTS\n" + "\n".join(body) + "\n").encode()


RAS_HEAD = """*RAS_DATA_START
*RAS_HEADER_START
*FILE_OPERATOR "A. Analyst"
*FILE_SAMPLE "tin 7"
*HW_GONIOMETER_NAME "jp|SmartLab"
*HW_GONIOMETER_RADIUS-0 "90.0"
*HW_GONIOMETER_RADIUS-1 "114.0"
*HW_GONIOMETER_RADIUS-2 "190.0"
*HW_GONIOMETER_RADIUS-3 "300.0"
*HW_XG_TARGET_NAME "Cu"
*HW_XG_WAVE_LENGTH_ALPHA1 "1.540593"
*HW_XG_WAVE_LENGTH_ALPHA2 "1.544414"
*HW_XG_WAVE_LENGTH_BETA "1.392246"
*MEAS_COND_XG_CURRENT "30"
*MEAS_COND_XG_VOLTAGE "40"
*MEAS_COND_XG_WAVE_TYPE "Ka"
*MEAS_DATA_COUNT "{n}"
*MEAS_SCAN_AXIS_X_INTERNAL "TwoThetaTheta"
*MEAS_SCAN_SPEED "2.0"
*MEAS_SCAN_SPEED_UNIT "deg/min"
*MEAS_SCAN_STEP "0.02"
*MEAS_SCAN_UNIT_Y "{unit}"
*RAS_HEADER_END
*RAS_INT_START
"""


def ras(
    y: np.ndarray, *, factor: np.ndarray | None = None, unit: str = "counts", form: str = "{:.4f} {:.4f} {:.4f}"
) -> bytes:
    factor = np.ones(y.size) if factor is None else factor
    body = "".join(form.format(a, v, f) + "\n" for a, v, f in zip(grid(y.size), y, factor, strict=True))
    return (RAS_HEAD.format(n=y.size, unit=unit) + body + "*RAS_INT_END\n*RAS_DATA_END\n").encode()


RASX_CONDITIONS = """<?xml version="1.0" encoding="utf-8"?>
<MeasurementConditions><GeneralInformation><Operator>A. Analyst</Operator><SampleName>tin 7</SampleName>
<SystemName>SmartLab</SystemName></GeneralInformation><HWConfigurations><Distances>
<Distance To="AttachmentStage" From="XrayGenerator" Unit="mm" Value="300"/></Distances>
<XrayGenerator><TargetName>Cu</TargetName><WaveType>{wave}</WaveType><Current>30</Current><Voltage>40</Voltage>
<WavelengthKbeta>1.392246</WavelengthKbeta><WavelengthKalpha1>1.540593</WavelengthKalpha1>
<WavelengthKalpha2>1.544414</WavelengthKalpha2></XrayGenerator></HWConfigurations>
<ScanInformation><AxisName>TwoThetaTheta</AxisName><IntensityUnit>counts</IntensityUnit></ScanInformation>
</MeasurementConditions>"""


def zipped(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name, (2024, 1, 2, 3, 4, 6)), data, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def rasx(y: np.ndarray, *, factor: np.ndarray | None = None, wave: str = "Ka") -> bytes:
    factor = np.ones(y.size) if factor is None else factor
    body = "".join(f"{a:.4f}\t{v:.0f}\t{f:.4f}\n" for a, v, f in zip(grid(y.size), y, factor, strict=True))
    return zipped(
        {
            "Data0/Profile0.txt": b"\xef\xbb\xbf" + body.encode(),
            "Data0/MesurementConditions0.xml": RASX_CONDITIONS.format(wave=wave).encode(),
            "root.xml": b"<Root/>",
        }
    )


def asc(y: np.ndarray) -> bytes:
    end = START + STEP * (y.size - 1)
    body = [", ".join(f"{v:.0f}" for v in y[i : i + 4]) for i in range(0, y.size, 4)]
    return (
        "*TYPE\t\t=  Raw\n*CLASS\t\t=  Standard measurement\n*SAMPLE\t\t=  tin 7\n*GROUP_COUNT\t=  1\n"
        "*GONIO\t\t=  RINT2000\n"
        "*SCAN_AXIS\t=  2theta/theta\n*TARGET\t\t=  29\n*WAVE_LENGTH1\t=  1.54056\n*WAVE_LENGTH2\t=  1.5444\n"
        "*SPEED_DIM\t=  sec./step\n*YUNIT\t\t=  counts\n*BEGIN\n*GROUP\t\t=  0\n"
        f"*START\t\t=  {START}\n*STOP\t\t=  {end}\n*STEP\t\t=  {STEP}\n*SPEED\t\t=  2\n*KV\t\t=  40\n*MA\t\t=  30\n"
        f"*COUNT\t\t=  {y.size}\n" + "\n".join(body) + "\n*END\n*EOF\n"
    ).encode()


def gsas_std(y: np.ndarray) -> bytes:
    body = ["".join(f"{'':2s}{v:6.0f}" for v in y[i : i + 10]) for i in range(0, y.size, 10)]
    return (
        "tin 7\n"
        f"BANK 1 {y.size} {len(body)} CONST {100 * START:.1f} {100 * STEP:.2f} 0.0 0.0 STD\n" + "\n".join(body) + "\n"
    ).encode()


def gsas_esd(y: np.ndarray) -> bytes:
    su = np.sqrt(np.maximum(y, 1))
    cells = [f"{v:8.1f}{s:8.3f}" for v, s in zip(y, su, strict=True)]
    body = ["".join(cells[i : i + 5]) for i in range(0, y.size, 5)]
    return (
        "tin 7\n"
        f"BANK 1 {y.size} {len(body)} CONST {100 * START:.1f} {100 * STEP:.2f} 0.0 0.0 ESD\n" + "\n".join(body) + "\n"
    ).encode()


def gsas_alt(y: np.ndarray) -> bytes:
    su = np.sqrt(np.maximum(y, 1))
    cells = [f"{3200 * a:8.0f}{v:7.0f}{s:5.1f}" for a, v, s in zip(grid(y.size), y, su, strict=True)]
    body = ["".join(cells[i : i + 4]) for i in range(0, y.size, 4)]
    return (f"tin 7\nBANK 1 {y.size} {len(body)} RALF 0 0 0 0 ALT\n" + "\n".join(body) + "\n").encode()


def gsas_fxye(y: np.ndarray) -> bytes:
    su = np.sqrt(np.maximum(y, 1))
    body = "".join(f"{100 * a:12.4f} {v:10.2f} {s:9.4f}\n" for a, v, s in zip(grid(y.size), y, su, strict=True))
    return (
        f"tin 7\n# a comment\nBANK 1 {y.size} {y.size} CONS {100 * START:.3f} {100 * STEP:.3f} 0 0 FXYE\n{body}"
    ).encode()


def raw1(y: np.ndarray, *, n_ranges: int = 1, repeat_signature: bool = True) -> bytes:
    data = b""
    for number in range(n_ranges):
        header = bytearray(152)
        struct.pack_into("<IffIIf", header, 0, y.size, 4.0, STEP, 0, 0, START + 40 * number)
        struct.pack_into("<3f", header, 24, -1e6, -1e6, -1e6)
        header[36:41] = b"tin 7"
        struct.pack_into("<ff", header, 68, 1.5406, 1.5444)
        struct.pack_into("<I", header, 148, n_ranges - number - 1)
        data += (b"RAW " if number == 0 or repeat_signature else b"") + bytes(header) + y.astype("<f4").tobytes()
    return data


def raw2(y: np.ndarray) -> bytes:
    head = bytearray(256)
    head[0:4] = b"RAW2"
    struct.pack_into("<H", head, 4, 1)
    head[168:178] = b"01-Feb-92 "
    head[188:190] = b"Cu"
    struct.pack_into("<fff", head, 190, 1.5406, 1.5444, 0.5)
    block = bytearray(60)
    struct.pack_into("<HHIfff", block, 0, 60, y.size, 0, 2.0, STEP, START)
    return bytes(head) + bytes(block) + y.astype("<f4").tobytes()


def raw3(
    y: np.ndarray, *, n_ranges: int = 1, scan_type: int = 0, varying: bool = False, times: tuple[float, ...] = (2.0,)
) -> bytes:
    head = bytearray(712)
    head[0:7] = b"RAW1.01"
    struct.pack_into("<II", head, 8, 1, n_ranges)
    head[16:24], head[26:34] = b"02/01/03", b"10:11:12"
    head[36:46] = b"A. Analyst"
    head[326:331] = b"tin 7"
    struct.pack_into("<ff", head, 564, 217.5, 1.0)
    struct.pack_into("<f", head, 588, 0.2)
    head[608:610] = b"Cu"
    struct.pack_into("<5d", head, 616, 1.5418, 1.5406, 1.54439, 1.39222, 0.5)
    head[656:657] = b"A"
    data = bytes(head)
    for number in range(n_ranges):
        block = bytearray(304)
        start = START + 40 * number
        struct.pack_into("<IIdd", block, 0, 304, y.size, start / 2, start)
        struct.pack_into("<d", block, 176, STEP)
        struct.pack_into("<fI", block, 192, times[number % len(times)], scan_type)
        struct.pack_into("<II", block, 224, 40, 30)
        struct.pack_into("<d", block, 240, 1.5406)
        struct.pack_into("<III", block, 248, 1 if varying else 0, 12 if varying else 4, 0)
        if varying:
            angles = START + STEP * np.arange(y.size) + 0.001 * np.sin(np.arange(y.size))
            body = b"".join(struct.pack("<fd", v, a) for v, a in zip(y, angles, strict=True))
        else:
            body = y.astype("<f4").tobytes()
        data += bytes(block) + body
    return data


def raw4(y: np.ndarray, *, stride: int = 4, drive: bytes = b"2Theta", scan_type: bytes = b"Locked Coupled") -> bytes:
    def segment(kind: int, body: bytes) -> bytes:
        return struct.pack("<II", kind, 8 + len(body)) + body

    def text(key: bytes, value: bytes) -> bytes:
        return segment(10, b"\x00" * 4 + key.ljust(24, b"\x00") + value)

    hardware = bytearray(136)
    struct.pack_into("<II", hardware, 0, 30, 136)
    struct.pack_into("<f", hardware, 24, 560.0)
    struct.pack_into("<f", hardware, 36, 0.3)
    struct.pack_into("<f", hardware, 44, 2.5)
    struct.pack_into("<5d", hardware, 72, 1.5418, 1.5406, 1.54439, 1.39222, 0.5)
    hardware[116:118] = b"Cu"
    head = bytearray(61)
    head[0:7] = b"RAW4.00"
    head[12:22], head[24:32] = b"02/01/2024", b"10:11:12"
    drives = segment(
        50, struct.pack("<I", 2) + drive.ljust(24, b"\x00") + b"\x00" * 20 + struct.pack("<d", START) + b"\x00" * 28
    )
    drives += segment(
        50,
        struct.pack("<I", 1) + b"Theta".ljust(24, b"\x00") + b"\x00" * 20 + struct.pack("<d", START / 2) + b"\x00" * 28,
    )
    block = bytearray(160)
    struct.pack_into("<I", block, 0, 160)
    block[32 : 32 + len(scan_type)] = scan_type
    struct.pack_into("<ddIf", block, 72, START, STEP, y.size, 1.5)
    struct.pack_into("<ff", block, 100, 40.0, 30.0)
    struct.pack_into("<d", block, 112, 1.5406)
    struct.pack_into("<II", block, 136, stride, len(drives))
    body = b"".join(struct.pack("<f", v) + b"\x01" * (stride - 4) for v in y)
    return (
        bytes(head)
        + text(b"USER", b"A. Analyst")
        + text(b"SAMPLEID", b"tin 7")
        + bytes(hardware)
        + bytes(block)
        + drives
        + body
    )


def stoe(y: np.ndarray) -> bytes:
    data_blocks = -(-4 * y.size // 512)
    first = 0xA00
    data = bytearray(first + 512 * data_blocks)
    data[0:14] = b"RAW_1.06Powdat"
    data[0x10:0x1F] = b"22-Sep-20 17:18"
    data[0x20:0x25] = b"tin 7"
    struct.pack_into("<ff", data, 0x142, 1.54056, 1.54439)
    struct.pack_into("<HH", data, 0x1DA, data_blocks, len(data) // 512)
    data[0x600:0x608] = b"Operator"
    data[first - 0x200 : first - 0x1F1] = b"22-Sep-20 17:18"
    end = START + STEP * (y.size - 1)
    struct.pack_into("<H", data, first - 0x1DE, y.size)
    struct.pack_into("<6f", data, first - 0x1D4, START, START / 2, end, end / 2, STEP, STEP / 2)
    struct.pack_into("<II", data, first - 0x188, int(y.min()), int(y.max()))
    data[first : first + 4 * y.size] = y.astype("<u4").tobytes()
    return bytes(data)


XRDML = """<?xml version="1.0" encoding="UTF-8"?>
<xrdMeasurements xmlns="http://www.xrdml.com/XRDMeasurement/{version}" status="Completed">
<comment><entry>Diffractometer system=EMPYREAN</entry></comment>
<sample type="To be analyzed"><id>tin 7</id></sample>
<xrdMeasurement measurementType="{kind}" status="Completed" sampleMode="Reflection">
<usedWavelength intended="K-Alpha 1"><kAlpha1 unit="Angstrom">1.5405980</kAlpha1>
<kAlpha2 unit="Angstrom">1.5444260</kAlpha2><kBeta unit="Angstrom">1.3922500</kBeta>
<ratioKAlpha2KAlpha1>0.5000</ratioKAlpha2KAlpha1></usedWavelength>
<incidentBeamPath><radius unit="mm">240.00</radius><xRayTube><tension unit="kV">45</tension>
<current unit="mA">40</current><anodeMaterial>Cu</anodeMaterial></xRayTube>{incident}
<sollerSlit><opening unit="rad">0.0400</opening></sollerSlit></incidentBeamPath>
<diffractedBeamPath><radius unit="mm">240.00</radius>{diffracted}</diffractedBeamPath>
{scans}</xrdMeasurement></xrdMeasurements>
"""


def xrdml_scan(
    y: np.ndarray,
    *,
    factors: np.ndarray | None = None,
    tag: str = "counts",
    axis: str = "Gonio",
    time: float = 39.27,
    start: float = START,
) -> str:
    factor_text = (
        ""
        if factors is None
        else f"<beamAttenuationFactors>{' '.join(f'{f:g}' for f in factors)}</beamAttenuationFactors>"
    )
    return (
        f'<scan appendNumber="0" mode="Continuous" scanAxis="{axis}" status="Completed"><header>'
        "<startTimeStamp>2024-02-01T10:11:12+01:00</startTimeStamp><author><name>A. Analyst</name></author></header>"
        f'<dataPoints><positions axis="2Theta" unit="deg"><startPosition>{start}</startPosition>'
        f"<endPosition>{start + STEP * (y.size - 1):.6f}</endPosition></positions>{factor_text}"
        f'<commonCountingTime unit="seconds">{time}</commonCountingTime>'
        f'<{tag} unit="counts">{" ".join(f"{v:.10g}" for v in y)}</{tag}></dataPoints></scan>'
    )


def xrdml(
    y: np.ndarray,
    *,
    incident: str = "",
    diffracted: str = "",
    kind: str = "Scan",
    version: str = "2.1",
    scans: str = "",
) -> bytes:
    body = scans or xrdml_scan(y)
    return XRDML.format(version=version, kind=kind, incident=incident, diffracted=diffracted, scans=body).encode()


def pdcif(y: np.ndarray) -> bytes:
    return (
        "data_tin\n_pd_spec_description 'tin 7'\n_pd_meas_number_of_points " + str(y.size) + "\n"
        "_pd_instr_dist_spec/detc 217.5\n_diffrn_radiation_type 'Cu K\\a'\n"
        "loop_\n_pd_meas_2theta_scan\n_pd_meas_counts_total\n" + rows(grid(y.size), y)
    ).encode()


BRML_ROW = "<Datum>{time},{factor:g},{angle:.4f},{theta:.4f},{value:.10g}</Datum>"
BRML = """<?xml version="1.0"?><RawData xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">
<TimeStampStarted>2024-02-01T10:11:12+01:00</TimeStampStarted><DataRoutes><DataRoute RouteFlag="Measured">
<ScanInformation ScanName="LockedCoupled" VisibleName="Coupled TwoTheta/Theta">
<MeasurementPoints>{n}</MeasurementPoints><TimePerStep>2</TimePerStep></ScanInformation>
<DataViews><RawDataView Start="0" Length="1" LogicName="MeasuredTime"/>
<RawDataView Start="1" Length="1" LogicName="AbsorptionFactor"/>
<RawDataView Start="2" Length="2"><Varying><FieldDefinitions FieldName="{axis}" AxisId="{axis}"/>
<FieldDefinitions FieldName="Theta" AxisId="Theta"/></Varying></RawDataView>
<RawDataView Start="4" Length="1"><Recording LogicName="ScanCounter"><Unit Base="Counts"/>
<BlankingValue>-9999</BlankingValue></Recording></RawDataView></DataViews>{rows}</DataRoute></DataRoutes>
<FixedInformation><Instrument><PrimaryTracks><TrackInfoData><Radius Unit="mm" Value="280"/><MountedOptics>
<InfoData LogicName="TubeMount"><Tube><WaveLengthAlpha1 Unit="A" Value="1.5406"/>
<WaveLengthAlpha2 Unit="A" Value="1.54439"/><WaveLengthBeta Unit="A" Value="1.39222"/>
<WaveLengthRatio Unit="" Value="0.5"/><TubeMaterial>Cu</TubeMaterial><Generator><Voltage Unit="kV" Value="40"/>
<Current Unit="mA" Value="30"/></Generator></Tube></InfoData>{optics}
</MountedOptics></TrackInfoData></PrimaryTracks></Instrument></FixedInformation></RawData>"""


def brml(y: np.ndarray, *, factor: np.ndarray | None = None, axis: str = "TwoTheta", optics: str = "") -> bytes:
    factor = np.ones(y.size) if factor is None else factor
    body = "".join(
        BRML_ROW.format(time=2, factor=f, angle=a, theta=a / 2, value=v)
        for a, v, f in zip(grid(y.size), y, factor, strict=True)
    )
    raw = BRML.format(n=y.size, axis=axis, rows=body, optics=optics).encode()
    container = b'<DataContainer><MeasurementInfo UserName="A. Analyst" SampleName="tin 7" Comment=""/></DataContainer>'
    return zipped({"Experiment0/RawData0.xml": raw, "Experiment0/DataContainer.xml": container})


def nexus(y: np.ndarray) -> bytes:
    import h5py

    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        entry = file.create_group("entry")
        entry.attrs["NX_class"] = "NXentry"
        entry["definition"] = "NXmonopd"
        data = entry.create_group("data")
        data.attrs["NX_class"] = "NXdata"
        data["polar_angle"] = grid(y.size)
        data["polar_angle"].attrs["units"] = "degree"
        data["data"] = y.astype("int64")
        crystal = entry.create_group("INSTRUMENT/crystal")
        crystal["wavelength"] = np.array([1.5406])
    return buffer.getvalue()
