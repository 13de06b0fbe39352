import keras
import numpy as np
import pytest

from yt8m_gat.layers import GatedMultiLevelAttention, MaskedLocalAttention, TransformerBlock


def small_block(**kwargs):
    return TransformerBlock(GatedMultiLevelAttention(2, ("global", "tp2")), **kwargs)


def built(clips, randomize_vectors, **kwargs):
    block = small_block(**kwargs)
    block.build(clips[0].shape)
    randomize_vectors(block)
    return block


def layer_norm(x, layer):
    gamma, beta = layer.get_weights()
    mean = x.mean(axis=-1, keepdims=True)
    deviation = np.sqrt(x.var(axis=-1, keepdims=True) + 1e-5)
    return (x - mean) / deviation * gamma + beta


def slow_block(block, x, frame_mask, normalizations):
    first, second = normalizations
    (w1, b1), (w2, b2) = block.hidden_dense.get_weights(), block.output_dense.get_weights()
    x = layer_norm(x + block.attention(x, frame_mask=frame_mask).numpy(), first)
    x = layer_norm(x + np.maximum(x @ w1 + b1, 0) @ w2 + b2, second)
    return x * frame_mask[..., None]


@pytest.mark.parametrize("dual_normalization", [False, True])
def test_layer_contract(check_frame_layer, dual_normalization):
    check_frame_layer(small_block(dual_normalization=dual_normalization, feed_forward_size=12))


def test_layer_contract_around_local_attention(check_frame_layer):
    check_frame_layer(TransformerBlock(MaskedLocalAttention(2, "td4x2")))


def test_block_is_the_formula_with_either_normalization(clips, randomize_vectors):
    x, frame_mask = clips
    block = built(clips, randomize_vectors, dual_normalization=True)
    outputs = []
    for auxiliary, pair in ((False, block.normalizations), (True, block.auxiliary_normalizations)):
        output = block(x, frame_mask=frame_mask, auxiliary_normalization=auxiliary)
        expected = slow_block(block, x, frame_mask, pair)
        np.testing.assert_allclose(output, expected, rtol=0, atol=2e-5)
        outputs.append(output.numpy())
    assert np.abs(outputs[0] - outputs[1]).max() > 0.1


def test_feed_forward_size_defaults_to_the_feature_size():
    block = small_block()
    block.build((None, None, 8))
    assert block.hidden_dense.units == 8
    assert block.feed_forward_size is None


def test_number_of_parameters_of_the_papers_block():
    """The attention, a feed-forward network of width D and two normalizations: D = 1024."""
    counts = {}
    for dual in (False, True):
        block = TransformerBlock(
            GatedMultiLevelAttention(levels=("global",)), dual_normalization=dual
        )
        block.build((None, 300, 1024))
        counts[dual] = sum(int(np.prod(v.shape)) for v in block.trainable_variables)
    assert counts[False] == 6 * (1024**2 + 1024) + 4 * 1024
    assert counts[True] == counts[False] + 4 * 1024


def test_auxiliary_normalization_starts_equal_and_can_be_made_equal(clips, randomize_vectors):
    x, frame_mask = clips
    block = small_block(dual_normalization=True)
    main = block(x, frame_mask=frame_mask).numpy()
    auxiliary = block(x, frame_mask=frame_mask, auxiliary_normalization=True)
    np.testing.assert_array_equal(main, auxiliary)

    randomize_vectors(block)
    block.copy_normalization_to_auxiliary()
    main = block(x, frame_mask=frame_mask).numpy()
    auxiliary = block(x, frame_mask=frame_mask, auxiliary_normalization=True)
    np.testing.assert_array_equal(main, auxiliary)


def test_auxiliary_normalization_must_exist(clips):
    x, frame_mask = clips
    block = small_block()
    with pytest.raises(ValueError, match="dual_normalization=False; construct it with"):
        block(x, frame_mask=frame_mask, auxiliary_normalization=True)
    with pytest.raises(ValueError, match="dual_normalization=False, built=True"):
        block.copy_normalization_to_auxiliary()
    with pytest.raises(ValueError, match="dual_normalization=True, built=False"):
        small_block(dual_normalization=True).copy_normalization_to_auxiliary()


