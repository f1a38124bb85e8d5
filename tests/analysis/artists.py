"""Figures read back: legends, lines, crosses, and whether all of it can be seen."""


def legend_texts(ax) -> list[str]:
    return [text.get_text() for text in ax.get_legend().get_texts()]


def legend_title(ax) -> str:
    return " ".join(ax.get_legend().get_title().get_text().split())


def crosses(ax) -> list[tuple]:
    lines = [line for line in ax.lines if line.get_marker() == "x"]
    return [point for line in lines for point in zip(*line.get_data(), strict=True)]


def curve_lines(ax) -> list:
    return [line for line in ax.lines if line.get_marker() != "x"]


def assert_inside(figure) -> None:
    """Everything drawn lies inside the figure (inches; 0.01: an antialiased pixel)."""
    figure.canvas.draw()
    drawn = figure.get_tightbbox()
    width, height = figure.get_size_inches()
    assert min(drawn.x0, drawn.y0) >= -0.01
    assert drawn.x1 <= width + 0.01
    assert drawn.y1 <= height + 0.01


def figure_legend_texts(figure) -> list[str]:
    (legend,) = figure.legends
    return [text.get_text() for text in legend.get_texts()]


def figure_legend_title(figure) -> str:
    (legend,) = figure.legends
    return " ".join(legend.get_title().get_text().split())


def dashed_levels(ax) -> list[float]:
    """The heights of the dashed horizontal lines, as drawn."""
    return [
        line.get_ydata()[0]
        for line in ax.lines
        if len(set(line.get_ydata())) == 1 and line.get_linestyle() == "--"
    ]


def assert_legend_beside(figure) -> None:
    """The figure's legend covers none of its panels, and all is inside."""
    assert_inside(figure)
    (legend,) = figure.legends
    box = legend.get_window_extent()
    assert not any(box.overlaps(ax.get_tightbbox()) for ax in figure.axes)
