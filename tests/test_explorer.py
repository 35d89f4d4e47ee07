"""The explorer: what is exported is the network, and a real browser shows it.

The browser is the system's Chromium, driven by playwright; both are optional.
"""

import importlib.util
import math
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from conftest import ROOT
from test_figure_data import Untrained, coded, run_cells

from wiseale_nb.aggregate import aggregate_log_prob, kl_upper_bound, sample_kl
from wiseale_nb.config import resolve_settings, select
from wiseale_nb.data import load
from wiseale_nb.drawing import explorer
from wiseale_nb.figures import FigureData, draw_figure, figure_job, figure_runs
from wiseale_nb.layers import decode
from wiseale_nb.loss import make_likelihood
from wiseale_nb.models import celeba_net, create, mnist_net

METHODS = {"aevb": "bernoulli", "wiseale": "bernoulli", "wae_mmd": "gaussian"}  # name -> likelihood
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")
TICK = 1.001 / 255  # one step of a pixel


def lively(network, seed):
    """An untrained network that decodes to contrasts, with batch normalisations as after training."""
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_var.uniform_(0.5, 2, generator=generator)
            module.running_mean.normal_(generator=generator)
            torch.nn.init.ones_(module.weight)
        elif getattr(module, "weight", None) is not None:
            module.weight.data *= 3
    return network.eval()


def untrained(dataset, number):
    generator = torch.Generator().manual_seed(number)
    if dataset == "mnist":
        return lively(create(mnist_net, generator), number)
    return lively(create(celeba_net, generator, d_z=3, width=0.02), number)


def write_data(data):
    """The data of a page: three methods on digits, two on teapots."""
    generator = torch.Generator().manual_seed(5)
    images = {
        "mnist": torch.randint(256, (8, 1, 28, 28), generator=generator, dtype=torch.uint8),
        "teapot": torch.randint(256, (4, 3, 64, 64), generator=generator, dtype=torch.uint8),
    }
    networks = {}
    for number, (name, likelihood) in enumerate(METHODS.items()):
        for dataset, x in images.items():
            if (dataset, name) != ("teapot", "wae_mmd"):
                model = untrained(dataset, number)
                networks[dataset, name] = explorer.export_network(
                    model, make_likelihood(likelihood), x, len(x)
                )
    run = {"seed": 0, "n_train": 8, "epochs": 0, "trained": "never"}
    explorer.store(data, dict.fromkeys(networks, run), networks, images, torch.arange(8))


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    job = figure_job("explorer", profile="smoke", out=str(tmp_path_factory.mktemp("explorer")), redraw=False)
    write_data(job)
    draw_figure(job)
    return job


@pytest.fixture(scope="module")
def networks(job):
    return explorer.restore(job)[1]


def test_data_are_of_the_runs(tmp_path):
    """The cells of the notebook export every run with a plane, and the first 64 held-out digits."""
    job = figure_job("explorer", profile="smoke", out=str(tmp_path), redraw=False)
    keys = figure_runs("explorer", select(job.config, "mnist"))
    assert [method for _, method, _ in keys] == list(job.config["mnist"]["methods"])
    runs = [Untrained(resolve_settings("smoke", *key), number) for number, key in enumerate(keys, 1)]
    for run in runs:
        run.info = {"commit": "c0ffee", "machine": {"cpu": "abacus"}, "versions": {"torch": "2"}}
    runs[-1].settings = replace(runs[-1].settings, d_z=3)  # no plane
    run_cells(job, until="store(", load_runs=lambda job: runs)
    table, networks, arrays = explorer.restore(job)
    assert list(networks) == [("mnist", method) for _, method, _ in keys[:-1]]
    assert set(table["trained"]) == {"on abacus, PyTorch 2, commit c0ffee"}
    digits = load("mnist", "test", n=runs[0].settings.n_test, seed=0)
    assert arrays["labels"].tolist() == digits.y[:64].tolist()
    np.testing.assert_array_equal(arrays["mnist/images"], digits.x[:64])
    for run, network in zip(runs, networks.values()):
        mu, sigma, decoded = coded(run.network, digits.x[:64] / 255)
        np.testing.assert_allclose(network.mu, mu, atol=1e-5)
        np.testing.assert_allclose(network.sigma, sigma, atol=1e-5)
        pixels = decode(network.layers, mu, network.output)
        np.testing.assert_allclose(pixels, decoded.sigmoid().flatten(1), atol=2e-3)


