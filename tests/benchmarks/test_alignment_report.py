"""What the laboratory's tables count, what they hold against what, and which times they compare."""

import dataclasses

import pytest

from attnmod.benchmarks.laboratory import arms as experiments
from attnmod.benchmarks.laboratory import report
from attnmod.benchmarks.laboratory.arms import Arm, Experiment
from attnmod.benchmarks.laboratory.runs import run
from attnmod.benchmarks.laboratory.tasks import draw_tasks
from attnmod.sampler.config import ModulationConfig
from tests.benchmarks.toy_painter import ABOUT, MODULATED, STOCK, Painter, records_of

ARMS = (STOCK, MODULATED)


def painted(folder, count, repeats, arms=ARMS, painter=None):
    """Records of so many pictures of the arms."""
    records = records_of(folder, arms)
    assert run(painter or Painter(), arms, draw_tasks("test", count), records, repeats=repeats, batch=8)
    return records


def summarised(records, count, repeats, arms=ARMS):
    return report.summarise(
        Experiment("some", "test", arms, repeats=repeats), draw_tasks("test", count), records, ABOUT
    )


# -- what counts


def test_what_was_not_asked_for_does_not_count(tmp_path):
    """The painter's first mistakes are in prompts 4 to 7."""
    records = painted(tmp_path, count=8, repeats=2)
    summary = summarised(records, count=4, repeats=1)
    assert (summary["pictures_per_arm"], summary["pictures_per_arm_wanted"]) == (4, 4)
    assert summary["prompts"] == 4
    assert summary["arms"][0]["figures"]["all"]["colour"]["value"] == {"mean": 1, "low": 1, "high": 1, "prompts": 4}
    assert summarised(records, count=8, repeats=1)["arms"][0]["figures"]["all"]["colour"]["value"]["mean"] == 0.5
    assert summarised(records, count=8, repeats=1)["pictures_per_arm"] == 8


def test_a_picture_of_another_prompt_does_not_count(tmp_path):
    records = painted(tmp_path, count=4, repeats=1)
    records[0].results[1, 0] = dataclasses.replace(records[0].results[1, 0], prompt="another")
    assert summarised(records, count=4, repeats=1)["pictures_per_arm"] == 3


def test_progress_is_told_of_what_was_asked_for(tmp_path):
    painted(tmp_path, count=8, repeats=2, arms=(STOCK,))
    told, tasks = [], draw_tasks("test", 4)
    records = records_of(tmp_path, ARMS)
    run(Painter(), ARMS, tasks, records, repeats=1, batch=2, told=lambda done, total: told.append((done, total)))
    assert told == [(6, 8), (8, 8)]


def test_an_estimate_is_over_prompts_and_not_over_pictures(tmp_path):
    summary = summarised(painted(tmp_path, count=8, repeats=3), count=8, repeats=3)
    assert summary["pictures_per_arm"] == 24
    for arm in summary["arms"]:
        assert arm["figures"]["all"]["whole"]["value"]["prompts"] == 8
        assert arm["figures"]["2"]["whole"]["value"]["prompts"] == 2
    assert summary["arms"][1]["figures"]["all"]["whole"]["difference"]["prompts"] == 8


# -- what is held against what


def test_each_arm_is_held_against_its_own_baseline(tmp_path):
    arms = (STOCK, Arm("other", steps=9), Arm("modulated", ModulationConfig(), baseline="other"))
    records = painted(tmp_path, count=40, repeats=1, arms=arms)  # of which the stock arm gets half wrong
    summary = summarised(records, count=40, repeats=1, arms=arms)
    assert [arm["baseline"] for arm in summary["arms"]] == ["stock", "stock", "other"]
    changes = [arm["figures"]["all"]["whole"]["difference"] for arm in summary["arms"]]
    assert changes[0] is None
    assert changes[1]["mean"] == 0.5
    assert changes[2]["mean"] == 0
    assert report.gains(summary, "whole", "all") == {"other": 0.5, "modulated": 0}
    assert "| modulated | 100.0 | - |" in report.as_markdown(summary, ["all"])  # its baseline makes no errors
    with pytest.raises(ValueError, match="'nobody' is not in"):
        Experiment("some", "test", arms).baseline(Arm("alone", baseline="nobody"))


def test_the_guidance_table_says_what_an_arm_is_held_against(tmp_path):
    experiment = dataclasses.replace(experiments.guidance(ModulationConfig()), repeats=1)
    wrong = [arm.name for arm in experiment.arms if arm.config is None and arm.guidance_scale == 7]
    records = painted(tmp_path, count=40, repeats=1, arms=experiment.arms, painter=Painter(mistaken=wrong))
    summary = report.summarise(experiment, draw_tasks("test", 40), records, ABOUT)
    table = report.as_markdown(summary, ["all"])
    assert "the difference to stock at the same scale and its 95% interval" in table
    assert "| arm | whole prompt | errors against stock at the same scale |" in table
    assert "| stock, guidance 7 | 50.0 | 100 % |" in table
    assert "| modulated, guidance 7 | 100.0 (+50.0: " in table
    assert "| modulated, guidance 5 | 100.0 | - |" in table


# -- times


def timed(records, arm, place, **values):
    records[arm].results[place, 0] = dataclasses.replace(records[arm].results[place, 0], **values)


def test_only_times_of_one_session_are_compared(tmp_path):
    records = painted(tmp_path, count=4, repeats=1)
    for place, (session, seconds) in enumerate([("one", 1.0), ("two", 5.0), ("one", 3.0), ("one", 70.0)]):
        timed(records, 0, place, session="one", seconds=10 * seconds)
        timed(records, 1, place, session=session, seconds=seconds)
    summary = summarised(records, count=4, repeats=1)
    assert [arm["seconds_per_picture"] for arm in summary["arms"]] == [30.0, 3.0]
    assert "No time is given" not in report.as_markdown(summary, ["all"])


def test_no_time_is_given_where_none_compare(tmp_path):
    records = painted(tmp_path, count=4, repeats=1)
    for place in range(4):
        timed(records, 1, place, session="another")
    summary = summarised(records, count=4, repeats=1)
    assert [arm["seconds_per_picture"] for arm in summary["arms"]] == [None, None]
    table = report.as_markdown(summary, ["all"])
    assert "No time is given: " in table
    assert all(row.endswith("| - |") for row in table.splitlines() if row.startswith(("| stock", "| modulated")))
