"""A network that was exported to ONNX, computed by onnxruntime."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pixelq.errors import PixelqError
from pixelq.extras import need

__all__ = ["CARD_METADATA", "OnnxNetwork"]

CARD_METADATA = "pixelq"  # the key of the card in the metadata of a safetensors or ONNX file


class OnnxNetwork(nn.Module):
    """Action values from onnxruntime, on the CPU. It has no weights, so it can only play.

    Args:
        data: an ONNX file that pixelq wrote: `obs` [B, …] uint8 to `q` [B, A] float32.

    Raises:
        PixelqError: onnxruntime is missing, or the bytes are no such file.
    """

    def __init__(self, data: bytes) -> None:
        super().__init__()
        need("onnx", "onnxruntime")
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 4
        options.use_deterministic_compute = True
        try:
            self._session: Any = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its errors have no common class
            raise PixelqError("it is no ONNX file, or one that onnxruntime cannot run") from error
        ports = [(port.name, port.type, len(port.shape)) for port in self._ports()]
        if ports != [("obs", "tensor(uint8)", 4), ("q", "tensor(float)", 2)]:
            raise PixelqError("it does not take obs [B, C, H, W] uint8 and give q [B, A] float32")
        obs, values = (port.shape for port in self._ports())
        if not all(isinstance(size, int) for size in (*obs[1:], values[1])):
            raise PixelqError("all its sizes but the batch size must be fixed")
        self.obs_shape: tuple[int, ...] = tuple(obs[1:])
        self.num_actions: int = values[1]

    def _ports(self) -> list[Any]:
        return [*self._session.get_inputs(), *self._session.get_outputs()]

    @property
    def card(self) -> str | None:
        """The agent card in the file's metadata, JSON; None: there is none."""
        text: str | None = self._session.get_modelmeta().custom_metadata_map.get(CARD_METADATA)
        return text

    def q_values(self, obs: Tensor) -> Tensor:
        """Expected return of each action, [B, C, H, W] uint8 to [B, A] float32."""
        (values,) = self._session.run(["q"], {"obs": np.ascontiguousarray(obs.cpu().numpy())})
        return torch.from_numpy(values)
