"""The laboratory of alignment with painters whose mistakes are known, and once with a real, untrained pipeline."""

import dataclasses
import json
import math

import numpy as np
import pytest

from attnmod.benchmarks import alignment
from attnmod.benchmarks.laboratory import arms as experiments
from attnmod.benchmarks.laboratory import diagnosis, report, search
from attnmod.benchmarks.laboratory.arms import Arm, Experiment, with_mechanisms
from attnmod.benchmarks.laboratory.bootstrap import difference, estimate
from attnmod.benchmarks.laboratory.diagnosis import diagnose
from attnmod.benchmarks.laboratory.runs import PipelinePainter, Record, call, model_fingerprint, run
from attnmod.benchmarks.laboratory.sheet import draw_sheet
from attnmod.benchmarks.laboratory.tasks import draw_tasks
from attnmod.benchmarks.miniature.scorer import read_picture
from attnmod.benchmarks.miniature.world import Scene, combination_split, render
from attnmod.sampler.config import ModulationConfig
from attnmod.sampler.patch import modulate
from tests.benchmarks.toy_painter import ABOUT, MODULATED, STOCK, Painter, Silent, records_of

# -- tasks


def test_tasks_are_of_their_split_and_balanced():
    tasks = draw_tasks("test", 16)
    assert [task.things for task in tasks] == [1, 2, 3, 4] * 4
    for task in tasks:
        for thing in task.scene.things:
            assert combination_split(thing.colour, thing.drawn_texture, thing.shape) == "test"
    assert len({task.prompt for task in tasks}) == 16


def test_a_longer_list_begins_with_the_shorter_and_splits_share_nothing():
    assert draw_tasks("test", 12)[:8] == draw_tasks("test", 8)
    assert not {task.prompt for task in draw_tasks("test", 12)} & {task.prompt for task in draw_tasks("validation", 12)}
    assert draw_tasks("test", 8, seed=1) != draw_tasks("test", 8)
    with pytest.raises(ValueError, match="split"):
        draw_tasks("all", 4)


def test_every_picture_has_noise_of_its_own():
    seeds = [task.noise_seed(repeat) for task in draw_tasks("test", 8) for repeat in range(4)]
    assert len(set(seeds)) == len(seeds)


# -- statistics


def test_the_interval_is_that_of_the_mean():
    """Against the normal approximation, which holds for so many prompts."""
    values = np.random.default_rng(0).random(400)
    found = estimate(dict(enumerate(values)))
    assert found is not None
    error = 1.96 * values.std() / math.sqrt(400)
    assert found.mean == pytest.approx(values.mean())
    assert found.low == pytest.approx(values.mean() - error, abs=0.1 * error)
    assert found.high == pytest.approx(values.mean() + error, abs=0.1 * error)


def test_pairing_takes_the_prompts_difficulty_out():
    hard = {number: number % 2 for number in range(100)}
    better = {number: value + 0.1 for number, value in hard.items()}
    found = difference(hard, better)
    assert found is not None
    assert (found.low, found.high) == (pytest.approx(0.1), pytest.approx(0.1))
    assert difference(hard, {number + 50: value for number, value in better.items()}).prompts == 50
    assert estimate({}) is None


# -- running


def test_known_mistakes_are_counted(tmp_path):
    tasks, painter, arms = draw_tasks("test", 32), Painter(), (STOCK, MODULATED)
    records = records_of(tmp_path, arms)
    assert run(painter, arms, tasks, records, repeats=2, batch=5)
    experiment = Experiment("headline", "test", arms, prompts=32, repeats=2)
    summary = report.summarise(experiment, tasks, records, ABOUT)
    stock, modulated = (arm["figures"]["all"] for arm in summary["arms"])
    assert stock["colour"]["value"]["mean"] == 0.5
    assert stock["content"]["value"]["mean"] == 1.0
    assert modulated["whole"]["value"]["mean"] == 1.0
    assert modulated["whole"]["difference"]["mean"] == 0.5
    assert summary["pictures_per_arm"] == 64
    table = report.as_markdown(summary, ["all"])
    assert "| stock | 50.0 | 100 % |" in table
    assert "| modulated | 100.0 (+50.0: " in table
    assert "are meant to be made" not in table


def test_the_same_noise_for_every_arm(tmp_path):
    tasks, painter, arms = draw_tasks("test", 8), Painter(), (STOCK, MODULATED)
    run(painter, arms, tasks, records_of(tmp_path, arms), repeats=2, batch=3)
    by_arm = [[rest for name, *rest in painter.asked if name == arm.name] for arm in arms]
    assert by_arm[0] == by_arm[1]
    assert len(by_arm[0]) == 16


