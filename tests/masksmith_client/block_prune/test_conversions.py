"""Places of tensors that are fused: checked with entries that are all different."""

import random

import pytest
import torch

from masksmith_client.cli.block_prune.conversions import PieceFollower

SHAPE, COUNT = (3, 4, 2), 8


def fused(tensors, seed):
    """Fuse tensors of one shape, two at a time, with random permutations in between."""
    chosen, tensors = random.Random(seed), list(tensors)
    while len(tensors) > 1:
        fuse, dim = chosen.choice([torch.stack, torch.cat]), chosen.randrange(-2, 2)
        tensors = [fuse(tensors[number : number + 2], dim) for number in range(0, len(tensors), 2)]
        dims = list(range(tensors[0].ndim))
        chosen.shuffle(dims)
        change = chosen.choice([
            lambda each, dims=dims: each.permute(dims), lambda each: each.transpose(0, -1), lambda each: each.clone(),
            lambda each: each.mT.contiguous(),
        ])  # fmt: skip
        tensors = [change(each) for each in tensors]
    return tensors[0].contiguous()


@pytest.mark.parametrize("seed", range(30))
def test_every_tensor_is_found_in_what_it_is_fused_into(seed):
    entries = torch.arange(COUNT * 24).reshape(COUNT, *SHAPE)
    whole = fused(entries, seed)
    follower = PieceFollower()
    with follower:
        followed = fused([follower.add(str(number), SHAPE) for number in range(COUNT)], seed)
    assert followed.shape == whole.shape
    pieces = {piece.name: piece for piece in follower.pieces(followed)}
    assert pieces.keys() == {str(number) for number in range(COUNT)}
    for number, values in enumerate(entries):
        strides, offset = pieces[str(number)].strides_and_offset(whole.shape)
        assert torch.equal(whole.as_strided(SHAPE, strides, offset), values)


@pytest.mark.parametrize(
    ("shape", "transpose"),
    [
        ((4,), torch.t),
        ((), torch.t),
        ((4,), lambda each: each.transpose(0, -1)),
        ((), lambda each: each.transpose(0, -1)),
    ],
)
def test_transposing_a_vector_or_a_number_moves_nothing(shape, transpose):
    follower = PieceFollower()
    with follower:
        tensor = follower.add("bias", shape)
        assert follower.pieces(transpose(tensor)) == follower.pieces(tensor)


OTHER_OPERATIONS = {
    "interleave": lambda each: each.reshape(2, 4, 3).transpose(0, 1).reshape(8, 3),
    "scale": lambda each: each * 2,
    "flip": lambda each: each.flip(0),
    "slice": lambda each: each[1:],
    "chunk": lambda each: each.chunk(2)[0],
    "roll": lambda each: each.roll(1),
}


@pytest.mark.parametrize("change", OTHER_OPERATIONS.values(), ids=OTHER_OPERATIONS)
def test_other_operations_leave_the_places_unknown(change):
    follower = PieceFollower()
    with follower:
        assert follower.pieces(change(follower.add("weight", (8, 3)))) == []
