from __future__ import annotations

import platform

import numpy as np
import pytest
import torch

from isgseg.hardware import keep_freed_memory, pick_precision


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


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of another C library")
def test_memory_that_is_freed_is_taken_again() -> None:
    import resource  # of Linux and macOS

    keep_freed_memory()

    def new_pages() -> int:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(10):
            large = [np.ones(2**20, np.float64) for _ in range(4)]  # 32 MB, more than is kept else
            del large
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    new_pages()
    assert new_pages() < 10 * 2**13 / 4  # a page is 4 KB: 2**13 of them each time