def test_maps_are_those_of_the_attention_layer(clips):
    x, frame_mask = clips
    block = small_block()
    output, maps = block(x, frame_mask=frame_mask, return_attention_maps=True)
    _, expected = block.attention(x, frame_mask=frame_mask, return_attention_maps=True)
    np.testing.assert_allclose(output, block(x, frame_mask=frame_mask), rtol=0, atol=1e-6)
    assert len(maps) == len(block.attention.map_names) == 2
    for one, other in zip(maps, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_maps_are_outputs_of_a_functional_model(clips):
    x, frame_mask = clips
    block = small_block()
    frames, mask = keras.Input((None, 8)), keras.Input((None,), dtype="bool")
    output, maps = block(frames, frame_mask=mask, return_attention_maps=True)
    model = keras.Model([frames, mask], [output, *maps])
    expected, expected_maps = block(x, frame_mask=frame_mask, return_attention_maps=True)
    for one, other in zip(model([x, frame_mask]), [expected, *expected_maps], strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=2e-6)


def test_seed_and_dropout(clips, randomize_vectors):
    x, frame_mask = clips
    outputs = []
    for seed in (1, 1, 2):
        attention = GatedMultiLevelAttention(2, ("global",), seed=0)
        block = TransformerBlock(attention, dropout=0.5, seed=seed)
        outputs.append(block(x, frame_mask=frame_mask, training=True).numpy())
    np.testing.assert_array_equal(outputs[0], outputs[1])
    assert np.abs(outputs[0] - outputs[2]).max() > 0.1
    still = block(x, frame_mask=frame_mask, training=False).numpy()
    np.testing.assert_array_equal(still, block(x, frame_mask=frame_mask))
    assert np.abs(still - outputs[2]).max() > 0.1


def test_one_seed_for_the_block_and_its_attention_gives_no_equal_matrices():
    block = TransformerBlock(GatedMultiLevelAttention(2, ("global",), seed=1), seed=1)
    block.build((None, None, 8))
    matrices = [
        *np.split(block.attention.projection_kernel.numpy(), 3, axis=1),
        block.attention.experts[0][0].numpy(),
        block.hidden_dense.kernel.numpy(),
        block.output_dense.kernel.numpy(),
    ]
    for index, matrix in enumerate(matrices):
        for other in matrices[:index]:
            assert np.abs(matrix - other).max() > 0.1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"feed_forward_size": 0}, "must be positive.*feed_forward_size=0"),
        ({"dropout": -0.1}, r"in \[0, 1\).*dropout=-0.1"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        small_block(**arguments)


class Doubling(keras.layers.Layer):
    """Stands for attention: twice its input."""

    map_names = ()

    def call(self, x, frame_mask=None, training=None, return_attention_maps=False):
        return 2 * x


@pytest.mark.parametrize("normalize_output", [False, True])
def test_pre_norm_normalizes_before_each_part_and_not_the_residual(normalize_output, clips):
    x, frame_mask = clips
    block = TransformerBlock(
        Doubling(), feed_forward_size=5, pre_norm=True, normalize_output=normalize_output
    )
    block.build(x.shape)
    rng = np.random.default_rng(0)
    block.set_weights([rng.normal(size=w.shape) for w in block.get_weights()])

    def norm(x, layer):
        gamma, beta = (w.numpy() for w in (layer.gamma, layer.beta))
        centered = x - x.mean(axis=-1, keepdims=True)
        return gamma * centered / np.sqrt(x.var(axis=-1, keepdims=True) + 1e-5) + beta

    first, second, *last = block.normalizations
    assert len(last) == normalize_output
    (w, b), (v, c) = block.hidden_dense.get_weights(), block.output_dense.get_weights()
    attended = x + 2 * norm(x.astype("float64"), first)
    expected = attended + np.maximum(norm(attended, second) @ w + b, 0) @ v + c
    for layer in last:
        expected = norm(expected, layer)
    result = block(x, frame_mask=frame_mask).numpy()
    np.testing.assert_allclose(result[frame_mask], expected[frame_mask], atol=1e-4)
    assert not np.any(result[~frame_mask])


def test_an_output_that_is_normalized_anyway_is_refused():
    with pytest.raises(ValueError, match="`normalize_output` is for `pre_norm`"):
        TransformerBlock(Doubling(), normalize_output=True)
