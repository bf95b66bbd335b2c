"""Heads: from features to a value an action."""

from torch import Tensor, nn

__all__ = ["LinearHead"]


class LinearHead(nn.Module):
    """A dense layer with a ReLU, then one linear unit an action; the last layer always computes in float32.

    Near Q = 8 the spacing of bfloat16 is the size of an action gap, hence the float32 output.

    Args:
        features: width of the input.
        hidden: units of the dense layer.
        num_actions: outputs.

    Source: Mnih et al. 2015, Methods, Model architecture.
    """

    def __init__(self, features: int, hidden: int, num_actions: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(features, hidden)
        self.output = nn.Linear(hidden, num_actions)

    def forward(self, features: Tensor) -> Tensor:
        """[B, features] to [B, A] float32."""
        values: Tensor = self.output(self.hidden(features).relu().to(self.output.weight.dtype))
        return values
