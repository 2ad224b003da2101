from __future__ import annotations

import base64
import io
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import Compose, save_pair

from isgseg.analysis import report, report_words
from isgseg.analysis.granules import granule_table
from isgseg.analysis.report import write_report
from isgseg.analysis.report_figures import top
from isgseg.analysis.report_scene import scene
from isgseg.analysis.report_slices import chosen_slices, draw_slice
from isgseg.analysis.structures import Structures
from isgseg.errors import InputError

HOSTILE = "<img src=x onerror=document.title='hacked'>$x_{$\"'&.mrc"
SHAPE = (20, 60, 70)


def ball(centre: tuple[float, float, float], radius: float) -> Any:
    return sum((i - c) ** 2 for i, c in zip(np.indices(SHAPE), centre, strict=True)) <= radius**2


@dataclass
class Cell:
    """What a report is made of."""

    table: pd.DataFrame
    summary: dict[str, Any]
    volume: Any
    labels: Any
    structures: Structures

    def write(self, path: Path) -> str:
        write_report(path, self.table, self.summary, self.volume, self.labels, self.structures)
        return path.read_text(encoding="utf-8")


def make_cell(
    *,
    voxel_size: tuple[float, float, float] | None = (30.0, 30.0, 30.0),
    granules: int = 6,
    structures: bool = True,
    name: str = "cell.mrc",
) -> Cell:
    labels = np.zeros(SHAPE, np.uint16)
    for number in range(granules):
        labels[ball((4 + 2 * number, 12 + 7 * number, 20 + 4 * number), 4)] = number + 1
    volume = np.where(labels > 0, 1.6, 1.0).astype(np.float32)
    volume += np.random.default_rng(0).normal(0, 0.05, SHAPE).astype(np.float32)
    table = granule_table(labels, volume, voxel_size)
    table["gap_membrane"] = np.linspace(0, 500, len(table))
    table["nn_gap"] = np.nan
    masks = {"cell": np.ones(SHAPE, bool), "nucleus": ball((10, 40, 15), 9)} if structures else {}
    chance = {"mean": 1.0, "low": 0.9, "high": 1.1, "p": 0.02}
    x = [0.0, 50.0, 100.0, 150.0]
    band = {"mean": [1.0] * 4, "low": [0.5] * 4, "high": [1.5] * 4, "p": None}
    summary = {
        "isgseg": "0.1",
        "volume": name,
        "labels": "cell_labels.tif",
        "sha256": {"volume": "ab" * 32, "labels": "cd" * 32},
        "voxel_size_nm": None if voxel_size is None else list(voxel_size),
        "settings": {"volume": f"cells/{name}", "chance": {"placements": 99}, "slice": None},
        "warnings": ["3 granules touch the volume's edge; their volumes are too small."],
        "measures": {
            "number_density": {"value": 1.234, "unit": "1/um3", "about": "Of it.", "chance": None},
            "near_share_membrane": {"value": 0.25, "unit": "", "about": "", "chance": None},
            "clark_evans": {"value": 0.6, "unit": "", "about": "A ratio.", "chance": chance},
            "polarity": {"value": None, "unit": "", "about": "", "chance": None},
        },
        "curves": {
            "g": {
                "x": x,
                "x_unit": "nm",
                "x_label": "distance",
                "y": [None, 2.0, 1.0, 0.1],
                "y_unit": "",
                "y_label": "g",
                "about": "Pairs.",
                "chance": band,
            }
        },
    }
    return Cell(table, summary, volume, labels, Structures(masks))


class Page(HTMLParser):
    """Collects elements, texts and what is not closed."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(content)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in ("meta", "link", "input", "br", "img"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("script", "style"):
            self.text += data


@pytest.fixture
def without_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages without the 3D view are made and read sooner."""
    monkeypatch.setattr(report, "library", lambda: None)


