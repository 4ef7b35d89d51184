"""The training of the miniature at toy size: exact resume, checkpoints that are never lost, a pipeline like SDXL's."""

import dataclasses
import os
import shutil
import signal
from itertools import pairwise

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionXLPipeline

from attnmod.benchmarks.miniature import train as training
from attnmod.benchmarks.miniature.autoencoder import (
    fold_normalisation,
    normalise,
    reconstruction_error,
    refine_decoder,
    to_model,
    train_autoencoder,
)
from attnmod.benchmarks.miniature.checkpoint import load_checkpoint, save_checkpoint
from attnmod.benchmarks.miniature.config import MiniatureConfig
from attnmod.benchmarks.miniature.data import cached, draw_example, training_set
from attnmod.benchmarks.miniature.export import export
from attnmod.benchmarks.miniature.model import make_pipeline, make_tokenizer
from attnmod.benchmarks.miniature.sheet import contact_sheet, draw_samples, loss_curve
from attnmod.benchmarks.miniature.train import CHECKPOINT, Trainer, learning_rate, main, repadded, train
from attnmod.benchmarks.miniature.world import combination_split
from tests.benchmarks.toy_training import CPU, TOY, assert_same_to_the_bit, full_disk, interrupted_at, toy_command

# -- resume


def test_an_interrupted_training_ends_as_an_uninterrupted_one_to_the_bit(run, tmp_path, monkeypatch):
    interrupted_at(monkeypatch, 2)
    with pytest.raises(KeyboardInterrupt):
        train(TOY, tmp_path, CPU)
    assert load_checkpoint(tmp_path / CHECKPOINT, TOY)[0].step == 2
    train(TOY, tmp_path, CPU)
    whole, resumed = (load_checkpoint(folder / CHECKPOINT, TOY)[0] for folder in (run, tmp_path))
    assert whole.step == 4
    assert_same_to_the_bit(whole, resumed)


def test_training_changes_what_it_should(run):
    state, _ = load_checkpoint(run / CHECKPOINT)
    before = training.trained_weights(make_pipeline(TOY))
    changed = {name for name, weight in before.items() if not torch.equal(weight, state.weights[name])}
    unused = {name for name in before if name not in state.moments}
    # SDXL reads the first encoder's last layer but one: what comes after it has no part in the picture
    assert all(name.startswith("text_encoder.") for name in unused)
    assert {"unet.conv_in.weight", "text_encoder_2.text_projection.weight"} <= changed
    assert len(changed) > 0.9 * len(before) - len(unused)
    assert all(torch.isfinite(value).all() for value in state.averaged.values())


def test_other_settings_are_refused_and_nothing_is_lost(run):
    before = (run / CHECKPOINT).read_bytes()
    with pytest.raises(ValueError, match="batch: 3 there, 5 now"):
        train(dataclasses.replace(TOY, batch=5), run, CPU)
    assert (run / CHECKPOINT).read_bytes() == before


def test_more_steps_may_be_asked_for(run, tmp_path):
    shutil.copytree(run, tmp_path, dirs_exist_ok=True)
    assert train(dataclasses.replace(TOY, steps=5), tmp_path, CPU).step == 5


def test_a_truncated_checkpoint_is_refused_and_left_alone(run, tmp_path):
    path = tmp_path / CHECKPOINT
    path.write_bytes((run / CHECKPOINT).read_bytes()[:-100])
    before = path.read_bytes()
    with pytest.raises(ValueError, match="truncated or damaged"):
        train(TOY, tmp_path, CPU)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path], "it must be noticed before any work is done"


def test_another_file_is_no_checkpoint(tmp_path):
    from safetensors.torch import save_file

    save_file({"weight": torch.zeros(2)}, tmp_path / CHECKPOINT)
    with pytest.raises(ValueError, match="no checkpoint of this training"):
        load_checkpoint(tmp_path / CHECKPOINT)
    with pytest.raises(FileNotFoundError, match=r"there is no checkpoint .*nowhere"):
        load_checkpoint(tmp_path / "nowhere")


def test_a_full_disk_keeps_the_last_checkpoint(run, tmp_path, monkeypatch):
    path = tmp_path / CHECKPOINT
    path.write_bytes((run / CHECKPOINT).read_bytes())
    state, config = load_checkpoint(path)
    state.step += 1
    full_disk(monkeypatch)
    with pytest.warns(UserWarning, match="checkpoint of step 5 could not be written .*No space left.* stays"):
        assert not save_checkpoint(path, state, config)
    assert path.read_bytes() == (run / CHECKPOINT).read_bytes()
    assert list(tmp_path.iterdir()) == [path], "no half-written file may stay"