def test_an_interrupted_run_goes_on_where_it_stopped(tmp_path):
    tasks, arms = draw_tasks("test", 8), (STOCK, MODULATED)

    class Stops(Painter):
        def paint(self, arm, tasks, seeds):
            if len(self.asked) >= 6:
                raise KeyboardInterrupt
            return super().paint(arm, tasks, seeds)

    with pytest.raises(KeyboardInterrupt):
        run(Stops(), arms, tasks, records_of(tmp_path, arms), repeats=1, batch=2)
    painter = Painter()
    records = records_of(tmp_path, arms)
    assert sum(len(record.results) for record in records) == 6
    assert run(painter, arms, tasks, records, repeats=1, batch=2)
    assert len(painter.asked) == 10
    again = Painter()
    assert run(again, arms, tasks, records_of(tmp_path, arms), repeats=1, batch=4)
    assert again.asked == []


def test_a_line_that_was_cut_short_is_made_again(tmp_path):
    tasks = draw_tasks("test", 4)
    (record,) = records_of(tmp_path, [STOCK])
    run(Painter(), [STOCK], tasks, [record], repeats=1, batch=4)
    text = record.path.read_text()
    record.path.write_text(text[:-40])
    (read,) = records_of(tmp_path, [STOCK])
    assert len(read.results) == 3
    painter = Painter()
    run(painter, [STOCK], tasks, [read], repeats=1, batch=4)
    assert len(painter.asked) == 1
    assert len(records_of(tmp_path, [STOCK])[0].results) == 4


def test_records_know_model_and_settings(tmp_path):
    paths = {Record(tmp_path, model, arm, split, seed).path
             for model in ("one", "another")
             for arm in (STOCK, MODULATED, Arm("modulated", ModulationConfig(vote="mean")), Arm("stock", steps=9))
             for split in ("test", "validation")
             for seed in (0, 1)}  # fmt: skip
    assert len(paths) == 32
    same = Record(tmp_path, "one", Arm("another name"), "test", 0)
    assert same.path in paths  # a name changes no picture


def test_a_foreign_record_is_refused(tmp_path):
    (record,) = records_of(tmp_path, [STOCK])
    record.path.write_text('{"format": 1, "model": "another"}\n')
    with pytest.raises(ValueError, match="no record of these settings"):
        records_of(tmp_path, [STOCK])


