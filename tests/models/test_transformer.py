"""The papers' classifier: sizes pinned by their disk sizes, masking, serialization."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from yt8m_gat.attacks import TemporalAugmentation
from yt8m_gat.config import ObjectiveConfig
from yt8m_gat.losses import CrossEntropyLoss
from yt8m_gat.models import FRAME_MASK, build_model
from yt8m_gat.training import AdversarialModel, build_objective

SIZES = {"rgb": 16, "audio": 8}


def small(name="GAT", **options):
    keras.utils.set_random_seed(0)
    return build_model(name, SIZES, 5, 12, **{"num_heads": 4, "hidden_size": 10, **options})


def clips(rng, lengths, num_frames):
    mask = np.arange(num_frames) < np.asarray(lengths)[:, None]
    features = {
        name: (rng.normal(size=(len(lengths), num_frames, size)) * mask[..., None]).astype(
            "float32"
        )
        for name, size in SIZES.items()
    }
    return {**features, FRAME_MASK: mask}


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Transformer", 12_824_342),
        ("ART", 12_824_342),
        ("AART", 12_824_342),
        ("GMSA", 16_020_374),
        ("GAT", 16_020_374),
    ],
)
def test_parameters_at_full_size(name, expected):
    """The disk sizes of local_temporal.txt, table 1: 48.9 MB and 61 MB of float32."""
    model = build_model(name, {"rgb": 1024, "audio": 128}, 3862, 300)
    assert model.count_params() == expected


def test_file_size_at_full_size(tmp_path):
    path = tmp_path / "gat.weights.h5"
    build_model("GAT", {"rgb": 1024, "audio": 128}, 3862, 300).save_weights(path)
    assert path.stat().st_size / 2**20 == pytest.approx(61.11, abs=0.2)


@pytest.mark.parametrize("name", ["Transformer", "GAT"])
def test_padding_changes_no_logit(name, rng):
    model = small(name)
    inputs = clips(rng, [7, 3], 7)
    longer = {
        key: np.pad(value, [(0, 0), (0, 9), (0, 0)][: value.ndim]) for key, value in inputs.items()
    }
    np.testing.assert_allclose(model(inputs), model(longer), atol=1e-5)


def test_a_clip_without_frames_gives_finite_logits(rng):
    logits = np.asarray(small()(clips(rng, [0, 4], 6)))
    assert np.isfinite(logits).all()


@pytest.mark.parametrize("known", [True, False], ids=["eager", "graph"])
@pytest.mark.parametrize(
    ("name", "max_frames", "options"),
    [
        ("GMSA", 12, {"local_masks": ["bd4", "tp3"]}),
        ("Transformer", 2000, {}),  # Blockwise.
    ],
)
def test_a_batch_without_frames_gives_the_logits_of_a_zero_vector(name, max_frames, options, known):
    keras.utils.set_random_seed(0)
    model = build_model(
        name, {"x": 4}, 3, max_frames, **{"num_heads": 2, "hidden_size": 5, **options}
    )
    for dense, values in ((model.hidden, (2, -1, 0, 1, 3)), (model.output_layer, (1, 0, -1))):
        dense.bias.assign(values)
    call, types = model, [tf.TensorSpec([None, None, 4]), tf.TensorSpec([None, None], tf.bool)]
    if not known:
        call = tf.function(
            model, input_signature=[dict(zip(("x", FRAME_MASK), types, strict=True))]
        )
    given = {"x": tf.zeros([2, 0, 4]), FRAME_MASK: tf.zeros([2, 0], tf.bool)}
    expected = np.array([2, 0, 0, 1, 3]) @ model.output_layer.kernel.numpy() + [1, 0, -1]
    np.testing.assert_allclose(call(given), [expected, expected], rtol=1e-5)


def test_forward_gives_maps_of_every_level_and_modality(rng):
    model = small(local_masks=("bd5",))
    inputs = clips(rng, [10, 4], 10)
    mask = inputs.pop(FRAME_MASK)
    outputs = model.forward(inputs, mask)
    assert list(outputs.attention_maps) == ["rgb", "audio"]
    assert list(outputs.attention_maps["rgb"]) == ["global", "bd5"]
    global_map = outputs.attention_maps["audio"]["global"]
    assert global_map.shape == (2, 4, 10, 10)
    np.testing.assert_allclose(
        np.sum(global_map, -1), np.broadcast_to(mask[:, None], (2, 4, 10)), atol=1e-5
    )
    assert outputs.frames.shape == (2, 10, 24)


@pytest.mark.parametrize(("name", "square"), [("GateAtt", True), ("GAT", False)])
def test_square_maps_are_those_whose_local_level_is_too(name, square, rng):
    model, inputs = small(name, local_masks=("bd4",)), clips(rng, [12], 12)
    mask = inputs.pop(FRAME_MASK)
    local_map = model.forward(inputs, mask).attention_maps["rgb"]["bd4"]
    assert model.has_square_maps is square
    assert (tuple(local_map.shape[-2:]) == (12, 12)) is square


def test_uniform_attention_has_uniform_maps(rng):
    inputs = clips(rng, [6, 2], 6)
    mask = inputs.pop(FRAME_MASK)
    maps = small("Transformer", attention="uniform").forward(inputs, mask).attention_maps
    expected = mask[:, None, :] * mask[:, :, None] / mask.sum(1)[:, None, None]
    # One map stands for all heads.
    np.testing.assert_allclose(np.mean(maps["rgb"]["global"], axis=1), expected, atol=1e-6)


def test_mixed_precision_keeps_float32_logits(rng):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = small()
        logits = model(clips(rng, [6, 2], 6))
    finally:
        keras.config.set_dtype_policy("float32")
    assert logits.dtype == tf.float32
    assert np.isfinite(logits).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_heads": 3}, "num_heads"),
        ({"fusion": "sum"}, "`fusion` must be one of"),
        ({"attention": "none"}, "`attention` must be one of"),
        ({"fusion": "maps", "attention": "uniform"}, "leaves nothing to gate"),
        ({"fusion": "maps", "local_masks": ("bd3", "tp2")}, "gates one local map"),
        ({"fusion": "heads", "local_masks": ("bd3",)}, "levels"),
        ({"hidden_size": 0}, "`hidden_size` must be positive"),
        ({"global_attention": False, "local_masks": ()}, "at least one of `local_masks`"),
    ],
)
def test_options_that_cannot_work(options, message):
    with pytest.raises(ValueError, match=message):
        small(**options)


@pytest.mark.parametrize(
    ("name", "local_masks"), [("GAT", ("bd3",)), ("GateAtt", ("bd3",)), ("ShareAtt", ("bd3",) * 3)]
)
def test_heads_that_do_not_divide_a_feature_are_refused_in_one_line(name, local_masks):
    with pytest.raises(ValueError, match="change --num_heads or --feature_sizes") as error:
        small(name, num_heads=6, local_masks=local_masks)
    assert "num_heads=6" in str(error.value) and "\n" not in str(error.value)


def test_a_feature_must_not_take_the_masks_name():
    with pytest.raises(ValueError, match="frame_mask"):
        build_model("GAT", {"frame_mask": 8}, 5)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("ShareAtt", 12_824_342), ("GateAtt", 13_184_342), ("GateOp", 16_020_374)],
)
def test_parameters_of_the_local_temporal_models(name, expected):
    """local_temporal.txt, table 1: 48.9, 50.2 and 61 MB; GateAtt adds four 300 x 300 gates."""
    model = build_model(name, {"rgb": 1024, "audio": 128}, 3862, 300)
    assert model.count_params() == expected


def test_map_gates_take_clips_of_any_length(rng):
    """The T x T gates see the same padded clip for any padding of the batch."""
    model = small("GateAtt", local_masks=("bd3",))
    inputs = clips(rng, [7, 3], 7)
    longer = {
        key: np.pad(value, [(0, 0), (0, 5), (0, 0)][: value.ndim]) for key, value in inputs.items()
    }
    np.testing.assert_allclose(model(inputs), model(longer), atol=1e-5)
    mask = inputs.pop(FRAME_MASK)
    outputs = model.forward(inputs, mask)
    assert outputs.frames.shape == (2, 7, 24)
    assert outputs.attention_maps["rgb"]["global"].shape == (2, 4, 7, 7)


def test_map_gates_cut_longer_clips(rng):
    model = small("GateAtt", local_masks=("bd3",))
    inputs = clips(rng, [15, 4], 15)
    cut = {key: value[:, :12] for key, value in inputs.items()}
    np.testing.assert_array_equal(model(inputs), model(cut))


def test_temporal_augmentation_moves_clips_through_map_gates(rng):
    """TAF differentiates the logits by the returned frames, for any padding."""
    model = small("GateAtt", local_masks=("bd3",))

    for num_frames in (7, model.max_frames):
        inputs = clips(rng, [num_frames, 3], num_frames)
        mask = inputs.pop(FRAME_MASK)
        result = TemporalAugmentation(epsilon=6.0).attack(
            model.forward, CrossEntropyLoss("mean"), inputs, mask, tf.one_hot([0, 1], 5)
        )
        for name, x in inputs.items():
            moved = np.any(result.features[name] != x, axis=2)
            np.testing.assert_array_equal(moved, mask)


@pytest.mark.slow
def test_a_training_step_with_temporal_augmentation_goes_through_map_gates(rng):
    model = AdversarialModel(
        small("GateAtt", local_masks=("bd3",)),
        build_objective(ObjectiveConfig(adversarial="temporal")),
    )
    model.compile(optimizer=keras.optimizers.SGD(0.1))
    inputs = {name: tf.TensorSpec([None, None, size], tf.uint8) for name, size in SIZES.items()}
    inputs["num_frames"] = tf.TensorSpec([None], tf.int32)
    step = tf.function(
        model.optimize, input_signature=[(inputs, tf.TensorSpec([None, 5]))], autograph=False
    )
    for num_frames in (7, 12):
        before = [variable.numpy() for variable in model.trainable_variables]
        batch = {
            name: tf.constant(rng.integers(0, 256, (2, num_frames, size)), tf.uint8)
            for name, size in SIZES.items()
        }
        batch["num_frames"] = tf.constant([num_frames, 3])
        assert np.isfinite(step((batch, tf.one_hot([0, 1], 5))).adversarial_loss)
        for variable, old in zip(model.trainable_variables, before, strict=True):
            assert np.any(variable != old), variable.path


def test_local_levels_alone(rng):
    model = small("GMSA", global_attention=False, local_masks=("bd3", "tp2"))
    inputs = clips(rng, [9, 4], 9)
    mask = inputs.pop(FRAME_MASK)
    assert list(model.forward(inputs, mask).attention_maps["rgb"]) == ["bd3", "tp2"]


@pytest.mark.parametrize("pre_norm", [False, True])
@pytest.mark.slow
def test_layers_add_blocks_of_the_same_size(pre_norm):
    """A block has 4 + 2 kernels D x D with biases and two normalizations: 6 D^2 + 10 D weights.

    Pre-norm ends each modality with one normalization more, of 2 D.
    """
    one, three = (
        small("Transformer", num_layers=n, pre_norm=pre_norm).count_params() for n in (1, 3)
    )
    assert three - one == 2 * sum(6 * d**2 + 10 * d for d in SIZES.values())
    if pre_norm:
        assert one - small("Transformer").count_params() == 2 * sum(SIZES.values())


@pytest.mark.slow
def test_a_deeper_stack_keeps_the_names_of_the_first_block_and_masks_padding(rng):
    model = small(num_layers=2, pre_norm=True, dual_normalization=True)
    paths = [w.path.partition("/")[2] for w in model.weights]
    first = [w.path.partition("/")[2] for w in small(dual_normalization=True).weights]
    assert set(first) < set(paths)
    inputs = clips(rng, [7, 3], 7)
    longer = {
        key: np.pad(value, [(0, 0), (0, 9), (0, 0)][: value.ndim]) for key, value in inputs.items()
    }
    np.testing.assert_allclose(model(inputs), model(longer), atol=1e-5)
    mask = inputs.pop(FRAME_MASK)
    outputs = model.forward(inputs, mask)
    assert not np.any(outputs.frames.numpy()[~mask])
    assert list(outputs.attention_maps["rgb"]) == list(model.attention_levels)
    with pytest.raises(ValueError, match=r"`num_layers` must be positive. Received: num_layers=0"):
        small(num_layers=0)
