"""A fused kernel for TPUs, in Pallas (Mosaic): any score mod and mask, forward and backward.

Dao et al., "FlashAttention" (2022), https://arxiv.org/abs/2205.14135, with the score mods and masks
of Dong et al., "Flex Attention" (2024), https://arxiv.org/abs/2412.05496. Masks and score mods are
cut into what XLA computes before the kernel, and the elementwise rest, which runs inside of it
(docs/adr/0022).
"""

import dataclasses
from typing import Any, Literal

from attn_jax._base.axes import Layout
from attn_jax._base.grid import TileShape
from attn_jax._base.tables import Table
from attn_jax._engine.call import Call, Operands, Pairs, Work
from attn_jax._engine.online_softmax import Residuals


@dataclasses.dataclass(frozen=True)
class MosaicTpu:
    """The kernel. `interpret` runs it on any platform, as the argument of `pallas_call` does.

    Pallas is imported where the kernel is used: that takes longer than the rest of the library.
    """

    interpret: Any = False
    divided_by: Literal["engine"] = "engine"

    def refuses(self, call: Call, platform: str | None) -> str | None:
        """Why the kernel cannot compute a call exactly; None where it can."""
        if platform not in (None, "tpu") and not self.interpret:
            return f"the platform is {platform}, and it needs a TPU"
        from attn_jax._engine.kernels.mosaic_tpu import refusals

        return "; ".join(refusals.of(call)) or None

    def forward(self, call: Call, layout: Layout, tile: TileShape) -> tuple[Table, Table]:
        """Output and log-sum-exp, both in the accumulation dtype."""
        from attn_jax._engine.kernels.mosaic_tpu import passes

        del tile
        return passes.forward(call, layout, self.interpret)

    def backward(
        self, pairs: Pairs, residuals: Residuals, layout: Layout, wanted: tuple[bool, ...]
    ) -> Operands:
        """The gradients that are wanted, and None for the others."""
        from attn_jax._engine.kernels.mosaic_tpu import passes

        return passes.backward(pairs, residuals, layout, wanted, self.interpret)

    def work(self, call: Call, heads: int, platform: str) -> Work:
        """The tiles that are not empty; one at the edge counts as a whole tile."""
        from attn_jax._engine.kernels.mosaic_tpu import passes

        del heads, platform
        return passes.work(call)
