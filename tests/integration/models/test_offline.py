"""Nothing of a model on this machine goes to the network."""

import subprocess
import sys

OFFLINE = """
import socket, sys
attempts = []
def connect(self, address):
    attempts.append(address)
    raise OSError("no network in this test")
socket.socket.connect = socket.socket.connect_ex = connect
socket.getaddrinfo = lambda host, *rest, **more: connect(None, host)
import torch
import safeerase_lite as sl
model = sl.load_model(sl.config("tiny", model=sys.argv[1], precision="nf4"))
ids = torch.tensor([[1, 6, 7]])
model.train()(input_ids=ids, labels=ids).loss.backward()
model.eval().generate(input_ids=ids, max_new_tokens=2)
print("attempts", attempts)
"""


def test_nothing_of_a_local_model_goes_to_the_network(tiny_model_dir, monkeypatch):
    monkeypatch.delenv("HF_HUB_OFFLINE")
    command = [sys.executable, "-c", OFFLINE, str(tiny_model_dir)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "attempts []"
