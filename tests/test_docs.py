"""The web site, built by `make test-docs`: every link followed, every page opened in a browser, offline."""

import re
import shutil
import tomllib
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import yaml

sync_api = pytest.importorskip("playwright.sync_api", reason="run by `make test-docs`")

ROOT = Path(__file__).resolve().parents[1]
SITE = ROOT / "_docs"
PAGES = sorted(
    p.relative_to(SITE).as_posix() for p in SITE.rglob("*.html") if p.parts[len(SITE.parts)][0] != "_"
)
PHONE = {"width": 390, "height": 844}
DERIVATION = "nbs/00_derivation.html"


class Page(HTMLParser):
    """The ids of a page, its links with their words and classes, and its words outside of code and titles."""

    SKIPPED = {"script", "style", "pre", "code", "title", "h1", "h2", "h3", "nav", "aside"}

    def __init__(self, text):
        super().__init__()
        self.ids, self.links, self.words = set(), [], []
        self.inside, self.link = [], None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.ids |= {attributes[name] for name in ("id", "name") if attributes.get(name)}
        target = attributes.get("href") or attributes.get("src")
        if target:
            self.links.append([target, attributes.get("class") or "", ""])
        if tag == "a":
            self.link = self.links[-1] if target else None
        if tag in self.SKIPPED or tag == "a":
            self.inside.append(tag)

    def handle_endtag(self, tag):
        if tag in self.inside:
            while self.inside.pop() != tag:
                pass
        if tag == "a":
            self.link = None

    def handle_data(self, data):
        if self.link:
            self.link[2] += data
        elif not self.inside:
            self.words.append(data)


@pytest.fixture(scope="module")
def pages():
    assert PAGES, "there is no site: make docs"
    return {name: Page((SITE / name).read_text()) for name in PAGES}


def pins(name):
    """Package -> version in a lock file."""
    lines = (ROOT / name).read_text().splitlines()
    return dict(
        re.match(r"([\w.-]+)==([^ ;]+)", line).groups() for line in lines if re.match(r"\w.*==", line)
    )


def test_lock_has_what_the_site_is_built_with():
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]["docs"]
    locked, below = pins("requirements-docs.lock"), pins("requirements.lock")
    wanted = dict(package.split("==") for package in wanted)
    assert {name: locked.get(name) for name in wanted} == wanted
    shared = locked.keys() & below.keys()
    assert {name: locked[name] for name in shared} == {name: below[name] for name in shared}


def test_all_notebooks_are_pages():
    notebooks = {p.stem for p in (ROOT / "nbs").glob("*.ipynb")}
    assert {Path(name).stem for name in PAGES if name.startswith("nbs/")} == notebooks


def test_links_lead_somewhere(pages):
    broken = []
    for name, page in pages.items():
        for target, _, _ in page.links:
            parts = urlsplit(target)
            if parts.scheme or target.startswith("data:"):
                continue
            file = (SITE / name).parent / unquote(parts.path) if parts.path else SITE / name
            where = file.resolve().relative_to(SITE).as_posix()
            if not file.is_file() or (
                where in pages and parts.fragment and unquote(parts.fragment) not in pages[where].ids
            ):
                broken.append(f"{name}: {target}")
    assert broken == []


def test_nothing_shows_a_placeholder(pages):
    assert [name for name in pages if "example.invalid" in (SITE / name).read_text()] == []


def equation_links(page):
    """The words of each link to an equation, and its number."""
    links = [link for link in page.links if "equation" in link[1].split()]
    return [(words, urlsplit(target).fragment.removeprefix("eq-")) for target, _, words in links]


def test_equation_links(pages):
    """Each form in which the notebooks name an equation; the link has the number that its words say."""
    links = {name: equation_links(page) for name, page in pages.items()}
    words = {said for name in links for said, _ in links[name]}
    # "Eq. 21", "Eq. 15 and 16", "Eq. 9-12", "as A.1", "Eq. B.7", "B.14"
    assert {"Eq. 21", "16", "12", "A.1", "Eq. B.7", "B.14"} <= words
    assert sum(map(len, links.values())) > 400
    for name in links:
        for said, number in links[name]:
            assert re.sub(r"Eqs?\.\s+", "", said).lower().replace(".", "-") == number, name


def test_no_equation_is_named_without_a_link(pages):
    printed = {
        i.removeprefix("eq-").replace("-", ".").upper() for i in pages[DERIVATION].ids if i.startswith("eq-")
    }
    assert len(printed) == 28 + 1 + 13  # the paper's, A.1, B.2 to B.14
    for name, page in pages.items():
        words = re.sub(r"\\\[.*?\\\]|\\\(.*?\\\)", "", " ".join(page.words), flags=re.S)  # without formulas
        named = re.findall(r"\bEqs?\.\s+((?:[AB]\.)?\d+)", words)
        assert not printed & set(named), name


def test_titles_have_no_equation_links(pages):
    for name in pages:
        titles = re.findall(r"<h[1-4]>.*?</h[1-4]>", (SITE / name).read_text(), re.S)
        assert not any('class="equation' in title for title in titles), name


