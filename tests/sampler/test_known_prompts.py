"""What a handle tells of the prompts it knows."""

import pytest
import torch

from attnmod import modulate


def test_a_text_that_tools_cut_differently_is_told_of_where_it_was_given(handwired):
    """Whatever lies between: the warning is of the caller's line, not of ours."""
    text = "a red cube and a blue sphere, " * 20
    with modulate(handwired) as handle:
        with pytest.warns(UserWarning, match="more than 77 tokens") as warned:
            handle.set_prompt(text, torch.zeros(1, 154, 8))
        assert [warning.filename for warning in warned] == [__file__]
        assert [len(prompt.tokens) for prompt in handle.prompts] == [154]