def test_a_training_whose_end_cannot_be_written_says_so(tmp_path, monkeypatch):
    full_disk(monkeypatch)
    with pytest.warns(UserWarning, match="no older one"), pytest.raises(OSError, match="last step"):
        train(TOY, tmp_path, CPU)


def test_the_command_ends_in_one_line(run, tmp_path, monkeypatch, capsys):
    (tmp_path / CHECKPOINT).write_bytes(b"nothing")
    toy_command(monkeypatch)
    assert main(["--run", str(tmp_path), "--device", "cpu"]) == 2
    assert capsys.readouterr().err.startswith("error: checkpoint ")


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGINT])
def test_a_training_that_is_told_to_end_keeps_its_steps(tmp_path, monkeypatch, capsys, ending):
    """Also in the background, where a shell lets SIGINT be ignored."""
    toy_command(monkeypatch)
    advance = Trainer.advance
    monkeypatch.setattr(Trainer, "advance", lambda trainer: (advance(trainer), os.kill(os.getpid(), ending)))
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        assert main(["--run", str(tmp_path), "--device", "cpu"]) == 130
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert "interrupted" in capsys.readouterr().err
    assert load_checkpoint(tmp_path / CHECKPOINT, TOY)[0].step == 1


# -- what is computed


def test_training_encodes_prompts_as_the_pipeline_does():
    pipe = make_pipeline(TOY)
    prompts = ["a red circle", "two small striped blue stars, at night"]
    tokens = pipe.tokenizer(prompts, padding="max_length", return_tensors="pt").input_ids
    padded = pipe.tokenizer_2(prompts, padding="max_length", return_tensors="pt").input_ids
    assert torch.equal(repadded(tokens, pipe.tokenizer, pipe.tokenizer_2), padded)
    trainer = Trainer(pipe, np.zeros((2, 6, 16, 16), np.float16), tokens[:, None].numpy(), TOY, mixed=False)
    with torch.no_grad():
        kept = trainer._encode(tokens, torch.ones(2))
        dropped = trainer._encode(tokens, torch.tensor([0.0, 1.0]))
        expected = pipe.encode_prompt(prompts, device=CPU, do_classifier_free_guidance=True)
    for ours, theirs in zip(kept, (expected[0], expected[2]), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-5)
    assert not expected[1].any(), "an empty negative prompt is zeros"
    assert not expected[3].any()
    assert not dropped[0][0].any()
    assert torch.equal(dropped[1][1], kept[1][1])


def test_the_micro_conditioning_is_the_pipeline_s():
    pipe = make_pipeline(TOY)
    seen = {}

    def note(_module, _arguments, options):
        seen["time_ids"] = options["added_cond_kwargs"]["time_ids"]

    pipe.unet.register_forward_pre_hook(note, with_kwargs=True)
    image = pipe("a red circle", num_inference_steps=2).images[0]
    assert image.size == (64, 64)
    assert seen["time_ids"].tolist() == [list(map(float, training.MICRO_CONDITIONING))] * 2


def test_a_batch_follows_from_seed_and_step_and_an_epoch_shows_every_picture():
    latents = np.arange(12, dtype=np.float16).reshape(12, 1, 1, 1)
    tokens = np.zeros((12, 2, 77), np.int16)
    trainer = Trainer(make_pipeline(TOY), latents, tokens, TOY)
    shown = []
    for step in range(4):
        trainer.step = step
        first, again = trainer._batch(), trainer._batch()
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
        shown += first[0].flatten().tolist()
    assert sorted(shown) == list(range(12))


