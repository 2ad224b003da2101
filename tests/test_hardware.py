from __future__ import annotations

import pytest
import torch

from isgseg.hardware import pick_precision


@pytest.mark.parametrize(
    ("device", "bf16", "expected"),
    [
        ("cuda", True, "bf16-mixed"),
        ("cuda", False, "16-mixed"),
        ("cpu", True, "bf16-mixed"),
        ("cpu", False, "32-true"),
        ("mps", True, "32-true"),
    ],
)
def test_auto_is_what_the_hardware_computes_in(
    device: str, bf16: bool, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: bf16)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: bf16)
    assert pick_precision("auto", torch.device(device)) == expected
    assert pick_precision("16-mixed", torch.device(device)) == "16-mixed"
