from __future__ import annotations

import math
import re
from itertools import pairwise
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import pytest
from hypothesis import given
from hypothesis import strategies as st

from puna.view.plot import Series, bar_chart, graph, line_chart, ticks

HOSTILE = "<script>alert(1)</script> \"quoted\" 'too' & ]]> onload=x"
NUMBERS = st.floats(-1e12, 1e12)


def svg(markup: str) -> Element:
    """The chart as XML; nothing that a chart holds lies outside of it or is not a number."""
    root = ElementTree.fromstring(markup)
    assert root.tag == "svg"
    width, height = map(float, root.attrib["viewBox"].split()[2:])
    assert width > 0
    assert height > 0
    for item in root.iter():
        for name, limit in {"x": width, "x1": width, "x2": width, "cx": width, "y": height, "cy": height}.items():
            assert 0 <= float(item.get(name, 0)) <= limit, (item.tag, item.attrib)
        assert not re.search(r"\b(nan|inf)\b", " ".join(item.attrib.values()))
    return root


def texts(root: Element) -> list[str]:
    return [item.text or "" for item in root.iter("text")]


def points(root: Element) -> list[list[tuple[float, float]]]:
    return [
        [(float(x), float(y)) for x, y in (point.split(",") for point in line.attrib["points"].split())]
        for line in root.iter("polyline")
    ]


# Ticks -------------------------------------------------------------------------------------------------------------


@given(NUMBERS, NUMBERS, st.integers(1, 12))
def test_ticks_are_round_ascending_and_inside(low: float, high: float, about: int):
    low, high = sorted((low, high))
    if high - low <= 1e-9 * max(abs(low), abs(high)) + 1e-300:
        return
    found, room = ticks(low, high, about), 1e-6 * (high - low)
    assert len(found) <= about + 1
    assert all(low - room <= tick <= high + room for tick in found)
    steps = [after - before for before, after in pairwise(found)]
    assert all(step > 0 for step in steps)
    if len(found) > 1:
        assert len(found) >= about // 3
        digits = (found[-1] - found[0]) / (len(found) - 1)
        digits /= 10 ** math.floor(math.log10(digits * 1.000001))
        assert min(abs(digits - m) for m in (1, 2, 2.5, 5, 10)) < 1e-3
        assert all(abs(tick / steps[0] - round(tick / steps[0])) < 1e-3 for tick in found)


@pytest.mark.parametrize(
    ("bounds", "expected"),
    [((0, 10), [0, 2, 4, 6, 8, 10]), ((0.13, 0.52), [0.2, 0.3, 0.4, 0.5]), ((-3, 3), [-2, 0, 2])],
)
def test_ticks_that_a_reader_expects(bounds: tuple[float, float], expected: list[float]):
    assert ticks(*bounds, 5) == pytest.approx(expected)


# Lines -------------------------------------------------------------------------------------------------------------


@given(st.lists(st.lists(st.tuples(NUMBERS, NUMBERS), max_size=15), max_size=4))
def test_any_numbers_make_a_chart_that_holds_its_points(lines: list[list[tuple[float, float]]]):
    chart = line_chart([Series(f"line {i}", line) for i, line in enumerate(lines)], "tokens", "loss")
    if not any(lines):
        assert chart == '<p class="faint">No points to draw.</p>'
        return
    root = svg(chart)
    drawn = points(root)
    assert [len(line) for line in drawn] == [len(line) for line in lines]
    width, height = map(float, root.attrib["viewBox"].split()[2:])
    assert all(0 <= x <= width and 0 <= y <= height for line in drawn for x, y in line)


def test_points_stand_in_proportion_and_up_is_more():
    ((first, second, third),) = points(svg(line_chart([Series("a", [(0, 1), (1, 2), (4, 3)])], "x", "y")))
    assert (third[0] - first[0]) / (second[0] - first[0]) == pytest.approx(4, abs=0.01)
    assert first[1] - second[1] == pytest.approx(second[1] - third[1], abs=0.2)
    assert first[1] > third[1]


@pytest.mark.parametrize("point", [(3.0, 2.5), (0.0, 0.0), (1e18, -1e18), (1e-320, 1e-320)])
def test_a_single_point_is_a_dot_within_the_chart(point: tuple[float, float]):
    root = svg(line_chart([Series("one", [point])], "x", "y"))
    assert len(list(root.iter("circle"))) == 1


def test_points_that_are_no_numbers_are_left_out():
    line = [(0, 1.0), (1, math.nan), (2, math.inf), (math.nan, 1), (3, 2.0)]
    assert line_chart([Series("a", line)], "x", "y") == line_chart([Series("a", [line[0], line[-1]])], "x", "y")


@pytest.mark.parametrize("series", [[], [Series("empty", [])], [Series("none", [(0, math.nan)])]])
def test_without_points_there_is_a_sentence(series: list[Series]):
    assert line_chart(series, "x", "y") == '<p class="faint">No points to draw.</p>'


def test_an_empty_series_beside_another_keeps_its_place_in_the_legend():
    root = svg(line_chart([Series("empty", []), Series("full", [(0, 1), (1, 2)])], "x", "y"))
    assert points(root)[0] == []
    assert {"empty", "full"} <= set(texts(root))


def test_lines_to_compare_with_are_dashed_and_long_ones_have_no_dots():
    chart = svg(line_chart([Series("a", [(i, i) for i in range(50)]), Series("b", [(0, 0)] * 20, True)], "x", "y"))
    assert [line.get("stroke-dasharray") for line in chart.iter("polyline")] == [None, "5 4"]
    assert not list(chart.iter("circle"))