def test_the_learning_rate_rises_stays_and_falls():
    config = dataclasses.replace(TOY, steps=100, warmup=10, decay_from=0.5, learning_rate=1.0)
    rates = [learning_rate(step, config) for step in range(101)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[10:50] == [1.0] * 40
    assert all(a >= b for a, b in pairwise(rates[50:]))
    assert rates[100] == pytest.approx(0.02)


@pytest.mark.parametrize(("cap", "fade", "most"), [(6.0, 0.03, 10.0), (2.0, 0.1, 4.0)])
def test_the_loss_weight_at_every_noise_is_what_the_settings_say(cap, fade, most):
    config = dataclasses.replace(TOY, snr_cap=cap, snr_fade=fade, fade_most=most)
    weight = _toy_trainer(config).loss_weight.tolist()
    betas = np.linspace(config.beta_start**0.5, config.beta_end**0.5, 1000) ** 2
    signal = np.cumprod(1 - betas)
    snr = signal / (1 - signal)
    assert weight[0] == pytest.approx(most * cap / (snr[0] + 1), rel=1e-3)  # fine noise
    assert weight[50] == pytest.approx(most * cap / (snr[50] + 1), rel=1e-3)
    assert weight[400] == pytest.approx(most)  # outlines
    assert weight[700] == pytest.approx(1 + snr[700] / fade, rel=1e-3)
    assert weight[999] == pytest.approx(1, abs=0.02)  # noise alone
    assert max(weight) == pytest.approx(most)


def test_each_picture_s_loss_has_the_weight_of_its_own_noise():
    """The three of a batch lie in the three thirds of the noises. Of pictures that are zero a model that predicts
    nothing leaves an error of the signal's part of the noise, about the square of `signal`."""
    for third in range(3):
        trainer = _toy_trainer(TOY)
        for weight in trainer.pipe.unet.conv_out.parameters():
            torch.nn.init.zeros_(weight)
        trainer.loss_weight = (torch.arange(1000) * 3 // 1000 == third).float()
        part = trainer.signal.square()[trainer.loss_weight > 0]
        assert 0.9 * part.min() < 3 * trainer.advance() < 1.1 * part.max()


def _toy_trainer(config):
    return Trainer(make_pipeline(config), np.zeros((3, 6, 16, 16), np.float16), np.zeros((3, 1, 77), np.int16), config)


def test_latents_are_normalised_per_channel():
    latents = np.random.default_rng(0).normal(3, 5, (20, 4, 16, 16)).astype(np.float16)
    normal, mean, deviation = normalise(latents)
    assert np.abs(normal.astype(float).mean((0, 2, 3))).max() < 0.01
    assert np.abs(normal.astype(float).std((0, 2, 3)) - 1).max() < 0.01
    assert mean == pytest.approx([3] * 4, abs=0.2)
    assert deviation == pytest.approx([5] * 4, abs=0.2)


def test_the_normalisation_moves_into_the_autoencoder():
    vae = make_pipeline(TOY).vae
    pixels = to_model(np.stack([draw_example(TOY, index)[1] for index in range(3)]), CPU)
    with torch.no_grad():
        before = vae.encode(pixels).latent_dist
        decoded = vae.decode(before.mean).sample
        normal, mean, deviation = normalise(before.mean.numpy())
        fold_normalisation(vae, mean, deviation)
        after = vae.encode(pixels).latent_dist
        assert np.abs(after.mean.numpy() - normal).max() < 5e-3
        assert torch.allclose(after.std * torch.from_numpy(deviation)[:, None, None], before.std, rtol=1e-4)
        assert torch.allclose(vae.decode(after.mean).sample, decoded, atol=1e-4)


def test_the_autoencoder_learns():
    pixels = np.stack([draw_example(TOY, index)[1] for index in range(8)])
    config = dataclasses.replace(TOY, vae_steps=12, vae_batch=4)
    vae = make_pipeline(config).vae
    before = reconstruction_error(vae, pixels)
    losses = train_autoencoder(vae, pixels, config)
    assert len(losses) == 12
    assert reconstruction_error(vae, pixels) < before


def test_refining_the_decoder_leaves_the_encoder_and_helps():
    pixels = np.stack([draw_example(TOY, index)[1] for index in range(8)])
    config = dataclasses.replace(TOY, decoder_steps=12, vae_batch=4)
    vae = make_pipeline(config).vae
    before = reconstruction_error(vae, pixels)
    encoder = [weight.clone() for weight in vae.encoder.parameters()]
    with torch.no_grad():
        latents = vae.encode(to_model(pixels, CPU)).latent_dist.mean.half().numpy()
    refine_decoder(vae, pixels, latents, config)
    assert all(torch.equal(a, b) for a, b in zip(encoder, vae.encoder.parameters(), strict=True))
    assert reconstruction_error(vae, pixels) < before


# -- data and model


def test_the_training_set_is_made_once_and_holds_no_combination_of_the_other_splits(tmp_path, monkeypatch):
    tokenizer = make_tokenizer(TOY.merges, "<|endoftext|>")
    pixels, tokens = training_set(TOY, tmp_path, tokenizer)
    assert pixels.shape == (12, 64, 64, 3)
    assert tokens.shape == (12, 2, 77)
    monkeypatch.setattr("attnmod.benchmarks.miniature.data.draw_example", None)
    again, _ = training_set(TOY, tmp_path, tokenizer)
    assert np.array_equal(pixels, again)
    monkeypatch.undo()
    for index in range(100):
        scene, _, prompts = draw_example(TOY, index)
        assert {combination_split(t.colour, t.drawn_texture, t.shape) for t in scene.things} == {"train"}
        assert len(prompts) == TOY.captions


def test_arrays_that_were_cut_off_while_writing_are_made_again(tmp_path):
    made = []

    def make():
        made.append(1)
        return [np.arange(3)]

    (tmp_path / "a.npy.partial").write_bytes(b"half")
    assert cached([tmp_path / "a.npy"], make)[0].tolist() == [0, 1, 2]
    assert cached([tmp_path / "a.npy"], make)[0].tolist() == [0, 1, 2]
    assert made == [1]


def test_the_cut_tokenizer_is_clip_s_own_on_common_words():
    whole, cut = make_tokenizer(48894, "!"), make_tokenizer(MiniatureConfig.merges, "!")
    assert len(whole) == 49408
    text = "a red ring above two blue stars and a pink cross in the snow at night"
    assert cut(text).input_ids[1:-1] == whole(text).input_ids[1:-1]
    assert cut.decode(cut("three striped triangles at dusk").input_ids[1:-1]) == "three striped triangles at dusk"
    assert cut(text).input_ids[-1] == cut.eos_token_id == len(cut) - 1
    with pytest.raises(ValueError, match="merges is -1"):
        make_tokenizer(-1, "!")


def test_the_pipeline_is_of_sdxl_s_architecture():
    pipe = make_pipeline(TOY)
    assert pipe.config.force_zeros_for_empty_prompt
    assert pipe.unet.config.addition_embed_type == "text_time"
    sizes = {name.split(".attentions")[0] for name in pipe.unet.attn_processors}
    assert sizes == {"down_blocks.0", "down_blocks.1", "mid_block", "up_blocks.0", "up_blocks.1"}
    assert pipe.scheduler.config.prediction_type == "v_prediction"
    assert pipe.default_sample_size * pipe.vae_scale_factor == 64


@pytest.mark.parametrize(
    ("values", "message"),
    [({"channels": (32,)}, "as many"), ({"text_width": 40}, "must divide")],
)
def test_settings_that_do_not_fit(values, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(TOY, **values)


def test_settings_are_json_and_have_a_fingerprint():
    assert MiniatureConfig.from_dict(TOY.to_dict()) == TOY
    assert TOY.fingerprint() != dataclasses.replace(TOY, seed=1).fingerprint()
    assert TOY.fingerprint("batch") == dataclasses.replace(TOY, seed=1).fingerprint("batch")
    with pytest.raises(ValueError, match="unknown settings"):
        MiniatureConfig.from_dict({"colour": 1})


# -- export and pictures


def test_the_export_loads_draws_and_is_what_was_averaged(run, tmp_path):
    out = tmp_path / "miniature"
    out.mkdir()
    (out / "README.md").write_text("card")
    size = export(run, out)
    assert size == sum(path.stat().st_size for path in out.rglob("*") if path.is_file()) - len("card")
    assert (out / "README.md").read_text() == "card"
    pipe = StableDiffusionXLPipeline.from_pretrained(out, local_files_only=True)
    averaged = load_checkpoint(run / CHECKPOINT)[0].averaged
    assert torch.equal(pipe.unet.conv_in.weight, averaged["unet.conv_in.weight"].half().float())
    pipe.set_progress_bar_config(disable=True)
    drawn = draw_samples(pipe, ["a red circle", "a blue star"], steps=2)
    assert drawn.shape == (2, 64, 64, 3)
    alone = draw_samples(pipe, ["a blue star"], steps=2, seed=1)
    assert np.abs(alone[0].astype(int) - drawn[1].astype(int)).max() <= 1, "a picture depends on its own seed alone"


def test_an_export_that_is_too_large_leaves_the_old_one(run, tmp_path, monkeypatch):
    monkeypatch.setattr("attnmod.benchmarks.miniature.export.SIZE_LIMIT", 1000)
    with pytest.raises(ValueError, match="at most"):
        export(run, tmp_path / "miniature")
    assert list(tmp_path.iterdir()) == []


def test_pictures_of_a_training():
    sheet = contact_sheet(np.zeros((9, 64, 64, 3), np.uint8), scale=1)
    assert sheet.size == (8 * 66, 2 * 66)
    curve = np.asarray(loss_curve([1.0, 0.5, 0.2, 0.1]))
    assert len(np.unique(curve.reshape(-1, 3), axis=0)) > 2
    assert loss_curve([]).size == (640, 320)
