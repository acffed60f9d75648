"""The pass over a compiled graph that puts oneDNN's products in it. It loads Inductor, which takes seconds."""

import torch
from torch._inductor.custom_graph_pass import CustomGraphPass

from argmax_vae.models import matmul


class ProductsByOnednn(CustomGraphPass):
    """Replaces the large products of a compiled graph, forward or backward, by oneDNN's."""

    def __call__(self, graph: torch.fx.Graph) -> None:
        for node in graph.find_nodes(op="call_function", target=torch.ops.aten.bmm.default):
            if matmul.is_large(*(factor.meta["val"] for factor in node.args)):
                node.target = torch.ops.argmax_vae.onednn_product.default

    def uuid(self) -> str:
        """What compiled code that was kept depends on."""
        return (
            f"argmax_vae.products of {matmul.SMALLEST_ONEDNN_PRODUCT} multiplications, rounding {matmul.is_rounding()}"
        )
