"""How the gradients of flow examples and of those that regress a prediction compare: their norms and their cosines."""

import torch
from torch import Tensor, nn

from anystep.objectives import Losses, Objective

#: by field of a log record and kind of example
Comparison = dict[str, dict[str, float]]


class KindGradients:
    """The gradient of each kind of example's part of an update's loss, summed over micro-batches.

    A part is the sum of the weighted losses of a kind, divided by the global batch, as it enters the update's mean. The
    parts are differentiated apart from the update, which stays the same bit for bit. Each kind takes a backward pass of
    every micro-batch and a gradient's memory.
    """

    def __init__(self, network: nn.Module, objective: Objective) -> None:
        self.parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
        self.kinds = {tag: n for n, tag in enumerate(objective.tags) if tag == "flow" or tag in objective.marked}
        self.sums: dict[str, Tensor] = {}

    def add(self, losses: Losses, batch: int) -> None:
        """Add the gradients of a micro-batch of an update of ``batch`` examples; its graph can be used again."""
        for kind, number in self.kinds.items():
            rows = losses.rows[losses.tag == number]
            if len(rows):
                loss = rows.sum() / batch
                gradient = torch.autograd.grad(
                    loss, self.parameters, retain_graph=True, allow_unused=True, materialize_grads=True
                )
                flat = torch.cat([part.flatten() for part in gradient])
                self.sums[kind] = self.sums[kind] + flat if kind in self.sums else flat

    def compare(self) -> Comparison:
        """Return the norm of each kind's gradient and its cosine with that of the flow examples.

        ``marked``: all kinds together that a weight acts on. A kind without examples, and a cosine with a gradient of
        0, is missing.
        """
        sums = dict(self.sums)
        if marked := [gradient for kind, gradient in sums.items() if kind != "flow"]:
            sums["marked"] = torch.stack(marked).sum(0)
        norms = {kind: float(gradient.norm()) for kind, gradient in sums.items()}
        flow, cosines = sums.pop("flow", None), dict[str, float]()
        for kind, gradient in sums.items():
            if flow is not None and norms["flow"] * norms[kind] > 0:
                cosines[kind] = float(torch.dot(flow, gradient)) / (norms["flow"] * norms[kind])
        return {"gradient_norm": norms, "gradient_cosine": cosines}
