"""A hub that answers, one that does not, and what is on this machine."""

from unittest.mock import Mock

import pytest
from huggingface_hub.errors import HfHubHTTPError

from safeerase_lite.models import pretrained


@pytest.fixture
def hub_answers(monkeypatch):
    def set_to(outcome):
        api = Mock(**{"return_value.model_info.side_effect": outcome})
        monkeypatch.setattr(pretrained, "HfApi", api)
        return api

    return set_to


def test_a_folder_asks_no_hub(hub_answers, tmp_path):
    api = hub_answers(AssertionError)
    assert pretrained.is_local(str(tmp_path)) and not api.called


@pytest.mark.parametrize("answer", [[None], HfHubHTTPError("no such model", response=Mock())])
def test_what_the_hub_knows_or_refuses_is_loaded_from_the_hub(hub_answers, answer):
    hub_answers(answer)
    assert not pretrained.is_local("somebody/some-model")


def test_what_is_neither_a_folder_nor_a_name_is_said_to_be_neither():
    with pytest.raises(FileNotFoundError, match="no folder some/own/llava, and it is no name on"):
        pretrained.is_local("some/own/llava")


def test_without_a_network_an_earlier_download_is_read(hub_answers, monkeypatch, tmp_path):
    hub_answers(ConnectionError("no network"))
    copy = tmp_path / "models--somebody--some-model"
    (copy / "refs").mkdir(parents=True)
    (copy / "refs" / "main").write_text("abc")
    (copy / "snapshots" / "abc").mkdir(parents=True)
    (copy / "snapshots" / "abc" / "config.json").write_text("{}")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert pretrained.is_local("somebody/some-model")


def test_without_a_network_and_a_copy_it_is_one_error_at_once(hub_answers):
    api = hub_answers(ConnectionError("no network"))
    with pytest.raises(FileNotFoundError, match="no-one/no-such-model.*does not answer"):
        pretrained.is_local("no-one/no-such-model")
    api.return_value.model_info.assert_called_once()
