"""The laboratory's command: what it refuses, what it does when time runs out, and which options reach the arms."""

import json

import pytest

from attnmod.benchmarks import alignment
from attnmod.benchmarks.laboratory import arms as experiments
from attnmod.benchmarks.laboratory import diagnosis
from attnmod.benchmarks.laboratory.arms import Arm, with_mechanisms
from attnmod.benchmarks.laboratory.diagnosis import diagnose
from attnmod.benchmarks.laboratory.tasks import draw_tasks
from attnmod.sampler.config import ModulationConfig
from tests.benchmarks.toy_painter import Painter, Silent


def laboratory(folder, *arguments):
    """With a painter in the place of the pipeline; stock and base make mistakes."""
    options = alignment.parse([*arguments, "--records", str(folder / "records"), "--results", str(folder)])
    made = alignment.Laboratory(options, Silent(), "model")
    made.painter = Painter(mistaken=("stock", "base"))
    return made


def results(folder):
    return {path.name for path in folder.iterdir() if path.name != "records"}


# -- time runs out


def test_no_pictures_replace_no_table(tmp_path, capsys):
    (tmp_path / "alignment-headline.md").write_text("measured earlier")
    alignment.run_all(laboratory(tmp_path, "headline", "--prompts", "8", "--budget", "0"))
    assert (tmp_path / "alignment-headline.md").read_text() == "measured earlier"
    assert results(tmp_path) == {"alignment-headline.md"}
    assert "headline: no picture was made by every arm yet, so nothing is written" in capsys.readouterr().out


def test_what_has_no_records_does_not_begin_too_late(tmp_path, capsys):
    alignment.run_all(laboratory(tmp_path, "layers", "diagnosis", "sheet", "--budget", "0"))
    told = capsys.readouterr().out.splitlines()
    assert told == [f"{name}: out of time, not begun" for name in ("layers", "diagnosis", "sheet")]
    assert results(tmp_path) == set()


@pytest.mark.parametrize("stage", ["search", "combinations", "confirmation"])
def test_a_search_without_time_stops_in_that_stage(tmp_path, monkeypatch, capsys, stage):
    """When that stage has half of its pictures."""
    found = laboratory(tmp_path, "search", "--prompts", "16", "--repeats", "1", "--factors", "vote", "balance")
    found.base = ModulationConfig(vote="sum", balanced=False)
    go, begun = found.run, []

    def run(experiment, seed=0):
        begun.append(experiment.name)
        if experiment.name == stage:
            found.options.prompts = 8
            go(experiment, seed)
            found.options.prompts, found.deadline = 16, 0.0
        return go(experiment, seed)

    monkeypatch.setattr(found, "run", run)
    found.search()
    stages = ["search", "combinations", "confirmation"]
    assert begun == stages[: stages.index(stage) + 1]
    assert f"out of time in {stage}: " in (told := capsys.readouterr().out)
    assert "no choice gained" not in told
    written = json.loads((tmp_path / f"alignment-{stage}.json").read_text())
    assert (written["pictures_per_arm"], written["pictures_per_arm_wanted"]) == (8, 16)


# -- what is refused


@pytest.mark.parametrize("name", ["search", "layers", "diagnosis", "sheet"])
def test_a_seed_that_would_do_nothing_is_refused(name, capsys):
    with pytest.raises(SystemExit):
        alignment.parse(["headline", name, "--task-seed", "3"])
    assert f"--task-seed has no effect on {name}" in capsys.readouterr().err
    assert alignment.parse(["headline", "--task-seed", "3"]).task_seed == 3