def test_a_full_disk_loses_nothing_that_was_finished(tmp_path, monkeypatch):
    tasks = draw_tasks("test", 4)
    (record,) = records_of(tmp_path, [STOCK])
    run(Painter(), [STOCK], tasks[:2], [record], repeats=1, batch=2)

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("attnmod.benchmarks.laboratory.runs.os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        run(Painter(), [STOCK], tasks, [record], repeats=1, batch=2)
    monkeypatch.undo()
    assert len(records_of(tmp_path, [STOCK])[0].results) >= 2


def test_out_of_time_leaves_the_arms_paired(tmp_path):
    tasks, arms = draw_tasks("test", 8), (STOCK, MODULATED)
    records = records_of(tmp_path, arms)
    assert not run(Painter(), arms, tasks, records, repeats=1, batch=2, deadline=0.0)
    run(Painter(), arms[:1], tasks, records[:1], repeats=1, batch=2)
    run(Painter(), arms[1:], tasks[:4], records[1:], repeats=1, batch=2)
    summary = report.summarise(Experiment("headline", "test", arms, repeats=1), tasks, records, ABOUT)
    assert summary["pictures_per_arm"] == 4
    assert "(8 are meant to be made)" in report.as_markdown(summary, ["all"])


def test_a_picture_of_another_prompt_is_made_anew(tmp_path):
    """Whoever changes how prompts are written finds no old verdict under a new prompt."""
    arm, tasks = Arm("stock"), draw_tasks("test", 2)
    run(Painter(), [arm], tasks, records_of(tmp_path, [arm]), repeats=1, batch=2)
    changed = [tasks[0], dataclasses.replace(tasks[1], prompt=f"{tasks[1].prompt}, please")]
    painter, (again,) = Painter(), records_of(tmp_path, [arm])
    run(painter, [arm], changed, [again], repeats=1, batch=2)
    assert again.results[1, 0].prompt == changed[1].prompt
    assert [task for _, task, _ in painter.asked] == [1]


# -- experiments


def test_the_ablation_has_every_set_of_mechanisms_once():
    base = ModulationConfig(equalize_entities=0.5)
    arms = experiments.ablation(base).arms
    assert len({arm.fingerprint for arm in arms}) == 8
    assert arms[-1].config == base
    assert with_mechanisms(base, ()).is_neutral
    mask = with_mechanisms(base, ("mask",))
    assert mask.hidden_weight == base.hidden_weight
    assert not mask.modulates_self_attention
    assert not mask.equalize_entities


def test_the_guidance_sweep_holds_each_arm_against_stock_at_its_own_scale():
    experiment = experiments.guidance(ModulationConfig())
    assert {arm.guidance_scale for arm in experiment.arms} == {1.0, 2.0, 3.0, 5.0, 7.0, 9.0, 12.0}
    assert len(experiment.arms) == 14
    for arm in experiment.arms:
        assert experiment.arms[experiment.baseline(arm)] == dataclasses.replace(
            arm, name=f"stock, guidance {arm.guidance_scale:g}", config=None
        )
        assert dataclasses.replace(arm, baseline="").fingerprint == arm.fingerprint


def test_arms_from_a_file(tmp_path):
    path = tmp_path / "arms.json"
    path.write_text('{"averaged": {"ownership": "average"}, "tau": {"temperature": 0.7}}')
    experiment = experiments.from_file(ModulationConfig(), path)
    assert [arm.name for arm in experiment.arms] == ["stock", "averaged", "tau"]
    assert experiment.arms[1].config == ModulationConfig(ownership="average")
    assert experiment.split == "validation"
    path.write_text('{"wrong": {"temperature": 0.0}}')
    with pytest.raises(ValueError, match="wrong: temperature"):
        experiments.from_file(ModulationConfig(), path)
    path.write_text("[1]")
    with pytest.raises(ValueError, match="must hold"):
        experiments.from_file(ModulationConfig(), path)


def test_the_search_never_sees_the_test_split():
    base = ModulationConfig()
    single = search.single_factors(base)
    found = [single, search.combinations(base, ["every patch owned", "vote mean"]), search.confirmation(base, [])]
    assert {experiment.split for experiment in [*found, experiments.steps(base)]} == {"validation"}
    assert len({arm.fingerprint for arm in single.arms}) == len(single.arms)
    assert found[1].arms[-1].config == dataclasses.replace(base, owned_above=0.0, vote="mean")
    with pytest.raises(ValueError, match="unknown"):
        search.single_factors(base, ("colour",))


def test_the_search_takes_the_winners(tmp_path, capsys):
    """Of all arms only two draw without mistakes; both are then combined, and confirmed on other prompts."""
    options = alignment.parse(
        ["search", "--prompts", "16", "--repeats", "1", "--records", str(tmp_path / "r"), "--results", str(tmp_path)]
        + ["--factors", "vote", "balance"]
    )
    laboratory = alignment.Laboratory(options, Silent(), "model")
    laboratory.base = ModulationConfig(vote="sum", balanced=False)
    laboratory.painter = Painter(mistaken=("stock", "base", "vote head"))
    laboratory.search()
    confirmed = json.loads((tmp_path / "alignment-confirmation.json").read_text())
    names = [arm["name"] for arm in confirmed["arms"]]
    assert names[:2] == ["stock", "base"]
    assert set(names[2:]) >= {"vote mean + balanced"} or set(names[2:]) >= {"balanced + vote mean"}
    assert confirmed["tasks_seed"] == 1
    assert confirmed["split"] == "validation"
    assert "100.0" in capsys.readouterr().out


@pytest.mark.parametrize("wrong", [["nothing"], ["arms"], ["--batch", "0"], ["headline", "--prompts", "-1"]])
def test_bad_input_is_told(wrong, capsys):
    with pytest.raises(SystemExit):
        alignment.parse(wrong)
    assert "error" in capsys.readouterr().err


def test_no_model_is_told(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"model_index\.json"):
        model_fingerprint(tmp_path)


# -- with a pipeline


@pytest.fixture(scope="module")
def pipe():
    from attnmod.sampler.untrained import sdxl_shaped_pipeline

    pipe = sdxl_shaped_pipeline(
        channels=(64, 64), transformer_layers=(1, 1), vae_channels=(32, 32), sample_size=32, norm_groups=32
    )
    assert pipe.default_sample_size * pipe.vae_scale_factor == 64
    return pipe


def test_a_pipeline_paints_stock_and_modulated_from_the_same_noise(pipe, tmp_path):
    painter = PipelinePainter(pipe)
    tasks = draw_tasks("test", 4)[1:3]
    seeds = [task.noise_seed(0) for task in tasks]
    stock = painter.paint(Arm("stock", steps=2), tasks, seeds)
    assert stock.shape == (2, 64, 64, 3)
    assert stock.dtype == np.uint8
    neutral = painter.paint(Arm("neutral", ModulationConfig.preset("neutral"), steps=2), tasks, seeds)
    assert np.array_equal(stock, neutral)
    modulated = painter.paint(Arm("modulated", ModulationConfig(), steps=2), tasks, seeds)
    assert not np.array_equal(stock, modulated)
    assert np.array_equal(stock, painter.paint(Arm("stock", steps=2), tasks, seeds))  # taken off again


def test_every_picture_has_its_noise_and_its_guidance(pipe):
    PipelinePainter(pipe)
    task = draw_tasks("test", 2)[1]
    first, second = call(pipe, Arm("stock", steps=2), [task, task], [1, 2])
    assert not np.array_equal(first, second), "one seed for all"
    weak, strong = (call(pipe, Arm("stock", steps=2, guidance_scale=scale), [task], [1]) for scale in (1.0, 7.0))
    assert not np.array_equal(weak, strong)


def test_given_regions_reach_the_pipeline(pipe):
    painter, tasks = PipelinePainter(pipe), draw_tasks("test", 4)[1:]
    seeds = [task.noise_seed(0) for task in tasks]
    arm = Arm("given", ModulationConfig(hidden_weight=0.0, temperature=1.0), steps=2)
    voted, given = painter.paint(arm, tasks, seeds), painter.paint(dataclasses.replace(arm, regions=True), tasks, seeds)
    assert not np.array_equal(voted, given)


def test_diagnosis_counts_patches(pipe):
    PipelinePainter(pipe)
    arm = Arm("modulated", ModulationConfig(), steps=2)
    found = diagnose(pipe, arm, draw_tasks("test", 3)[1:], batch=2)
    assert found.prompts + found.unread == 2
    assert len(found.strongest) == 2
    assert all(0 <= share <= 1 for share in [*found.strongest, *found.nobody, *found.starved])


@pytest.mark.parametrize("ownership", ["layer", "average"])
def test_layers_are_asked_one_by_one_or_together(pipe, monkeypatch, ownership):
    """Pictures drawn as the prompt says, so that everything is found; then the shares of all entities make a whole."""
    tasks = [task for task in draw_tasks("test", 6) if task.things == 2]
    drawn = iter([render(task.scene, np.random.default_rng(0)).pixels for task in tasks])
    monkeypatch.setattr(diagnosis, "read_picture", lambda _pixels: read_picture(next(drawn)))
    monkeypatch.setattr(diagnosis, "_share_in_box", lambda owned, _box: owned.mean((1, 2)))
    arm = Arm("votes", ModulationConfig(ownership=ownership), steps=2)
    PipelinePainter(pipe)
    votes, things, chance = diagnosis.votes_won(pipe, arm, tasks, batch=2)
    assert things == 2 * len(tasks)
    assert chance == 0.5
    with modulate(pipe, ModulationConfig()) as handle:
        assert tuple(votes) == (handle.cross_attention_layers if ownership == "layer" else (None,))
    for shares in votes.values():
        assert shares == pytest.approx([0.5, 0.5]), "two entities share all patches between them"
    with pytest.raises(ValueError, match="stock"):
        diagnosis.votes_won(pipe, Arm("stock"), tasks)


def test_the_middle_of_a_box():
    assert diagnosis._middle((10, 20, 20, 40)) == (12, 24, 18, 36)


def test_the_sheet_shows_every_task(pipe):
    PipelinePainter(pipe)
    one = draw_sheet(pipe, Arm("modulated", ModulationConfig(), steps=1), draw_tasks("test", 1))
    two = draw_sheet(pipe, Arm("modulated", ModulationConfig(), steps=1), draw_tasks("test", 2))
    assert two.width == one.width
    assert len(np.unique(np.asarray(two).reshape(-1, 3), axis=0)) > 100


def test_scenes_survive_the_record():
    scene = draw_tasks("test", 4)[3].scene
    assert Scene.from_dict(json.loads(json.dumps(scene.to_dict()))) == scene
