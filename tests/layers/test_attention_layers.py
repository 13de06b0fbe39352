import keras
import numpy as np
import pytest
import tensorflow as tf

from yt8m_gat.layers import (
    AttentionLevel,
    GatedMapAttention,
    GatedMultiLevelAttention,
    MaskedLocalAttention,
    SharedHeadsAttention,
    expand_attention_map,
)

NUM_HEADS = 2
GATED_LEVELS = [
    ("global",),
    ("tp3",),
    ("global", "bd3"),
    ("global", "global"),
    ("global", "tp2", "td4x2"),
]
BUILDERS = {
    **{
        f"gated {'+'.join(levels)}": lambda levels=levels, **kwargs: GatedMultiLevelAttention(
            NUM_HEADS, levels, **kwargs
        )
        for levels in GATED_LEVELS
    },
    "local": lambda **kwargs: MaskedLocalAttention(NUM_HEADS, "bd4", **kwargs),
    "shared": lambda **kwargs: SharedHeadsAttention(4, ("bd3", "td4x2"), **kwargs),
    "map": lambda **kwargs: GatedMapAttention(NUM_HEADS, "tp2", max_frames=11, **kwargs),
    "map renormalized": lambda **kwargs: GatedMapAttention(
        NUM_HEADS, "tp2", max_frames=11, renormalize=True, **kwargs
    ),
}
all_layers = pytest.mark.parametrize("name", BUILDERS)


def built(name, clips, randomize_vectors, **kwargs):
    x, _ = clips
    layer = BUILDERS[name](**kwargs)
    layer.build(x.shape)
    randomize_vectors(layer)
    return layer


def num_parameters(layer):
    return sum(int(np.prod(variable.shape)) for variable in layer.trainable_variables)


@all_layers
def test_layer_contract(name, check_frame_layer):
    check_frame_layer(BUILDERS[name](), fixed_num_frames=name.startswith("map"))


@pytest.mark.parametrize("name", ["gated global+bd3", "shared"])
def test_layer_contract_of_uniform_attention(name, check_frame_layer):
    check_frame_layer(BUILDERS[name](uniform=True))


@pytest.mark.parametrize("levels", GATED_LEVELS, ids="+".join)
def test_gated_levels_are_the_formula(levels, clips, randomize_vectors, slow_heads):
    """GAT, section 3.1; local temporal paper, eq. 9 to 13."""
    x, frame_mask = clips
    layer = built(f"gated {'+'.join(levels)}", clips, randomize_vectors, seed=3)
    output, maps = layer(x, frame_mask=frame_mask, return_attention_maps=True)
    heads = slow_heads(layer, x, frame_mask)
    for clip, length in enumerate(frame_mask.sum(axis=1)):
        values, gates = [], []
        for index, form in enumerate(levels):
            context = heads.context([form] * NUM_HEADS, clip)
            kernel, bias = (weight.numpy() for weight in layer.experts[index])
            values.append(context @ kernel[:, :8] + bias)
            gates.append(np.exp(context @ kernel[:, 8:]) if len(levels) > 1 else np.ones((11, 8)))
        expected = sum(v * g / sum(gates) for v, g in zip(values, gates, strict=True))
        np.testing.assert_allclose(output[clip, :length], expected[:length], rtol=0, atol=1e-5)
        for attention_map, form in zip(maps, layer.map_names, strict=True):
            expanded = expand_attention_map(attention_map, AttentionLevel.parse(form))
            for head in range(NUM_HEADS):
                np.testing.assert_allclose(
                    expanded[clip, head], heads.map(form, clip, head), rtol=0, atol=2e-6
                )


def test_shared_heads_are_the_formula(clips, randomize_vectors, slow_heads):
    """Local temporal paper, 2.2: half of the heads global, the others at a level each."""
    x, frame_mask = clips
    layer = built("shared", clips, randomize_vectors, seed=3)
    output, maps = layer(x, frame_mask=frame_mask, return_attention_maps=True)
    heads = slow_heads(layer, x, frame_mask)
    forms = ["global", "global", "bd3", "td4x2"]
    for clip, length in enumerate(frame_mask.sum(axis=1)):
        expected = heads.context(forms, clip) @ layer.output_kernel + layer.output_bias
        np.testing.assert_allclose(output[clip, :length], expected[:length], rtol=0, atol=1e-5)
    assert layer.map_names == ("global", "bd3", "td4x2")
    assert [attention_map.shape[1] for attention_map in maps] == [2, 1, 1]
    first = 0
    for attention_map, form in zip(maps, layer.map_names, strict=True):
        expanded = expand_attention_map(attention_map, AttentionLevel.parse(form))
        for head in range(expanded.shape[1]):
            np.testing.assert_allclose(
                expanded[1, head], heads.map(form, 1, first + head), rtol=0, atol=2e-6
            )
        first += expanded.shape[1]


