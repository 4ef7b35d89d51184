"""What works with what: one table, from which benchmarks/results/compatibility.md is made.

Every line names the tests that show it; test_compatibility.py sees to it that they exist and that the committed
table is this one. The pairs of pipelines and tools are test_matrix.py's own parameters.

    python -m tests.sampler.compatibility       writes the table
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.sampler import (
    test_company,
    test_compile,
    test_failures,
    test_fuzz,
    test_handwired,
    test_ip_adapter,
    test_matrix,
    test_modular,
    test_offload,
    test_patch,
    test_phases,
    test_pickup,
    test_pipelines,
    test_projections,
    test_refused,
    test_regions,
    test_rows,
)

FILE = Path(__file__).parents[2] / "benchmarks" / "results" / "compatibility.md"
WORKS, REFUSED, TOLD, UNKNOWN = "works", "refused with a message", "told of by a warning", "unknown"


@dataclass(frozen=True)
class Line:
    """One case. proofs are the tests that show it; what is unknown has none, and a note that says why."""

    case: str
    status: str
    proofs: tuple[Callable, ...] = ()
    note: str = ""


def works(case: str, *proofs: Callable, note: str = "") -> Line:
    return Line(case, WORKS, proofs, note)


def refused(case: str, *proofs: Callable, note: str = "") -> Line:
    return Line(case, REFUSED, proofs, note)


def told(case: str, *proofs: Callable, note: str = "") -> Line:
    return Line(case, TOLD, proofs, note)


def unknown(case: str, note: str) -> Line:
    return Line(case, UNKNOWN, note=note)


TABLE: dict[str, list[Line]] = {
    "Rows": [
        works("guidance, no negative prompt (a row of zeros)", test_rows.test_negative_prompts),
        works(
            "negative prompts: one, an empty one, one for each prompt, the prompt itself",
            test_rows.test_negative_prompts,
            test_rows.test_a_negative_prompt_for_each_of_several_prompts,
        ),
        works("guidance off, on again, from call to call", test_rows.test_guidance_switched_on_and_off_between_calls),
        works(
            "guidance cut off in mid-run, by a callback or SDXLCFGCutoffCallback",
            test_pickup.test_guidance_cut_off_in_mid_run,
            test_rows.test_guidance_cut_off_by_diffusers_own_callback,
        ),
        works("perturbed attention guidance (PAG), three rows a prompt", test_rows.test_perturbed_attention),
        told(
            "PAG's own layers: its processors run there, unmodulated",
            test_pipelines.test_perturbed_attention_guidance,
        ),
        works("one UNet call for each condition", test_pickup.test_one_unet_call_per_condition),
        works(
            "different prompts with different numbers of entities, two images of each",
            test_handwired.test_a_batch_of_different_prompts_with_two_images_each,
        ),
        works("rows do not depend on their neighbours", test_patch.test_a_row_does_not_depend_on_its_neighbours),
        told(
            "embeddings from elsewhere run plain",
            test_pickup.test_embeddings_from_elsewhere_run_plain_and_are_told_of_once,
        ),
        works(
            "another pipeline on the same UNet runs plain",
            test_pickup.test_another_pipeline_on_the_same_unet_runs_plain_even_with_the_same_prompt,
        ),
        told(
            "a UNet call with an attention mask runs plain", test_patch.test_an_attention_mask_is_not_ignored_silently
        ),
    ],
    "Phases": [
        works("4 steps without guidance", test_phases.test_four_steps_without_guidance),
        works("img2img and inpainting at strengths 0.3, 0.6 and 1", test_phases.test_strength),
        works("Heun (two calls a step), LCM, Karras' and fractional timesteps", test_phases.test_schedulers),
        works("a base and a refiner that split a run", test_phases.test_a_base_and_a_refiner_that_split_a_run),
        told(
            "schedulers that give the UNet ln(sigma) / 4 (EDM): curves stay near their end",
            test_phases.test_timesteps_that_are_no_places_in_the_training_schedule_are_told_of,
        ),
    ],
    "Prompts": [
        works("from the call, any Unicode text", test_handwired.test_prompts, test_handwired.test_odd_prompts_run),
        works(
            "prompt_embeds, named by handle.set_prompt",
            test_pickup.test_embeddings_from_elsewhere_run_plain_and_are_told_of_once,
        ),
        works(
            "prompt_2 that differs: entities that both texts have at the same positions",
            test_pickup.test_a_prompt_2_that_differs,
        ),
        works(
            "more than 77 tokens as Compel cuts them (split= says where)",
            test_rows.test_a_long_prompt_as_compel_lays_it_out,
            test_rows.test_windows_are_cut_where_compel_cuts_them,
        ),
        works("more than 77 tokens as sd_embed cuts them", test_rows.test_a_long_prompt_as_sd_embed_lays_it_out),
        works("Compel's weights", test_company.test_compel),
        works("textual inversion of several vectors", test_company.test_textual_inversion_of_several_vectors),
        works("entities by hand, by phrase or by span", test_regions.test_entities_by_hand),
        works(
            "owner maps by hand: PIL or tensors, any size",
            test_regions.test_regions_replace_the_vote,
            test_regions.test_uncovered_patches_are_nobodys,
            test_regions.test_masks_of_any_size_and_pictures_of_any_size,
        ),
        refused(
            "a batch in which some prompts have owner maps and some none",
            test_regions.test_in_a_batch_all_prompts_have_masks_or_none,
        ),
    ],
    "Pipelines": [
        *(works(name, test_matrix.test_pair, note="with every tool below") for name in test_matrix.PIPELINES.values()),
        works("SDXL with PAG", test_rows.test_perturbed_attention),
        works(
            "modular SDXL (ClassifierFreeGuidance)",
            test_modular.test_the_picture_is_the_owner_map,
            test_modular.test_rows,
        ),
        unknown(
            "modular SDXL with guiders that hook into layers (PAG, SLG, SEG)",
            "not tried: with a small UNet, diffusers' own PAG guider did not change the picture",
        ),
        refused("a modular pipeline without its components", test_modular.test_components_have_to_be_loaded_first),
        refused("Kolors, Kandinsky 2, DeepFloyd IF, AnimateDiff", test_refused.test_unets_of_other_kinds),
        refused("pipelines without a UNet (SD 3, Flux)", test_refused.test_pipelines_without_a_unet),
        refused(
            "a second handle on a UNet, from another pipeline", test_patch.test_two_pipelines_do_not_fight_over_one_unet
        ),
    ],
    "Tools": [
        works(
            "LoRA switched and rescaled between calls and in mid-run",
            test_projections.test_lora_scale_of_this_call_and_adapters_switched_between_calls,
            test_projections.test_lora_scale_changed_in_mid_run,
        ),
        works(
            "IP-Adapter: several, masks, scales by layer; loaded before",
            test_ip_adapter.test_what_the_pictures_add_is_what_they_add_in_diffusers,
            test_ip_adapter.test_the_text_is_modulated_and_the_picture_counts,
        ),
        works(
            "IP-Adapter loaded or unloaded while attached",
            test_ip_adapter.test_loaded_and_unloaded_while_attached,
            note="said once",
        ),
        works(
            "FreeU, tomesd, DeepCache switched on while attached",
            test_company.test_freeu,
            test_company.test_tomesd,
            test_company.test_deepcache,
        ),
        works(
            "QKV fused while attached",
            test_failures.test_projections_fused_while_attached,
            note="said once",
        ),
        works(
            "model and sequential CPU offload, the CPU as accelerator",
            test_offload.test_offloading_before_and_after_attaching,
        ),
        unknown("offload to and from a real accelerator", "no GPU where the tests ran"),
        works("pipe.to(dtype) while attached", test_company.test_moved_to_another_dtype_while_attached),
        unknown('pipe.to("cuda") while attached', "no GPU where the tests ran"),
        works(
            "torch.compile: whole UNet or repeated blocks, before or after",
            test_compile.test_blocks,
            test_compile.test_the_whole_unet,
        ),
        refused(
            "a compiled function of your own around the UNet",
            test_compile.test_a_function_around_the_unet_is_refused_with_a_message,
        ),
        refused(
            "processors of other tools that are there already (attention slicing)",
            test_company.test_processors_of_another_tool_are_refused,
        ),
        told(
            "processors of other tools that come later",
            test_company.test_slicing_and_other_processors_put_in_later_are_told_of,
        ),
        unknown("xformers, bitsandbytes, group offload", "not tried"),
    ],
    "Leaving no trace": [
        works(
            "a modulate or update that fails at any of its lines: everything as before",
            test_failures.test_a_modulate_that_fails_at_any_line_leaves_nothing_behind,
            test_failures.test_a_replacement_or_an_update_that_fails_leaves_the_old_one_at_work,
        ),
        works(
            "an exception in a text encoder, the UNet, the VAE or a callback",
            test_failures.test_an_exception_inside_the_pipeline,
            test_patch.test_also_when_the_pipeline_raises,
        ),
        works("removed: stock images to the bit; twice: nothing happens", test_patch.test_everything_is_put_back),
        works(
            "processors put back by others after removal",
            test_failures.test_processors_put_back_after_removal_change_nothing,
            test_failures.test_projections_fused_while_attached_and_unfused_after_removal,
        ),
        works("no infinite or undefined number, whatever the settings", test_fuzz.test_attention_stays_finite),
    ],
}


def where(proof: Callable) -> str:
    """ "test_rows.py::test_x" of a test function."""
    return f"{Path(inspect.getfile(inspect.unwrap(proof))).name}::{proof.__name__}"


def markdown() -> str:
    """The tables, the pairs last."""
    parts = [
        "# What works with what",
        "Made by `python -m tests.sampler.compatibility` from the tests that it names (all in `tests/sampler`), which"
        " run on small models with random or hand-set weights, on a CPU. A test fails when this file is another.",
    ]
    for group, lines in TABLE.items():
        rows = [f"## {group}\n", "| case | | shown by |", "| --- | --- | --- |"]
        for line in lines:
            status = f"{line.status}; {line.note}" if line.note else line.status
            rows.append(f"| {line.case} | {status} | {', '.join(f'`{where(proof)}`' for proof in line.proofs)} |")
        parts.append("\n".join(rows))
    tools = list(test_matrix.TOOLS.values())
    rows = [
        "## Pairs\n",
        f"Each runs modulated after the tool is on, and is stock again to the bit when removed"
        f" (`{where(test_matrix.test_pair)}`).\n",
        f"| | {' | '.join(tools)} |",
        "| --- |" + " --- |" * len(tools),
    ]
    rows += [f"| {name} |" + f" {WORKS} |" * len(tools) for name in test_matrix.PIPELINES.values()]
    parts.append("\n".join(rows))
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    FILE.write_text(markdown(), encoding="utf-8")
