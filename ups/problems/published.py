"""The published files: identifiers and MD5 sums of PDEBench's data for the four problems.

All belong to the dataset with DOI 10.18419/darus-2986 (CC-BY-4.0). The ids of Burgers and advection are those
of the data after the corrections of August and October 2023; PDEBench's README still lists the older ones, of
files with another equation. The shock tubes `Sod1` to `Sod7` are left out: no sums of them are known here.

Source: `pdebench/data_download/pdebench_data_urls.csv` of the PDEBench repository. Sizes are known for the
files whose headers have been seen, and None else.
"""

from dataclasses import dataclass

from ups.problems import PROBLEMS, Boundary, Problem, ProblemName

TEST_ROWS = 1000
"""PDEBench's test set: the first rows of every file. They never train."""

DARUS = "https://darus.uni-stuttgart.de/api/access/datafile/{id}"
"""The template of the addresses that PDEBench publishes."""

DOWNLOADS = "downloads"
"""Directory below the root where fetched files are kept."""


@dataclass(frozen=True)
class PublishedFile:
    """One file of PDEBench.

    Attributes:
        name: without the suffix .hdf5; how the configuration and `ups data` call it.
        file_id: its number on DaRUS.
        md5: of the whole file.
        rows, frames, resolution: of its arrays; one frame for a map.
        bytes: of the whole file, None where not known.
    """

    name: str
    problem_name: ProblemName
    file_id: int
    md5: str
    parameters: dict[str, float]
    boundary: Boundary
    rows: int
    frames: int
    resolution: int
    bytes: int | None

    @property
    def file_name(self) -> str:
        return f"{self.name}.hdf5"

    @property
    def problem(self) -> Problem:
        return PROBLEMS[self.problem_name]


def _burgers(nu: str, file_id: int, md5: str) -> PublishedFile:
    name = f"1D_Burgers_Sols_Nu{nu}"
    return PublishedFile(
        name, "burgers1d", file_id, md5, {"nu": float(nu)}, "periodic", 10_000, 201, 1024, 8_232_968_312
    )


def _advection(beta: str, file_id: int, md5: str) -> PublishedFile:
    name = f"1D_Advection_Sols_beta{beta}"
    return PublishedFile(
        name, "advection1d", file_id, md5, {"beta": float(beta)}, "periodic", 10_000, 201, 1024, 8_232_966_952
    )


def _darcy(beta: str, file_id: int, md5: str) -> PublishedFile:
    name = f"2D_DarcyFlow_beta{beta}_Train"
    size = 1_310_724_760 if float(beta) in {0.01, 100.0} else 1_310_724_488
    return PublishedFile(
        name, "darcy2d", file_id, md5, {"beta": float(beta)}, "dirichlet", 10_000, 1, 128, size
    )


def _compressible(kind: str, viscosity: str, boundary: str, file_id: int, md5: str) -> PublishedFile:
    """`boundary` as in the file's name; frames every 0.01 to t = 1, of the shock files every 0.005 to 0.4."""
    name = f"1D_CFD_{kind}_Eta{viscosity}_Zeta{viscosity}_{boundary}_Train"
    value = float(viscosity)
    return PublishedFile(
        name,
        "compressible1d",
        file_id,
        md5,
        {"eta": value, "zeta": value},
        "outflow" if boundary == "trans" else "periodic",
        10_000,
        81 if kind == "Shock" else 101,
        1024,
        None,
    )


_FILES = (
    _burgers("0.001", 268190, "44cb784d5a07aa2b1c864cabdcf625f9"),
    _burgers("0.002", 268193, "edf1cd13622d151dfde3e4e5af7a95b4"),
    _burgers("0.004", 268191, "435e1fecb8a64a0b4563bb8d09f81c33"),
    _burgers("0.01", 281363, "e6d9a4f62baf9a29121a816b919e2770"),
    _burgers("0.02", 268189, "7c8c717a3a7818145877baa57106b090"),
    _burgers("0.04", 281362, "16f4c7afaf8c16238be157e54c9297c7"),
    _burgers("0.1", 268185, "660ba1008d3843bf4e28d2895eb607ce"),
    _burgers("0.2", 268187, "01d9333254dff2f3cad090b61f5cf695"),
    _burgers("0.4", 268192, "58327a6107e8f9defb5075677cc42533"),
    _burgers("1.0", 281365, "9021eba35332d127306f11ef84c1a60f"),
    _burgers("2.0", 281364, "70fe0c24d9313e70f6059e5212bdb3d7"),
    _burgers("4.0", 268188, "8af7f70166c00ffad377c80fa477d81f"),
    _advection("0.1", 255672, "b4be2fc3383f737c76033073e6d2ccfb"),
    _advection("0.2", 255671, "d47b52c1be4b6bcaa8748a8df2f5fbb8"),
    _advection("0.4", 255674, "d595bbfd2c659df995a93cd40d6ea568"),
    _advection("0.7", 255666, "f89030c240a1e90b55649776854a84c2"),
    _advection("1.0", 255675, "1fe41923a4123db55bf4e89bea32e142"),
    _advection("2.0", 255677, "0e9beff98693089c38e213a1f2b9ac43"),
    _advection("4.0", 255676, "a87b03ff425496360e2732921805f47d"),
    _advection("7.0", 255664, "72a286ad2fcba574bd20bc045ba82d58"),
    _darcy("0.01", 133217, "d05c287d4c0b7d3178b0097084238251"),
    _darcy("0.1", 133218, "294f9a03a4aa16b0e386469ca8b471be"),
    _darcy("1.0", 133219, "81694ed31306ff2e5f6b76349b0b4389"),
    _darcy("10.0", 133220, "a7f23cf8011fc211b180828af39b7d1a"),
    _darcy("100.0", 133221, "7c09f3b1bb097737d3fd52ffb0c6f1c8"),
    _compressible("Rand", "0.01", "periodic", 164672, "2fdd00138f1d7abc794fb953021a9f43"),
    _compressible("Rand", "0.1", "periodic", 164668, "45655bd77d006ab539c52b7fbcf099b9"),
    _compressible("Rand", "1.e-8", "periodic", 135485, "ad22fe08b8abc721179dbb34f2cc8b2a"),
    _compressible("Rand", "1.e-8", "trans", 133155, "79857a11ad9a69d77b8cf249a1c72d06"),
    _compressible("Shock", "1.e-8", "trans", 133156, "08dffc3d84033c7574a70614703dd753"),
)

PUBLISHED: dict[str, PublishedFile] = {file.name: file for file in _FILES}
