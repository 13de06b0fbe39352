"""Options of models and files of weights that anyone may have written end in a line."""

import inspect
import json
import random

import h5py
import numpy as np
import pytest
from json_mutations import HOSTILE

from yt8m_gat.config import ConfigError, DataConfig, ModelConfig, RunConfig
from yt8m_gat.models import build_from_config
from yt8m_gat.models.registry import BUILDERS
from yt8m_gat.recipes import RECIPES
from yt8m_gat.weights.hdf5 import load_weights, save_weights

SMALL = {
    "transformer": {"hidden_size": 4, "num_heads": 2},
    "dbof": {"dbof_cluster_size": 4, "dbof_hidden_size": 4},
    "lstm": {"lstm_cells": 3},
    "video_level": {},
}


def configuration(name, options):
    """Of a model of that recipe, small unless the options say otherwise."""
    recipe = RECIPES[name]
    data = DataConfig(
        feature_names=("a", "b"),
        feature_sizes=(4, 2),
        num_classes=3,
        max_frames=8,
        frame_features=recipe.frame_level,
    )
    model = ModelConfig(name=name, options={**SMALL[recipe.family], **options})
    return RunConfig(data=data, model=model)


@pytest.mark.parametrize("name", ["GAT", "DbofModel", "LstmModel", "MoeModel"])
def test_every_mutation_of_a_models_options_is_built_or_refused(name):
    rng = random.Random(0)
    parameters = inspect.signature(BUILDERS[RECIPES[name].family].__init__).parameters
    # Memory is not bounded by a configuration.
    values = [text for text in HOSTILE if text != str(2**63 - 1)]
    num_refused = 0
    for option in parameters:
        for text in rng.sample(values, 5):
            stored = json.loads(configuration(name, {}).to_json())
            stored["model"]["options"][option] = "@@"
            text = json.dumps(stored).replace('"@@"', text)
            try:
                build_from_config(RunConfig.from_json(text))
            except ConfigError as error:
                assert "\n" not in str(error)
                num_refused += 1
    assert num_refused > 3 * len(parameters)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("GAT", {"num_heads": "8"}, "--num_heads must be int. Received: '8'"),
        ("GAT", {"num_heads": 2.0}, "--num_heads must be int. Received: 2.0"),
        ("GAT", {"num_heads": True}, "--num_heads must be int. Received: True"),
        ("GAT", {"num_heads": None}, "--num_heads must be int. Received: None"),
        ("GAT", {"dropout": "0"}, "--dropout must be float. Received: '0'"),
        ("GAT", {"dropout": float("nan")}, "--dropout must be finite. Received: nan"),
        ("GAT", {"global_attention": 1}, "--global_attention must be bool. Received: 1"),
        ("GAT", {"local_masks": "bd20"}, "--local_masks must be list. Received: 'bd20'"),
        ("GAT", {"local_masks": ("bd20", 3)}, "--local_masks must be str. Received: 3"),
        ("GAT", {"local_masks": ("bd" + "9" * 5000,)}, "An attention level must be"),
        ("GAT", {"fusion": ["maps"]}, "model option fusion must be str. Received: ('maps',)"),
        ("GAT", {"feed_forward_size": {}}, "--feed_forward_size must be int. Received: {}"),
        ("GAT", {"max_frames": 3}, "max_frames is no option of --model=GAT"),
        ("GAT", {"dtype": "int8"}, "dtype is no option of --model=GAT"),
        ("GAT", {"name": "x"}, "name is no option of --model=GAT"),
        ("MoeModel", {"moe_num_mixtures": [2]}, "--moe_num_mixtures must be int. Received: (2,)"),
    ],
)
def test_an_option_of_another_type_than_its_builder_says_is_named(name, options, message):
    with pytest.raises(ConfigError) as error:
        build_from_config(configuration(name, options))
    assert message in str(error.value)


def test_a_whole_number_is_a_float_and_none_is_no_size():
    model = build_from_config(configuration("GAT", {"dropout": 0, "feed_forward_size": None}))
    assert model.get_config()["dropout"] == 0.0
    assert model.get_config()["feed_forward_size"] is None


@pytest.mark.parametrize(
    "digest", [np.array([1, 2]), np.array(["x", "y"], "S1"), 3, np.inf, "x", h5py.Empty("f")]
)
def test_a_checksum_of_any_kind_is_compared(tmp_path, digest):
    model = build_from_config(configuration("LstmModel", {}))
    path = tmp_path / "best.weights.h5"
    save_weights(model, path)
    load_weights(model, path)
    with h5py.File(path, "r+") as file:
        (name,) = file.attrs
        file.attrs[name] = digest
    with pytest.raises(ConfigError, match=r"best\.weights\.h5 is damaged"):
        load_weights(model, path)