@pytest.mark.parametrize("count", [1, 3, 12])
@pytest.mark.parametrize("length", [1, 20, 200])
def test_a_legend_fits(count: int, length: int):
    """`svg` looks whether anything begins left of the chart; here it is the space that the texts take."""
    names = [f"{i} ".ljust(length, "m") for i in range(count)]
    root = svg(line_chart([Series(name, [(0, 1), (1, i)]) for i, name in enumerate(names)], "tokens", "nats a token"))
    shown = [item for item in root.iter("text") if (item.text or "").endswith(("m", "…")) or item.text in names]
    assert len(shown) == count
    for item in shown:
        assert float(item.attrib["x"]) - 6 * len(item.text or "") > 0
    places = [(item.attrib["x"], item.attrib["y"]) for item in shown]
    assert len(set(places)) == count
    grid = [float(line.attrib["y1"]) for line in root.iter("line")]
    assert min(grid) > max(float(item.attrib["y"]) for item in shown)


def test_what_comes_from_outside_is_text_in_a_line_chart():
    root = svg(line_chart([Series(HOSTILE, [(0, 1), (1, 2)])], HOSTILE, HOSTILE))
    assert root.attrib["aria-label"] == f"{HOSTILE} over {HOSTILE}"
    assert texts(root).count(HOSTILE) == 2
    assert {item.tag for item in root.iter()} == {"svg", "line", "text", "polyline", "circle", "rect"}


# Bars --------------------------------------------------------------------------------------------------------------


def test_bars_are_as_long_as_their_values_and_the_best_is_set_off():
    root = svg(bar_chart([("a", 2.0), ("b", 1.0), ("c", 0.0)], "bits", best="b"))
    bars = list(root.iter("rect"))
    lengths = [float(bar.attrib["width"]) for bar in bars]
    assert lengths[0] == 2 * lengths[1] > 0 == lengths[2]
    assert [bar.attrib["fill"] for bar in bars] == ["var(--bar)", "var(--c0)", "var(--bar)"]
    assert {"a", "b", "c", "2 bits", "1 bits", "0 bits"} == set(texts(root))


@given(st.lists(st.floats(), min_size=1, max_size=6))
def test_any_numbers_make_bars(values: list[float]):
    root = svg(bar_chart([(str(i), value) for i, value in enumerate(values)], "bits"))
    assert all(0 <= float(bar.attrib["width"]) <= 400 for bar in root.iter("rect"))


def test_what_comes_from_outside_is_text_in_bars():
    root = svg(bar_chart([(HOSTILE, 1.0), ("<b>", 2.0)], HOSTILE))
    assert root.attrib["aria-label"] == HOSTILE
    assert HOSTILE[:20] == texts(root)[0][:20]
    assert "<b>" in texts(root)
    assert {item.tag for item in root.iter()} == {"svg", "text", "rect"}


def test_no_bars_are_a_chart_too():
    assert texts(svg(bar_chart([], "bits"))) == []


# Graphs ------------------------------------------------------------------------------------------------------------


@st.composite
def graphs(draw: st.DrawFn) -> tuple[dict[str, list[str]], list[tuple[str, str]]]:
    """Nodes in any order, and edges without a circle."""
    count = draw(st.integers(1, 8))
    pairs = [(f"n{i}", f"n{j}") for j in range(count) for i in range(j)]
    edges = draw(st.lists(st.sampled_from(pairs), max_size=12)) if pairs else []
    names = draw(st.permutations([f"n{i}" for i in range(count)]))
    return {name: [name] for name in names}, draw(st.permutations(edges))


@given(graphs())
def test_every_edge_goes_from_left_to_right_and_boxes_do_not_overlap(
    drawn: tuple[dict[str, list[str]], list[tuple[str, str]]],
):
    labels, edges = drawn
    root = svg(graph(labels, edges))
    boxes = [{key: float(item.attrib[key]) for key in ("x", "y", "width", "height")} for item in root.iter("rect")]
    place = dict(zip(labels, boxes, strict=True))
    for (start, end), path in zip(edges, root.iter("path"), strict=True):
        numbers = [float(number) for number in re.findall(r"-?\d+", path.attrib["d"])]
        assert numbers[0] == place[start]["x"] + place[start]["width"] < numbers[-2] == place[end]["x"]
        assert place[start]["y"] < numbers[1] < place[start]["y"] + place[start]["height"]
        assert place[end]["y"] < numbers[-1] < place[end]["y"] + place[end]["height"]
    for i, one in enumerate(boxes):
        for other in boxes[:i]:
            across = abs(one["x"] - other["x"]) >= one["width"]
            assert across or abs(one["y"] - other["y"]) >= one["height"]
    width, height = map(float, root.attrib["viewBox"].split()[2:])
    assert all(box["x"] + box["width"] <= width and box["y"] + box["height"] <= height for box in boxes)


def test_what_comes_from_outside_is_text_in_a_graph():
    root = svg(graph({HOSTILE: [HOSTILE[:9], "<i>", "&amp;"], "b": ["b"]}, [(HOSTILE, "b")]))
    assert texts(root) == [HOSTILE[:9], "<i>", "&amp;", "b"]
    assert {item.tag for item in root.iter()} == {"svg", "text", "rect", "path"}


def test_a_label_that_is_too_wide_for_its_box_is_cut_short():
    (shown,) = texts(svg(graph({"a": ["m" * 100]}, [])))
    assert shown.endswith("m…")
    assert len(shown) < 30


def test_no_nodes_are_a_sentence():
    assert graph({}, []) == '<p class="faint">Nothing to draw.</p>'