def test_heads_of_one_level_share_an_entry_of_the_maps(clips):
    x, frame_mask = clips
    layer = SharedHeadsAttention(8, ("bd3", "tp2", "bd3", "bd3"))
    _, maps = layer(x, frame_mask=frame_mask, return_attention_maps=True)
    assert layer.map_names == ("global", "bd3", "tp2")
    assert [attention_map.shape[1] for attention_map in maps] == [4, 3, 1]


@pytest.mark.parametrize("renormalize", [False, True])
def test_gated_maps_are_the_formula(renormalize, clips, randomize_vectors, slow_heads):
    """local_temporal.txt eq. 7; and its claim that the rows sum to one, which does not hold."""
    x, frame_mask = clips
    name = "map renormalized" if renormalize else "map"
    layer = built(name, clips, randomize_vectors, seed=3)
    # Gates of some size: with small ones R is near 1/2 and the rows do sum to nearly one.
    layer.global_gate_kernel.assign(layer.global_gate_kernel * 20)
    output, maps = layer(x, frame_mask=frame_mask, return_attention_maps=True)
    assert layer.map_names == ("global", "tp2", "gated")
    heads = slow_heads(layer, x, frame_mask)
    largest_deviation = 0.0
    for clip, length in enumerate(frame_mask.sum(axis=1)):
        contexts = []
        for head in range(NUM_HEADS):
            global_map, local_map = (heads.map(form, clip, head) for form in ("global", "tp2"))
            global_gate = np.exp(global_map @ layer.global_gate_kernel)
            local_gate = np.exp(local_map @ layer.local_gate_kernel)
            gated = global_gate * global_map + local_gate * local_map
            gated = gated / (global_gate + local_gate)
            sums = gated.sum(axis=-1, keepdims=True)
            largest_deviation = max([largest_deviation, *np.abs(sums[:length] - 1)])
            if renormalize:
                gated[:length] /= sums[:length]
            for expected, actual in zip((global_map, local_map, gated), maps, strict=True):
                np.testing.assert_allclose(actual[clip, head], expected, rtol=0, atol=5e-6)
            contexts.append(gated @ heads.head(heads.value, clip, head))
        expected = np.concatenate(contexts, axis=-1) @ layer.output_kernel + layer.output_bias
        np.testing.assert_allclose(output[clip, :length], expected[:length], rtol=0, atol=1e-5)
    assert largest_deviation > 0.05
    row_sums = maps[2].numpy().sum(axis=-1)[frame_mask[:, None] & np.ones((1, NUM_HEADS, 1), bool)]
    assert np.allclose(row_sums, 1, atol=1e-5) == renormalize


def test_one_global_level_is_the_attention_of_keras(clips, randomize_vectors):
    x, frame_mask = clips
    layer = built("gated global", clips, randomize_vectors)
    theirs = keras.layers.MultiHeadAttention(NUM_HEADS, key_dim=4)
    theirs.build(x.shape, x.shape)
    kernels = np.split(layer.projection_kernel.numpy(), 3, axis=1)
    biases = np.split(layer.projection_bias.numpy(), 3)
    (output_kernel, output_bias) = layer.experts[0]
    weights = []
    for kernel, bias in zip(kernels, biases, strict=True):
        weights += [kernel.reshape(8, NUM_HEADS, 4), bias.reshape(NUM_HEADS, 4)]
    theirs.set_weights([*weights, output_kernel.numpy().reshape(NUM_HEADS, 4, 8), output_bias])
    ours, (our_map,) = layer(x, frame_mask=frame_mask, return_attention_maps=True)
    expected, expected_map = theirs(
        x, x, attention_mask=frame_mask[:, None, :], return_attention_scores=True
    )
    np.testing.assert_allclose(ours.numpy()[frame_mask], expected.numpy()[frame_mask], atol=1e-5)
    np.testing.assert_allclose(
        our_map.numpy().transpose(0, 2, 1, 3)[frame_mask],
        expected_map.numpy().transpose(0, 2, 1, 3)[frame_mask],
        atol=2e-6,
    )


@pytest.mark.parametrize("form", ["bd3", "tp2", "td4x2"])
def test_jacobian_is_zero_outside_the_window_and_on_padding(form, clips):
    x, _ = clips
    x = tf.constant(x[:1])
    frame_mask = np.arange(11)[None] < 9
    layer = MaskedLocalAttention(NUM_HEADS, form)
    with tf.GradientTape() as tape:
        tape.watch(x)
        output = layer(x, frame_mask=frame_mask)
    jacobian = tape.jacobian(output, x)[0, :, :, 0]  # [T, D, T, D]
    reached = (np.abs(jacobian) > 0).any(axis=(1, 3))
    real = frame_mask[0]
    expected = AttentionLevel.parse(form).dense_mask(11) & real[:, None] & real
    np.testing.assert_array_equal(reached, expected)


