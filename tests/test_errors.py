import inspect

import pytest

from vlfer import errors
from vlfer.errors import VlferError, did_you_mean

CLASSES = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, VlferError)]


@pytest.mark.parametrize("kind", CLASSES)
def test_every_error_says_what_why_and_what_to_try(kind):
    error = kind("The file 'a' is empty.", why="It holds 0 bytes.", fix="copy it again.")
    assert str(error) == "The file 'a' is empty. It holds 0 bytes. Try: copy it again."
    assert str(kind("Only this.")) == "Only this."


@pytest.mark.parametrize("kind", [kind for kind in CLASSES if kind is not VlferError])
def test_every_error_is_also_a_standard_error(kind):
    standard = (OSError, ValueError, RuntimeError, LookupError)
    assert issubclass(kind, standard)
    with pytest.raises(standard, match="what"):
        raise kind("what")


def test_a_close_name_is_suggested_and_a_far_one_is_not():
    assert did_you_mean("ekman", ["ekman7", "mafw11"]) == "Did you mean 'ekman7'?"
    assert did_you_mean("zzz", ["ekman7", "mafw11"]) == ""