def test_every_file_of_the_page_is_declared():
    """A file that is not declared would not be joined in, or its change would not redo the page."""
    there = {path.name for path in (ROOT / "wiseale_nb/explorer").iterdir()}
    assert there == {f"{name}.js" for name in explorer.SCRIPTS} | {"explorer.css"}
    declared = yaml.safe_load((ROOT / "figures.yaml").read_text())["explorer"]["drawing_files"]
    assert sorted(declared) == sorted(f"wiseale_nb/explorer/{name}" for name in there)


def test_a_second_reading_needs_the_same_digits(job, tmp_path, monkeypatch):
    """Profiles among the figure's inputs are shown beside the job's own, unless their digits are others."""
    inputs = [f"{name}/data/explorer_runs.csv" for name in ("same", "others", "absent", "smoke")]
    for name in ("same", "others"):
        write_data(FigureData(tmp_path / "figures" / name))
    path = tmp_path / "figures/others/data"
    arrays = FigureData(path.parent).read_arrays("explorer")
    FigureData(path.parent).write_arrays("explorer", **arrays | {"mnist/images": arrays["mnist/images"] // 2})
    monkeypatch.setattr(explorer, "project_root", lambda: tmp_path)
    several = replace(job, figure=replace(job.figure, inputs=inputs))
    titles = [reading["title"] for reading in explorer.page_data(several)["readings"]]
    assert titles == ["Profile smoke", "Profile same"]


def test_text_cannot_end_the_data():
    """A label that looks like the end of a script stays data."""
    html = explorer.page({"readings": ["</script><b>", "STYLE SCRIPT"]})
    assert html.count("</script>") == 2 and "STYLE SCRIPT" in html


@pytest.mark.skipif(not importlib.util.find_spec("anywidget"), reason="anywidget is not installed")
def test_widget_has_the_page_and_its_data(job):
    data = explorer.page_data(job)
    widget = explorer.widget(data)
    assert widget.data == data and "export default { render }" in widget._esm and ".explorer" in widget._css


@pytest.mark.skipif(bool(importlib.util.find_spec("anywidget")), reason="anywidget is installed")
def test_widget_says_what_it_needs():
    with pytest.raises(ImportError, match=r"wiseale-nb\[explorer\]"):
        explorer.widget({})


@pytest.fixture(scope="module")
def chromium():
    driver = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not BROWSER:
        pytest.skip("there is no chromium")
    with driver.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield browser
        browser.close()


class Page:
    """An opened page; its complaints and requests are collected."""

    def __init__(self, browser, path, width=1200, **options):
        self.wrong = []
        context = browser.new_context(viewport={"width": width, "height": 800}, **options)
        context.set_default_timeout(5000)
        self.page = context.new_page()
        self.page.on("console", lambda message: message.type == "error" and self.wrong.append(message.text))
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("request", lambda request: self.wrong.append(request.url))
        self.page.goto(path.as_uri())
        self.wrong = [text for text in self.wrong if text != path.as_uri()]

    def ask(self, expression):
        """A value of the running page, such as "planes.views[0].z"."""
        return self.page.evaluate(f"document.getElementById('explorer').explorer.{expression}")

    def views(self, field):
        values = self.ask(f"planes.views.map((view) => [view.name, Array.from(view.{field})])")
        return {name: np.array(value) for name, value in values}

    def show(self, tab):
        self.page.get_by_role("tab", name=tab).click()

    def choose(self, label, option):
        self.page.get_by_label(label, exact=True).select_option(label=option)

    def place(self, name, z):
        """Where a code of a method's plane is on the screen, computed here from its posteriors."""
        canvas = self.page.get_by_role("application", name=f"plane of {name}.")
        canvas.scroll_into_view_if_needed()
        box = canvas.bounding_box()
        middle, half = explorer._square(self.networks["mnist", {"AEVB": "aevb", "WAE-MMD": "wae_mmd"}[name]])
        side = box["width"] - 2  # without its border
        x, y = (float(z[k] - middle[k]) for k in range(2))
        return box["x"] + 1 + side * (0.5 + x / (2 * float(half))), box["y"] + 1 + side * (
            0.5 - y / (2 * float(half))
        )

    def drag(self, name, z):
        self.page.mouse.move(*self.place(name, [0, 0]))
        self.page.mouse.down()
        self.page.mouse.move(*self.place(name, z), steps=4)
        self.page.mouse.up()

    def swipe(self, name, start, end):
        """Drag with a finger, far enough that the page would scroll if the plane let it."""
        touch = self.page.context.new_cdp_session(self.page)
        places = [self.place(name, z) for z in np.linspace(start, end, 9)]
        for kind, place in [("touchStart", places[0]), *(("touchMove", place) for place in places[1:])]:
            points = [dict(zip("xy", place))]
            touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
            self.page.wait_for_timeout(20)
        touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})