@pytest.mark.parametrize(
    ("layer", "expected"),
    # With D = 1024: Q, K, V and the output 4 (D^2 + D); each further level D^2 + D for its
    # output, and D^2 for each gate.
    [
        (GatedMultiLevelAttention(levels=("global",)), 4 * 1_049_600),
        (MaskedLocalAttention(level="td60x4"), 4 * 1_049_600),
        (SharedHeadsAttention(), 4 * 1_049_600),
        (GatedMapAttention(), 4 * 1_049_600 + 2 * 300**2),
        (GatedMultiLevelAttention(), 5 * 1_049_600 + 2 * 1024**2),
        (
            GatedMultiLevelAttention(levels=("global", "bd20", "bd60")),
            6 * 1_049_600 + 3 * 1024**2,
        ),
        (GatedMultiLevelAttention(levels=("global",), uniform=True), 2 * 1_049_600),
    ],
    ids=lambda value: value.name if isinstance(value, keras.Layer) else "",
)
def test_number_of_parameters(layer, expected):
    layer.build((None, 300, 1024))
    assert num_parameters(layer) == expected


def test_each_matrix_of_a_fused_kernel_is_glorot_uniform_on_its_own():
    layer = GatedMultiLevelAttention(seed=5)
    layer.build((None, None, 64))
    limit = np.sqrt(6 / (64 + 64))
    parts = np.split(layer.projection_kernel.numpy(), 3, axis=1)
    for kernel, _ in layer.experts:
        parts += np.split(kernel.numpy(), 2, axis=1)
    for part in parts:
        # The largest of 4,096 draws lies within 1 % of the limit; that of a fused kernel of
        # three parts would be at 0.71 of it.
        assert 0.99 * limit < np.abs(part).max() <= limit
        np.testing.assert_allclose(part.var(), limit**2 / 3, rtol=0.1)
    for index, part in enumerate(parts):
        for other in parts[:index]:
            assert abs(np.corrcoef(part.ravel(), other.ravel())[0, 1]) < 0.1


@all_layers
def test_seed_decides_weights_and_dropout(name, clips, randomize_vectors):
    x, frame_mask = clips
    outputs = [
        built(name, clips, randomize_vectors, seed=seed, dropout=0.5)(
            x, frame_mask=frame_mask, training=True
        ).numpy()
        for seed in (1, 1, 2)
    ]
    np.testing.assert_array_equal(outputs[0], outputs[1])
    assert np.abs(outputs[0] - outputs[2]).max() > 0.1


@all_layers
def test_dropout_acts_in_training_alone(name, clips, randomize_vectors):
    x, frame_mask = clips
    layer = built(name, clips, randomize_vectors, dropout=0.5)
    still = layer(x, frame_mask=frame_mask, training=False).numpy()
    np.testing.assert_array_equal(still, layer(x, frame_mask=frame_mask, training=False))
    assert np.abs(still - layer(x, frame_mask=frame_mask, training=True)).max() > 0.01


def test_uniform_attention_moves_no_map(clips):
    """The maps do not depend on the frames, and the layer has no weights for Q and K."""
    x, frame_mask = clips
    layer = GatedMultiLevelAttention(NUM_HEADS, ("global", "bd3"), uniform=True)
    _, maps = layer(x, frame_mask=frame_mask, return_attention_maps=True)
    _, other = layer(-3 * x, frame_mask=frame_mask, return_attention_maps=True)
    for one, two in zip(maps, other, strict=True):
        assert one.shape[1] == 1
        np.testing.assert_array_equal(one, two)
    assert layer.projection_kernel.shape == (8, 8)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GatedMultiLevelAttention(0), "`num_heads` must be positive.*num_heads=0"),
        (lambda: GatedMultiLevelAttention(levels=()), r"at least one level.*levels=\(\)"),
        (lambda: GatedMultiLevelAttention(levels="bd20"), "a sequence of.*levels='bd20'"),
        (lambda: GatedMultiLevelAttention(levels=("bd",)), "must be 'global', .*Received: 'bd'"),
        (lambda: GatedMultiLevelAttention(dropout=1.0), r"in \[0, 1\).*dropout=1.0"),
        (lambda: MaskedLocalAttention(level="tp"), "must be 'global', .*Received: 'tp'"),
        (lambda: SharedHeadsAttention(8, ("bd3",)), r"num_heads / 2.*num_heads=8.*\('bd3',\)"),
        (lambda: SharedHeadsAttention(2, ("global",)), r"must be local.*\('global',\)"),
        (lambda: GatedMapAttention(level="global"), "must be a local level.*level='global'"),
        (lambda: GatedMapAttention(max_frames=0), "must be positive.*max_frames=0"),
        (
            lambda: GatedMultiLevelAttention(3).build((None, None, 8)),
            r"must divide the feature size.*num_heads=3.*\(None, None, 8\)",
        ),
        (
            lambda: GatedMapAttention(2, max_frames=300).build((None, 299, 8)),
            "exactly `max_frames` frames.*max_frames=300.*299",
        ),
        (
            lambda: GatedMapAttention(2, max_frames=300).build((None, None, 8)),
            "exactly `max_frames` frames.*None, 8",
        ),
    ],
)
def test_wrong_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()
