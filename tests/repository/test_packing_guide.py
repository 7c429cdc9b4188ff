"""The code of docs/packing.md runs, and packed documents have the logits of each document alone."""

import re
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from attn_jax import masks
from attn_jax.models import GPT, DecoderConfig
from attn_jax.modules.rotary import Rotary
from tests.helpers.tolerance import assert_close

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [[3, 1, 4, 1], [5, 9], [2, 6, 5]]


def test_the_guide_runs_in_a_fresh_process():
    page = (ROOT / "docs" / "packing.md").read_text()
    program = "\n".join(re.findall(r"```python\n(.*?)```", page, re.DOTALL))
    assert program.count("assert ") >= 5
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT, timeout=300)


@pytest.mark.parametrize("rotary", [None, Rotary()], ids=["learned", "rotary"])
def test_a_packed_text_has_the_logits_of_each_document_alone(rotary):
    sizes = {"vocab_size": 10, "model_dim": 8, "num_layers": 2, "num_heads": 2, "max_length": 4}
    model = GPT(DecoderConfig(**sizes, rotary=rotary), rngs=nnx.Rngs(1))
    tokens = jnp.array([[token for document in DOCUMENTS for token in document]])
    ids = np.repeat(np.arange(3), list(map(len, DOCUMENTS)))
    place = jnp.array([[n for document in DOCUMENTS for n in range(len(document))]])
    for segments in (ids, ids[None, None]):
        packed = model(tokens, mask=masks.segments(segments), position=place)[0]
        for number, document in enumerate(DOCUMENTS):
            assert_close(packed[ids == number], model(jnp.array([document]))[0])