@pytest.fixture
def opened(chromium, job, networks):
    pages = []

    def open_page(**options):
        pages.append(Page(chromium, job.out / "explorer.html", **options))
        pages[-1].networks = networks
        return pages[-1]

    yield open_page
    wrong = [text for page in pages for text in page.wrong]
    for page in pages:
        page.page.context.close()
    assert wrong == [], "the page complains, or asks for something from elsewhere"


def assert_decoded(page, networks):
    """Every plane shows what PyTorch decodes at its code with the same rounded weights."""
    codes, pixels = page.views("z"), page.views("pixels")
    assert set(codes) == set(METHODS)
    for name, z in codes.items():
        network = networks["mnist", name]
        wanted = decode(network.layers, torch.from_numpy(z)[None].float(), network.output)[0].numpy()
        np.testing.assert_allclose(pixels[name], wanted, atol=1e-4)
        assert wanted.std() > 0.05  # no picture of one colour
    shown = page.ask(
        "planes.views.map((v) => Array.from(v.decoded.getContext('2d').getImageData(0, 0, 28, 28).data))"
    )
    for values, name in zip(shown, codes):
        np.testing.assert_allclose(np.array(values)[::4] / 255, pixels[name], atol=TICK / 2)


def test_drag_with_a_mouse(opened, networks):
    page = opened()
    page.drag("AEVB", [1.2, -0.7])
    codes = page.views("z")
    np.testing.assert_allclose(codes["aevb"], [1.2, -0.7], atol=0.02)
    np.testing.assert_array_equal(codes["wae_mmd"], codes["aevb"])  # the same z everywhere
    drawn = page.ask("planes.views.map((view) => view.toPlane(view.toPixels([1.5, -0.5])))")
    np.testing.assert_allclose(drawn, 3 * [[1.5, -0.5]])  # drawn where a drag would put it
    assert_decoded(page, networks)
    page.choose("Moving sets", "this plane only")
    page.drag("WAE-MMD", [0.3, 0.4])
    moved = page.views("z")
    np.testing.assert_allclose(moved["wae_mmd"], [0.3, 0.4], atol=0.02)
    np.testing.assert_array_equal(moved["aevb"], codes["aevb"])
    assert_decoded(page, networks)


def test_same_digit_slider_and_hover(opened, networks):
    page = opened()
    page.choose("Moving sets", "the same digit in all planes")
    index = int(np.linalg.norm(networks["mnist", "aevb"].mu - [0.5, 0.5], axis=1).argmin())
    page.drag("AEVB", [0.5, 0.5])
    for name, z in page.views("z").items():
        np.testing.assert_allclose(z, networks["mnist", name].mu[index], atol=1e-5)
    page.choose("From", "2 (no. 2)")
    page.choose("to", "6 (no. 6)")
    page.page.get_by_label("place between").fill("0.25")
    for name, z in page.views("z").items():
        mu = networks["mnist", name].mu
        np.testing.assert_allclose(z, 0.75 * mu[2] + 0.25 * mu[6], atol=1e-5)
    assert_decoded(page, networks)
    network = networks["mnist", "wae_mmd"]
    page.page.mouse.move(*page.place("WAE-MMD", network.mu[3]))
    nearest = page.ask("planes.state.hovered")
    text = page.page.locator(".tip:visible").inner_text().replace("\u2212", "-")
    assert np.linalg.norm(network.mu[nearest] - network.mu[3]) < 0.1
    numbers = (
        ", ".join(f"{v:.2f}" for v in network.mu[nearest]),
        ", ".join(f"{v:.3f}" for v in network.sigma[nearest]),
    )
    assert text.split("\n") == [f"a {nearest} (no. {nearest})", f"mean ({numbers[0]})", f"std ({numbers[1]})"]


