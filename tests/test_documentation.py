"""What the documentation says of the tests is so."""

import re
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]
FAULTS = (PROJECT / "docs/faults.md").read_text()


@pytest.mark.parametrize("file", sorted(set(re.findall(r"test_\w+\.py", FAULTS))))
def test_the_tests_that_faults_md_names_exist(file):
    passages = re.findall(rf"{re.escape(file)}:\s+([^;|)]+)", FAULTS)
    named = {name for passage in passages for name in re.findall(r"`(test_\w+)`", passage)}
    assert named
    assert named <= set(re.findall(r"^def (test_\w+)", (PROJECT / "tests" / file).read_text(), re.MULTILINE))