def test_reference_has_shapes_and_errors(pages):
    text = re.sub(r"<[^>]*>", "", (SITE / "docs/api/aggregate.html").read_text())
    assert "(M, d_z) posterior means" in text and "0-dim, nats" in text and "Raises" in text


# In a browser.


@pytest.fixture(scope="module")
def browser():
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def tab(browser):
    """A tab as wide as a phone; `tab.wrong` collects errors, and requests that leave the site."""
    tab = browser.new_page(viewport=PHONE)
    tab.wrong = []
    tab.on("console", lambda message: tab.wrong.append(message.text) if message.type == "error" else None)
    tab.on("pageerror", lambda error: tab.wrong.append(str(error)))
    tab.on("requestfailed", lambda request: tab.wrong.append(f"failed: {request.url}"))
    local = ("file:", "data:", "blob:")
    tab.on(
        "request", lambda request: None if request.url.startswith(local) else tab.wrong.append(request.url)
    )
    return tab


LOOK = """async () => {
  if (window.MathJax) await MathJax.startup.promise;
  const main = document.querySelector("[role=main]") || document.body;
  const box = main.closest(".content") || document.documentElement;  // what would scroll sideways
  return [box.scrollWidth - box.clientWidth, main.innerText.includes("$$"),
          document.querySelectorAll("[data-mml-node=merror]").length];
}"""


def open_page(tab, name, fragment=""):
    tab.goto(f"{(SITE / name).as_uri()}{fragment}")
    return tab.evaluate(LOOK)


@pytest.mark.parametrize("name", [name for name in PAGES if name != "index.html"])
def test_page_opens(tab, name):
    """No error, no request to elsewhere, no raw mathematics, and no sideways scroll on a phone."""
    tab.wrong.clear()
    overflow, raw, bad = open_page(tab, name)
    assert (tab.wrong, raw, bad) == ([], False, 0)
    assert overflow <= 1


def test_front_door(tab):
    tab.goto((SITE / "index.html").as_uri())
    tab.wait_for_url("**/docs/index.html")
    assert tab.locator("figure img").count() == 4


def test_equation_link_lands(tab):
    open_page(tab, "docs/claims.html")
    tab.locator("a.equation", has_text="Eq. 27").first.click()
    tab.wait_for_url("**/00_derivation.html#eq-27")
    tab.evaluate(LOOK)
    equation = tab.locator("#eq-27")
    equation.scroll_into_view_if_needed()
    assert equation.is_visible() and "(27)" in equation.inner_text()


def test_numbers_stand_beside_their_equations(tab):
    open_page(tab, DERIVATION)
    gaps = """equations => equations.map(equation =>
      equation.querySelector(".eqno").getBoundingClientRect().left
      - equation.querySelector("mjx-container").getBoundingClientRect().right)"""
    gaps = tab.locator("div.math:has(.eqno)").evaluate_all(gaps)
    assert len(gaps) == 42 and min(gaps) >= 0


def test_search(tab):
    tab.wrong.clear()
    tab.goto(f"{(SITE / 'search.html').as_uri()}?q=aggregate+posterior")
    tab.wait_for_selector("ul.search li a")
    tab.wait_for_function("document.querySelector('.search-summary').innerText.match(/[0-9]/)")
    found = tab.locator("ul.search li a").evaluate_all("links => links.map(link => link.href)")
    assert any("00_derivation" in link for link in found) and tab.wrong == []


def test_claims_are_filtered(tab):
    open_page(tab, "docs/claims.html")
    rows = tab.locator(".filterable tbody tr:visible")
    assert rows.count() == len(yaml.safe_load((ROOT / "claims.yaml").read_text())["claims"])
    tab.locator(".filters input").fill("compact gaps")
    assert rows.count() == 1 and "maximal local area" in rows.first.inner_text()
    tab.locator(".filters select").first.select_option("reproduced")
    assert rows.count() == 0


def test_from_a_claim_to_its_numbers_code_and_data(tab):
    """The tiling claim, its numbers, the data and the code behind it, in four clicks from the start."""
    open_page(tab, "docs/index.html")
    tab.locator("article a", has_text="Claims").last.click()
    tab.locator(".filterable a", has_text="compact").first.click()
    tab.wait_for_url("**/30_claims.html#claim-1-6")
    claim = tab.locator("#claim-1-6")
    assert "coverage" in claim.locator("xpath=following::table[1]").inner_text()
    data = claim.locator("xpath=following::a[contains(., 'data')][1]").get_attribute("href")
    assert (SITE / "nbs" / data).read_text().startswith("dataset,method")
    claim.locator("xpath=following::a[contains(., 'code')][1]").click()
    tab.wait_for_url("**/07e_claims_measure.html")


def test_light_and_dark(tab):
    open_page(tab, "docs/index.html")
    colour = "getComputedStyle(document.body).backgroundColor"
    tab.emulate_media(color_scheme="dark")
    dark = tab.evaluate(colour)
    tab.emulate_media(color_scheme="light")
    assert dark != tab.evaluate(colour)