def test_the_page_is_whole_and_loads_nothing(tmp_path: Path) -> None:
    pytest.importorskip("plotly", reason="plotly, of the extra `report`, is not installed")
    content = make_cell().write(tmp_path / "out" / "cell_report.html")
    page = Page(content)
    assert page.open == []
    addresses = [
        value
        for _, attributes in page.elements
        for key, value in attributes.items()
        if key in ("src", "href", "xlink:href", "action") and value
    ]
    assert addresses
    assert not [address for address in addresses if not address.startswith(("data:", "#"))]
    (policy,) = [a["content"] for _, a in page.elements if "http-equiv" in a]
    assert policy is not None
    assert "default-src 'none'" in policy
    identifiers = Counter(a["id"] for _, a in page.elements if a.get("id"))
    assert identifiers.most_common(1)[0][1] == 1
    images = [a for tag, a in page.elements if a.get("role") == "img"]
    assert len(images) == 4  # three slices and the 3D view; charts are told in words below them
    assert all(image["aria-label"] for image in images)
    assert 1e6 < len(content) < 4e6  # the library, compressed, is nearly all of it


@pytest.mark.usefixtures("without_library")
def test_numbers_have_units_chance_levels_and_words(tmp_path: Path) -> None:
    text = re.sub(r"[ \n]+", " ", Page(make_cell().write(tmp_path / "r.html")).text)
    assert "1.23\N{NO-BREAK SPACE}per µm³" in text
    assert "25\N{NO-BREAK SPACE}%" in text
    assert "0.600 1 (0.900 to 1.10) 0.020 below chance" in text
    assert "Not known here: Polarity." in text
    assert "3 granules touch the volume's edge; their volumes are too small." in text
    assert "There are only 6 granules; curves are mostly noise." in text
    assert "The curve is above chance at 50\N{NO-BREAK SPACE}nm; below chance at 150" in text
    assert "20 × 60 × 70 voxels (z, y, x) of 30 nm: 0.600 × 1.80 × 2.10 µm" in text  # noqa: RUF001
    assert "chance.placements99" in text
    assert "slicenull" in text
    assert "ab" * 32 in text


@pytest.mark.usefixtures("without_library")
def test_what_files_say_is_never_part_of_the_page(tmp_path: Path) -> None:
    cell = make_cell(name=HOSTILE)
    evil = "</script><script>alert(1)</script>"
    cell.summary["warnings"] = [evil]
    cell.summary["labels"] = cell.summary["isgseg"] = evil
    cell.summary["settings"] = {evil: {"a": evil}}
    cell.summary["sha256"] = {evil: evil}
    curve = cell.summary["curves"]["g"]
    curve |= {key: evil for key in ("x_unit", "x_label", "y_unit", "y_label", "about")}
    cell.summary["curves"] = {evil: curve}
    measure = cell.summary["measures"]["clark_evans"] | {"unit": evil, "about": evil}
    cell.summary["measures"] = {evil: measure, "number_density": measure}
    cell.structures.masks[evil] = cell.structures.masks["nucleus"]
    cell.table[f"gap_{evil}"] = 1.0
    content = cell.write(tmp_path / "r.html")
    assert "<img" not in content
    assert content.count("<script>") == 1  # the page's own
    page = Page(content)
    assert page.open == []
    assert HOSTILE in page.text
    assert evil in page.text


def test_data_of_the_3d_view_cannot_end_their_script(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "library", lambda: "compressed")
    cell = make_cell()
    cell.structures.masks["</script><b>"] = cell.structures.masks["nucleus"]
    content = cell.write(tmp_path / "r.html")
    assert Page(content).open == []
    assert "<b>" not in content


@pytest.mark.usefixtures("without_library")
def test_without_plotly_the_page_and_the_log_say_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    content = make_cell().write(tmp_path / "r.html")
    assert "pip install &#39;isgseg[report]&#39;" in content or "isgseg[report]" in content
    assert "r.html has no 3D view: it needs plotly, pip install 'isgseg[report]'" in caplog.text
    assert 'id="scene"' not in content


@pytest.mark.usefixtures("without_library")
@pytest.mark.parametrize(
    ("cell", "said"),
    [
        (make_cell(granules=0), "There is nothing to show."),
        (make_cell(granules=1), "There is only 1 granule"),
        (make_cell(voxel_size=None), "voxels (z, y, x) of unknown size"),
        (make_cell(structures=False), "Gap to the plasma membrane"),
    ],
)
def test_little_is_known(tmp_path: Path, cell: Cell, said: str) -> None:
    cell.summary["curves"] = {}
    page = Page(cell.write(tmp_path / "r.html"))
    assert said in page.text
    assert "nan" not in page.text.lower()


