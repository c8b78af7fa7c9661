"""Figures of searches show what they were given."""

import numpy as np
import pandas as pd

from generators.schedules import maskgit, reference
from natgym.evaluation.objective import Objective
from natgym.figures.searches import laws_figure, schedules_figure, search_figure

LOG = pd.DataFrame(
    {
        "evaluation": range(8),
        "generation": [0, 0, 0, 1, 1, 1, 2, 2],
        "images": [100] * 6 + [200] * 2,
        "distance": [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.45, 0.35],
        "error": [0.1] * 6 + [0.03, 0.02],
    }
)


def test_schedules_are_drawn_without_what_the_last_step_does_not_use() -> None:
    figure = schedules_figure({"reference": reference(4), "maskgit": maskgit(2)}, "note")
    for column, axis in enumerate(figure.axes):
        for line, schedule in zip(axis.get_lines(), (reference(4), maskgit(2)), strict=True):
            shown = schedule.steps - (column < 2)
            assert np.asarray(line.get_xdata()).tolist() == list(range(1, shown + 1))
            assert np.allclose(np.asarray(line.get_ydata()), schedule.table_T4[:shown, column])
    legend = figure.axes[0].get_legend()
    assert legend is not None and [text.get_text() for text in legend.get_texts()] == ["reference", "maskgit"]


def test_a_search_is_drawn_over_the_pictures_it_spent() -> None:
    """Also where the lines of the log stand in the order in which they finished."""
    shuffled = LOG.sample(frac=1, random_state=0)
    figure = search_figure({"cma": shuffled, "grid": LOG[LOG["generation"] != 1]}, "note")
    axis, single = figure.axes
    offsets = np.asarray(axis.collections[0].get_offsets())
    assert np.allclose(offsets[:, 0], [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0])
    walk = axis.get_lines()[0]
    assert np.allclose(np.asarray(walk.get_xydata()), [[0.3, 0.8], [0.6, 0.5]])
    assert np.allclose(np.asarray(axis.containers[0][0].get_xydata()), [[1.0, 0.35]])
    assert [a.get_title() for a in (axis, single)] == ["cma", "grid"] and axis.get_yscale() == "log"
    assert axis.get_ylabel() == "distance", "of more than one split"
    valid = Objective("valid", 0.03).words
    assert search_figure({"cma": LOG}, "note", valid).axes[0].get_ylabel() == "share not valid, + 0.03 a pass"


def test_more_than_four_searches_take_a_second_row() -> None:
    figure = search_figure({name: LOG for name in "abcdef"}, "note")
    assert "".join(axis.get_title() for axis in figure.axes) == "abcdef"
    tops = [round(axis.get_position().y1, 3) for axis in figure.axes]
    assert tops == [tops[0]] * 4 + [tops[4]] * 2 and tops[4] < tops[0]
    assert [bool(axis.get_ylabel()) for axis in figure.axes] == [True, *[False] * 3, True, False]


def test_laws_are_drawn_by_round_with_the_best_on_its_own() -> None:
    laws = pd.DataFrame(
        {
            "round": [0, 0, 1],
            "law": ["cosine", "beta(12, 3)", "gaussian(0.7, 0.2)"],
            "best": [True, False, True],
            "updates": [400, 200, 400],
            "distance": [0.5, 0.8, 0.4],
            "error": [0.1, 0.1, 0.1],
        }
    )
    figure = laws_figure(laws, "note")
    labels = [[tick.get_text() for tick in axis.get_yticklabels()] for axis in figure.axes]
    assert labels == [
        ["beta(12, 3), 200 updates", "cosine, 400 updates"],
        ["gaussian(0.7, 0.2), 400 updates"],
    ]
    colors = figure.axes[0].collections[-1].get_facecolors()
    assert not np.allclose(colors[0], colors[1])