def test_an_unknown_factor_is_refused(capsys):
    with pytest.raises(SystemExit):
        alignment.parse(["search", "--factors", "vote", "colour"])
    assert "there is no factor 'colour'; there are tau, " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (["--model", "nowhere"], "model folder nowhere has no model_index.json"),
        (["--config", "nowhere.json"], "nowhere.json"),
        (["--config", __file__], "is not JSON"),
        (["--device", "abacus"], "device is 'abacus'"),
    ],
)
def test_a_wrong_argument_ends_in_one_line(wrong, message, tmp_path, capsys):
    assert alignment.main(["headline", "--results", str(tmp_path), *wrong]) == 2
    told = capsys.readouterr()
    assert told.err.startswith("error: ")
    assert message in told.err
    assert told.err.count("\n") == 1
    assert not told.out


@pytest.mark.parametrize("name", [*sorted({*alignment.EXPERIMENTS} - {"arms"}), "combinations", "confirmation"])
def test_a_file_of_arms_has_a_name_of_its_own(name, tmp_path):
    path = tmp_path / f"{name}.json"
    path.write_text('{"tau": {"temperature": 0.7}}')
    with pytest.raises(ValueError, match=f"named {name}, "):
        experiments.from_file(ModulationConfig(), path)
    own = path.rename(tmp_path / "mine.json")
    assert experiments.from_file(ModulationConfig(), own).name == "mine"
    own.write_text('{"stock": {"temperature": 0.7}}')
    with pytest.raises(ValueError, match="stock is the name"):
        experiments.from_file(ModulationConfig(), own)


def test_layers_of_pictures_without_objects_are_no_table(tmp_path, monkeypatch):
    monkeypatch.setattr(diagnosis, "_runs", lambda *_arguments, **_options: iter(()))
    with pytest.raises(ValueError, match="of the first 1 validation prompts none with several entities"):
        laboratory(tmp_path, "layers", "--prompts", "1").layers()
    assert results(tmp_path) == set()


@pytest.mark.parametrize("config", [None, ModulationConfig.preset("temperature"), ModulationConfig.preset("neutral")])
def test_a_diagnosis_needs_a_mask(config):
    with pytest.raises(ValueError, match="the mask of the arm 'some' never works"):
        diagnose(None, Arm("some", config), draw_tasks("validation", 4))


def test_a_diagnosis_needs_prompts_of_several_entities(tmp_path):
    with pytest.raises(ValueError, match="no prompts of several entities"):
        laboratory(tmp_path, "diagnosis", "--prompts", "1").diagnosis()


# -- what reaches the arms


def test_the_options_reach_the_arms_unless_the_experiment_is_about_them(tmp_path):
    found = laboratory(tmp_path, "--steps", "7", "--guidance-scale", "3")
    arm = Arm("some", ModulationConfig(), guidance_scale=9.0, steps=4, baseline="stock")
    reached = {name: found._with_options(arm, name) for name in ("headline", "steps", "guidance")}
    assert {name: (arm.steps, arm.guidance_scale) for name, arm in reached.items()} == {
        "headline": (7, 3.0),
        "steps": (4, 3.0),
        "guidance": (7, 9.0),
    }
    assert {(arm.name, arm.config, arm.baseline) for arm in reached.values()} == {("some", arm.config, "stock")}
    alignment.run_all(laboratory(tmp_path, "headline", "--prompts", "4", "--repeats", "1", "--steps", "7"))
    summary = json.loads((tmp_path / "alignment-headline.json").read_text())
    assert {arm["steps"] for arm in summary["arms"]} == {7}


@pytest.mark.parametrize("token", ["bos", "eos", "padding"])
def test_tokens_taken_out_belong_to_the_mask(token):
    base = ModulationConfig(**{token: "absent"})
    assert with_mechanisms(base, ()).is_neutral
    assert not with_mechanisms(base, ("temperature",)).modulates_cross_attention
    assert getattr(with_mechanisms(base, ("mask",)), token) == "absent"
    assert with_mechanisms(base, tuple(experiments.MECHANISMS)) == base
    plain = ModulationConfig(eos="global", padding="masked")
    assert (with_mechanisms(plain, ()).eos, with_mechanisms(plain, ()).padding) == ("global", "masked")
