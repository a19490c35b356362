"""A judge that is a rule loads no framework."""

import os
import subprocess
import sys


def test_importing_stays_light():
    code = (
        "import sys, safeerase_lite.evaluation.judges as j; j.get_judge('oracle');"
        "print([m for m in ('openai', 'torch', 'transformers') if m in sys.modules])"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", code]
    output = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert output.stdout.strip() == "[]"