@pytest.mark.usefixtures("without_library")
def test_cell_and_nucleus_come_first_and_a_gap_is_drawn_once(tmp_path: Path) -> None:
    cell = make_cell()
    masks = cell.structures.masks
    cell.structures = Structures({"lipid_droplets": masks["nucleus"], **masks})
    assert list(report._ordered(cell.structures.masks)) == ["cell", "nucleus", "lipid_droplets"]
    before = cell.write(tmp_path / "1.html")
    assert "lipid droplets</label>" in before
    assert "<h3>Gap to the plasma membrane" in before
    cell.summary["curves"]["within_membrane"] = cell.summary["curves"]["g"]
    after = cell.write(tmp_path / "2.html")
    assert "<h3>Gap to the plasma membrane" not in after
    assert "<h3>Granules within a distance of the plasma membrane" in after


@pytest.mark.usefixtures("without_library")
def test_granules_of_other_cells_are_drawn_and_not_counted(tmp_path: Path) -> None:
    cell = make_cell()
    cell.table["cell"] = [1, 1, 2, 1, 0, 1]
    cell.structures = Structures(cell.structures.masks, None, 1)
    text = Page(cell.write(tmp_path / "r.html")).text
    assert "of this cell; 2 more in the volume" in text
    assert "4 granules. Median" in text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "not known"),
        (float("nan"), "not known"),
        (0, "0"),
        (12, "12"),
        (1234567.0, "1.23 × 10⁶"),  # noqa: RUF001
        (1234.5, "1,234"),
        (0.5, "0.500"),
        (-0.001234, "−0.00123"),  # noqa: RUF001
        (1.2e-7, "1.2 × 10⁻⁷"),  # noqa: RUF001
        (0.9999, "1.00"),
        (99.96, "100"),
    ],
)
def test_numbers_are_written_as_people_do(value: float | None, text: str) -> None:
    assert report_words.number(value) == text


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("median_diameter", "Median diameter"),
        ("volume_density_cell", "Volume density, whole cell"),
        ("contact_share_er", "Share in contact with er"),
        ("sd_lac_mean", "Standard deviation of LAC mean"),
        ("equivalent_diameter_nm", "Equivalent diameter"),
        ("", ""),
    ],
)
def test_titles(name: str, title: str) -> None:
    assert report_words.title(name) == title


def test_a_p_value_decides_what_is_said_against_chance() -> None:
    chance: dict[str, Any] = {"mean": 1.0, "low": 0.9, "high": 1.1, "p": 0.06}
    assert report_words.against_chance(1.2, chance) == "as by chance"
    assert report_words.against_chance(1.2, chance | {"p": 0.02}) == "above chance"
    assert report_words.against_chance(0.8, chance | {"p": None}) == "below chance"
    assert report_words.against_chance(None, chance) == ""


def test_far_points_of_a_curve_do_not_press_the_rest_together() -> None:
    curve: dict[str, Any] = {"y": [226.0, 40.0, *[2.0] * 20], "chance": None}
    assert top(curve) == 2.5
    assert top({"y": [1.0, *[2.0] * 20], "chance": None}) is None
    assert top({"y": [None, None], "chance": None}) is None


def test_slices_are_at_quarters_of_the_granules() -> None:
    table = pd.DataFrame({"centroid_z": [0.0, 10.0, 20.0, 30.0, 40.0]})
    assert chosen_slices(table, 99) == [10, 20, 30]
    assert chosen_slices(table.iloc[:0], 9) == [2, 4, 6]
    assert chosen_slices(table.iloc[:1], 1) == [0]


def test_outlines_lie_on_the_edges_of_masks() -> None:
    labels = np.zeros((1, 8, 10), np.uint16)
    labels[0, 2:5, 3:8] = 7
    drawn = draw_slice(0, labels * 1.0, labels, {}, (30.0, 20.0, 10.0), {7: 251.4})
    assert (drawn.width, drawn.height, drawn.bar) == (100, 160, 20)
    (outline,) = drawn.granules
    assert outline.text == "Granule 7: 251 nm across"
    numbers = [int(n) for n in re.findall(r"-?\d+", outline.path)]
    points = np.cumsum(np.array(numbers).reshape(-1, 2), axis=0)
    assert points.min(axis=0).tolist() == [30, 40]  # x, y in nm
    assert points.max(axis=0).tolist() == [80, 100]
    image = base64.b64decode(drawn.image.partition("base64,")[2])
    assert image.startswith(b"\xff\xd8")  # JPEG


