"""A trained policy for other programs: ONNX, torch.export or safetensors; and ONNX played here, without torch.

Writing (``writing``, ``formats``, ``module``, ``comparison``, ``origin``) needs torch; reading and playing (``card``,
``onnx_file``, ``onnx_policy``, ``onnx_player``) need NumPy and onnxruntime alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from keisei_lightning.system.lazy import lazy_names

if TYPE_CHECKING:
    from keisei_lightning.export.card import ExportCard
    from keisei_lightning.export.onnx_policy import OnnxPolicy, load_onnx
    from keisei_lightning.export.writing import export_policy

__all__ = ["ExportCard", "OnnxPolicy", "export_policy", "load_onnx"]

_MODULE_OF = {
    "ExportCard": "card",
    "OnnxPolicy": "onnx_policy",
    "export_policy": "writing",
    "load_onnx": "onnx_policy",
}

__getattr__ = lazy_names(__name__, _MODULE_OF, globals())
