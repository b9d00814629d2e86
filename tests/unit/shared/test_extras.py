import pytest

from shared.extras import missing_package


def test_a_package_is_named_and_not_the_module_in_it() -> None:
    error = ModuleNotFoundError("No module named 'google.protobuf'", name="google.protobuf")
    said = missing_package(error, "worker")
    assert said == "the Python package google is not installed; in a copy of the repository: pip install '.[worker]'"


@pytest.mark.parametrize("name", ["asr_worker.model.gone", "shared", None])
def test_a_module_of_ours_that_is_missing_is_a_mistake_that_keeps_its_traceback(name: str | None) -> None:
    error = ModuleNotFoundError("No module", name=name)
    with pytest.raises(ModuleNotFoundError) as raised:
        missing_package(error, "worker")
    assert raised.value is error