def test_arrow_keys(opened, networks):
    page = opened()
    before = page.views("z")
    page.page.get_by_role("application", name="plane of AEVB.").focus()
    for key in ("ArrowRight", "ArrowUp", "Shift+ArrowUp"):
        page.page.keyboard.press(key)
    unit = page.ask("planes.views.find((v) => v.name === 'aevb').unit")
    for z in page.views("z").values():
        np.testing.assert_allclose((z - before["aevb"]) * unit, [4, 24], atol=1e-6)
    assert_decoded(page, networks)
    page.choose("Moving sets", "the same digit in all planes")
    page.page.get_by_role("application", name="plane of AEVB.").focus()
    start = page.ask("planes.state.hovered")
    page.page.keyboard.press("ArrowRight")
    assert page.ask("planes.state.hovered") == (start + 1) % 8
    assert page.page.locator(".tip:visible").inner_text().startswith(f"a {(start + 1) % 8} ")


def test_density_map(opened, networks):
    page = opened()
    page.choose("Density", "aggregate posterior")
    network = networks["mnist", "aevb"]
    shown = page.ask(
        "planes.views[0].map.getContext('2d').getImageData(0, 0, 80, 80).data.filter((_, i) => i % 4 === 3)"
    )
    (x, y), half = explorer._square(network)
    steps = half * (2 * (np.arange(80) + 0.5) / 80 - 1)
    z = torch.tensor(np.stack(np.meshgrid(x + steps, y - steps), -1).reshape(-1, 2))
    sigma = np.hypot(network.sigma.astype(float), half / 80)
    log_q = aggregate_log_prob(z, torch.tensor(network.mu).double(), torch.tensor(2 * np.log(sigma)))
    wanted = 150 * (0.5 * (log_q - log_q.max())).exp()
    np.testing.assert_allclose(np.array(shown), wanted, atol=1)
    page.choose("Density", "aggregate against prior")
    assert "prior denser" in page.page.locator(".key").inner_text()


def pair(m, sigma):
    mu = torch.tensor([[-m], [m]], dtype=torch.float64)
    return mu, torch.full_like(mu, 2 * math.log(sigma))


def kl_aggregate(m, sigma):
    z = torch.linspace(-20, 20, 20001, dtype=torch.float64)[:, None]
    log_q = aggregate_log_prob(z, *pair(m, sigma))
    log_p = aggregate_log_prob(z, *(torch.zeros(1, 1, dtype=torch.float64) for _ in range(2)))
    return torch.trapezoid(log_q.exp() * (log_q - log_p), z[:, 0]).item()


TERMS = {
    "aevb": lambda m, s: sample_kl(*pair(m, s)).mean().item(),
    "bound": lambda m, s: kl_upper_bound(*pair(m, s)).item(),
    "true": kl_aggregate,
}


@pytest.mark.parametrize("m, sigma", [(0.35, 1.3), (2.5, 0.2)])
def test_divergences(opened, m, sigma):
    """The numbers of the second tab are the library's, and its minima are minima."""
    page = opened()
    page.show("Figure 4")
    page.page.get_by_label("means at").fill(str(m))
    page.page.get_by_label("width").fill(str(sigma))
    now = page.ask("divergences.now")
    for name, term in TERMS.items():
        least = now[name]["least"]
        assert now[name]["value"] == pytest.approx(term(m, sigma), abs=1e-9)
        assert now[name]["lowest"] == pytest.approx(term(m, least), abs=1e-9)
        assert now[name]["lowest"] < min(term(m, 0.999 * least), term(m, 1.001 * least)) + 1e-9
    rows = page.page.locator("table tr").all_inner_texts()[1:]
    for row, name in zip(rows, TERMS):
        numbers = [f"{now[name][key]:.4f}" for key in ("value", "least", "lowest")]
        assert row.replace("\u2212", "-").split("\t")[1:] == numbers


