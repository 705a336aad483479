"""Names of devices: what may be given, and which device it stands for."""

from __future__ import annotations

import pytest

from keisei_lightning.system.devices import cuda_index, device_errors, resolve_device_name


@pytest.mark.parametrize("name", ["auto", "cpu", "cuda", "cuda:0", "cuda:12"])
def test_a_name_of_the_right_form_is_accepted(name: str) -> None:
    assert device_errors("device", name) == []


@pytest.mark.parametrize("name", ["tpu", "", "cuda:", "cuda:x", "cpu:0", "cuda:-1", "auto ", None, 0])
def test_any_other_name_is_refused_with_what_is_legal(name: object) -> None:
    assert device_errors("device", name) == [f"device={name}: must be auto, cpu, cuda or cuda:N"]


@pytest.mark.parametrize(
    ("name", "count", "legal"),
    [
        ("cuda", 0, "cpu (there is no GPU here)"),
        ("cuda:2", 2, "cuda:0 to cuda:1"),
        ("cuda:1", 2, ""),
        ("cuda", 1, ""),
        ("auto", 0, ""),
        ("cpu", 0, ""),
    ],
)
def test_a_cuda_device_must_exist(name: str, count: int, legal: str) -> None:
    assert device_errors("device", name, num_cuda_devices=count) == (
        [f"device={name}: must be {legal}"] if legal else []
    )


def test_auto_assigns_the_cuda_devices_in_turn_and_else_the_cpu() -> None:
    names = [resolve_device_name("auto", num_cuda_devices=2, number=number) for number in range(3)]
    assert names == ["cuda:0", "cuda:1", "cuda:0"]
    assert resolve_device_name("auto", num_cuda_devices=0, number=5) == "cpu"


@pytest.mark.parametrize("name", ["cpu", "cuda", "cuda:3"])
def test_a_device_that_is_named_is_taken(name: str) -> None:
    assert resolve_device_name(name, num_cuda_devices=1, number=7) == name
    assert cuda_index(name) == {"cpu": None, "cuda": 0, "cuda:3": 3}[name]