def floats(text: str) -> Any:
    return np.frombuffer(base64.b64decode(text), "<f4")


def test_a_ball_is_drawn_as_a_ball_in_its_place() -> None:
    cell = make_cell(granules=1)
    drawn = scene(cell.labels, cell.table, cell.structures.masks, (30.0, 30.0, 30.0))
    assert floats(drawn["centres"]) == pytest.approx(np.array([20, 12, 4]) * 0.03)  # x, y, z
    axes = floats(drawn["axes"]).reshape(3, 3)
    radius = np.cbrt(cell.table["volume_um3"].item() * 3 / 4 / np.pi)
    assert np.linalg.norm(axes, axis=0) == pytest.approx([radius] * 3, rel=0.02)
    assert [colour["name"] for colour in drawn["colours"]] == [
        "Diameter",
        "Mean grey value",
        "Gap to the plasma membrane",
    ]
    nucleus = floats(drawn["structures"][-1]["points"]).reshape(-1, 3)
    assert nucleus.mean(axis=0) == pytest.approx(np.array([15, 40, 10]) * 0.03, abs=0.02)


def test_isgseg_analyse_writes_it_unless_told_not_to(tmp_path: Path, config: Compose) -> None:
    from isgseg.analyse import analyse

    cell = make_cell()
    volume, labels = save_pair(tmp_path, "cell", cell.volume, cell.labels)
    given = [f"volume={volume}", f"labels={labels}", "chance.placements=0"]
    given.append(f"output_dir={tmp_path}/out")
    paths = analyse(config("analyse", *given))
    assert paths["report"].name == "cell_report.html"
    assert "Granules of cell.mrc" in paths["report"].read_text(encoding="utf-8")
    with pytest.raises(InputError, match="exists; set overwrite=true"):
        analyse(config("analyse", *given))
    paths = analyse(config("analyse", *given, f"output_dir={tmp_path}/2", "report=false"))
    assert "report" not in paths
    assert not list((tmp_path / "2").glob("*.html"))


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless Chromium, driven by playwright."""
    driver = pytest.importorskip(
        "playwright.sync_api", reason="playwright, of the extra `browser`, is not installed"
    )
    pytest.importorskip("plotly", reason="plotly, of the extra `report`, is not installed")
    names = ("chromium", "chromium-browser", "google-chrome")
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        pytest.skip(f"no browser: none of {', '.join(names)} is on the path")
    flags = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
    with driver.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=found, args=flags)
        yield running
        running.close()


@pytest.mark.slow
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_in_a_browser(tmp_path: Path, browser: Any, width: int, scheme: str) -> None:
    """No error, no request, nothing that a name runs; the 3D view is drawn; all fits."""
    from PIL import Image

    path = tmp_path / "r.html"
    make_cell(name=HOSTILE).write(path)
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True
    )
    page = context.new_page()
    errors: list[Any] = []
    requests: list[Any] = []
    page.on("console", lambda message: errors.append(message) if message.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(error))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(path.as_uri())
    page.wait_for_selector("#scene[data-drawn]", timeout=120_000)
    picture = page.locator("#scene canvas").first.screenshot(timeout=120_000)
    colours = Image.open(io.BytesIO(picture)).convert("RGB").getcolors(2**24)
    assert colours is not None
    assert len(colours) > 200  # shaded granules and surfaces
    page.select_option("#colour", label="Gap to the plasma membrane, nm")
    page.click("[data-turn='1']")
    page.click("text=Enlarge >> nth=0")
    page.uncheck("[data-hides='no-g']")
    assert not page.locator(".slice .g").first.is_visible()
    assert page.title() == f"Granules of {HOSTILE}"
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.evaluate("getComputedStyle(document.body).color") == (
        "rgb(29, 33, 38)" if scheme == "light" else "rgb(232, 234, 236)"
    )
    assert errors == []
    assert [url for url in requests if not url.startswith(("data:", "blob:"))] == [path.as_uri()]
    context.close()
