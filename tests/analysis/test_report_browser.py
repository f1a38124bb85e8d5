"""A report in a browser: it needs nothing but its file, its images are there, its tables sort."""

import polars as pl
import pytest
from browsing import browser, opened  # noqa: F401
from report_page import report_of

from plugins.load import load_sweep


@pytest.fixture(scope="module")
def report(root, tmp_path_factory):
    output = tmp_path_factory.mktemp("page") / "report.html"
    report_of(root / "docs" / "data" / "sublora_markov", output)
    return output


@pytest.fixture(scope="module")
def means(root) -> list[tuple[str, int, float]]:
    """Method, budget, mean bound over three seeds: ten groups."""
    runs = load_sweep(root / "docs" / "data" / "sublora_markov")
    keys = ["allocation.name", "subspace.d"]
    return runs.group_by(keys).agg(pl.col("bound_value").mean()).sort(keys).rows()


def rows_of(table) -> list[tuple[str, str, str]]:
    """Method, budget and mean bound as the table shows them now."""
    cells = "rows => rows.map(row => [0, 1, 3].map(i => row.cells[i].textContent))"
    return [tuple(row) for row in table.locator("tbody tr").evaluate_all(cells)]


def test_tables_sort_by_click_and_by_key(browser, report, means):  # noqa: F811
    shown = [(method, str(d), f"{bound:.4g}") for method, d, bound in means]
    by_bound = [
        (method, str(d), f"{bound:.4g}") for method, d, bound in sorted(means, key=lambda m: m[2])
    ]
    with opened(browser, report) as page:
        table = page.locator("#scalars table.sortable").first
        header = table.get_by_role("columnheader", name="bound_value mean")
        assert rows_of(table) == shown
        header.get_by_role("button").click()
        assert header.get_attribute("aria-sort") == "ascending"
        assert rows_of(table) == by_bound
        header.get_by_role("button").click()
        assert header.get_attribute("aria-sort") == "descending"
        assert rows_of(table) == by_bound[::-1]
        first = table.get_by_role("columnheader", name="subspace.d")
        first.get_by_role("button").focus()
        page.keyboard.press("Enter")
        assert (first.get_attribute("aria-sort"), header.get_attribute("aria-sort")) == (
            "ascending",
            None,
        )
        assert [row[1] for row in rows_of(table)] == ["1000"] * 5 + ["2000"] * 5


@pytest.mark.parametrize("width", [1280, 390])
def test_images_are_there_and_nothing_is_wider_than_the_screen(browser, report, width):  # noqa: F811
    with opened(browser, report, width) as page:
        sizes = page.locator("img").evaluate_all("all => all.map(i => [i.naturalWidth, i.alt])")
        assert len(sizes) == 1 + 8  # curves; three figures at two budgets, two of all
        assert all(pixels > 0 and len(alt) > 10 for pixels, alt in sizes)
        assert page.evaluate("document.documentElement.scrollWidth") == width


def test_printing_unfolds_everything_and_folds_it_again(browser, report):  # noqa: F811
    count = "document.querySelectorAll('details:not([open])').length"
    with opened(browser, report) as page:
        folded = page.evaluate(count)
        assert folded > 0
        page.evaluate("dispatchEvent(new Event('beforeprint'))")
        assert page.evaluate(count) == 0
        page.evaluate("dispatchEvent(new Event('afterprint'))")
        assert page.evaluate(count) == folded