def test_divergences_are_figure_4s(opened):
    """The four widths that the buttons set are those of the committed figure."""
    page = opened()
    page.show("Figure 4")
    minima = pd.read_csv(ROOT / "figures/analytic/data/figure_4_minima.csv").set_index("panel")["sigma"]
    now = page.ask("divergences.now")
    shown = [
        now["aevb"]["least"],
        now["bound"]["least"],
        page.ask("divergences.acceptable"),
        now["true"]["least"],
    ]
    np.testing.assert_allclose(shown, minima.to_numpy(), atol=2e-6)
    for button, sigma in zip(("(a)", "(b)", "(c)", "the minimum of the"), minima):
        page.page.get_by_role("button", name=button).click()
        assert float(page.page.get_by_label("width").input_value()) == pytest.approx(sigma, abs=6e-4)
    wrong = page.page.get_by_text("goes wrong in").inner_text().split("wrong in ")[1].split(" %")[0]
    chosen = float(page.page.get_by_label("width").input_value())
    assert float(wrong) == pytest.approx(50 * math.erfc(1 / chosen / math.sqrt(2)), abs=0.06)


def test_teapots(opened, networks):
    """Sliders decode, bands are the posteriors' widths, and another image starts at its own means."""
    page = opened()
    page.show("Teapots")
    page.page.get_by_label("image 3").click()
    network = networks["teapot", "aevb"]
    np.testing.assert_allclose(
        page.ask("teapots[0].views[0].z"), network.mu[2], atol=2 * network.axes[1].max() / 200
    )
    axis = int(network.axes[2].argmax())  # best first
    slider = page.page.locator(".walker").first.get_by_role("slider").first
    slider.focus()
    page.page.keyboard.press("End")
    z = np.array(page.ask("teapots[0].views[0].z"))
    assert z[axis] == pytest.approx(network.axes[0][axis] + network.axes[1][axis], abs=1e-3)
    wanted = decode(network.layers, torch.from_numpy(z)[None].float(), network.output)[0]
    pixels = page.ask("teapots[0].views[0].pixels.reduce((all, v) => (all.push(v), all), [])")
    np.testing.assert_allclose(pixels, wanted, atol=1e-4)
    assert wanted.std() > 0.05
    band = page.page.locator(".walker").first.locator(".band").first.bounding_box()
    track = slider.bounding_box()["width"] - 14
    share = min(network.sigma[2][axis] / network.axes[1][axis], 1)
    assert band["width"] <= track * share + 2.1
    page.page.get_by_role("button", name="back to").first.click()
    assert page.ask("teapots[0].views[0].z")[axis] == pytest.approx(network.mu[2][axis], abs=0.05)


def test_phone(opened, networks):
    """At 390 pixels nothing is cut off in any tab, a finger drags, and the keyboard reaches the tabs."""
    page = opened(width=390, has_touch=True, color_scheme="dark")
    page.swipe("AEVB", [0, -1.8], [0.9, 0.6])
    np.testing.assert_allclose(page.views("z")["aevb"], [0.9, 0.6], atol=0.05)
    assert_decoded(page, networks)
    page.page.get_by_role("tab", name="Latent planes").focus()
    for tab in ("Latent planes", "Figure 4", "Teapots"):
        assert page.page.get_by_role("tab", name=tab).get_attribute("aria-selected") == "true"
        assert page.page.evaluate("document.documentElement.scrollWidth") == 390
        page.page.keyboard.press("ArrowRight")


def test_themes(opened):
    """Light and dark follow the system, or the button."""
    page = opened(color_scheme="dark")
    paper = "getComputedStyle(document.querySelector('.explorer')).backgroundColor"
    colours = []
    for _ in range(3):
        colours.append((page.ask("planes.state.theme.dark"), page.page.evaluate(paper)))
        page.page.locator(".theme").click()
    assert colours == [(True, "rgb(21, 23, 27)"), (False, "rgb(255, 255, 255)"), (True, "rgb(21, 23, 27)")]
